"""HDFS: KServe's secret (a folder of files, or storage JSON), and the variables that its keys stand for."""

import base64
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from lading.errors import UsageError
from lading.secret import Secret
from lading.settings.http import parse_headers
from lading.settings.variables import Variables, is_true
from lading.system.disk import memory_file, read_secret_file
from lading.text.printable import printable

_DEFAULT_FOLDER = "/var/secrets/kserve-hdfscreds"

# KServe's secret and storage JSON (types hdfs and webhdfs): each key and the variable that it stands for.
# N_THREADS is not among them: the number of workers follows the container's limits.
STORAGE_KEYS = {
    "HDFS_NAMENODE": "HDFS_NAMENODE",
    "HDFS_ROOTPATH": "HDFS_ROOTPATH",
    "HDFS_DELEGATION_TOKEN": "HDFS_DELEGATION_TOKEN",
    "USER_PROXY": "HDFS_USER_PROXY",
    "HEADERS": "HDFS_HEADERS",
    "KERBEROS_PRINCIPAL": "HDFS_KERBEROS_PRINCIPAL",
    "KERBEROS_KEYTAB": "HDFS_KERBEROS_KEYTAB",
    "TLS_CERT": "HDFS_TLS_CERT",
    "TLS_KEY": "HDFS_TLS_KEY",
    "TLS_CA": "HDFS_TLS_CA",
    "TLS_SKIP_VERIFY": "HDFS_TLS_SKIP_VERIFY",
}
_LOGIN = ("HDFS_DELEGATION_TOKEN", "USER_PROXY", "KERBEROS_PRINCIPAL")
# In the folder these are files; elsewhere their content is given in base64.
_FILES = ("KERBEROS_KEYTAB", "TLS_CERT", "TLS_KEY", "TLS_CA")


class Hdfs(NamedTuple):
    """The namenodes, and the credentials for them.  ``keytab`` and the fields ``tls_…`` are paths of files.

    Without namenodes there are no credentials: they are sent to configured hosts, never to a host of a URI.
    """

    namenodes: tuple[str, ...] = ()
    root: str = "/"
    user: str = ""
    proxy_user: str = ""
    delegation_token: Secret | None = None
    headers: tuple[tuple[str, Secret], ...] = ()
    principal: str = ""
    keytab: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    verify_tls: bool = True


def read_hdfs(variables: Variables) -> Hdfs:
    """Read the namenodes and the credentials: either all of it from variables, or all of it from the folder."""
    texts = {key: text for key, variable in STORAGE_KEYS.items() if (text := variables.get(variable, ""))}
    for key in _LOGIN:
        variables.exact(STORAGE_KEYS[key])
    user = variables.exact("HADOOP_USER_NAME")
    if texts:
        files = {key: _content(STORAGE_KEYS[key], texts[key]) for key in _FILES if key in texts}
        where = "the HDFS variables"
    else:
        folder = Path(variables.get("HDFS_SECRET_DIR") or _DEFAULT_FOLDER)
        if not variables.get("HDFS_SECRET_DIR") and not folder.is_dir():
            return Hdfs(user=user)
        there = {key: str(folder / key) for key in STORAGE_KEYS if (folder / key).is_file()}
        files = {key: there.pop(key) for key in _FILES if key in there}
        texts = {key: read_secret_file(path) for key, path in there.items()}
        where = printable(str(folder))
    if not texts.get("HDFS_NAMENODE"):
        raise UsageError(
            f"{where} name no HDFS_NAMENODE" if "variables" in where else f"{where} has no file HDFS_NAMENODE",
            hint="for example https://namenode:9871, several separated by semicolons",
        )
    token = texts.get("HDFS_DELEGATION_TOKEN")
    found = Hdfs(
        namenodes=tuple(_namenode(url) for url in map(str.strip, texts["HDFS_NAMENODE"].split(";")) if url),
        root=texts.get("HDFS_ROOTPATH") or "/",
        user=user,
        proxy_user=texts.get("USER_PROXY", ""),
        delegation_token=Secret(token) if token else None,
        headers=tuple(
            (name, Secret(value)) for name, value in parse_headers(texts.get("HEADERS") or "{}", "HEADERS of HDFS")
        ),
        principal=texts.get("KERBEROS_PRINCIPAL", ""),
        keytab=files.get("KERBEROS_KEYTAB", ""),
        tls_certificate=files.get("TLS_CERT", ""),
        tls_key=files.get("TLS_KEY", ""),
        tls_ca=files.get("TLS_CA", ""),
        verify_tls=not is_true(texts.get("TLS_SKIP_VERIFY") or "false", "TLS_SKIP_VERIFY"),
    )
    if bool(found.principal) != bool(found.keytab):
        raise UsageError("only one of KERBEROS_PRINCIPAL and KERBEROS_KEYTAB is given", hint="give both, or neither")
    return found


def _namenode(url: str) -> str:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises, too
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
        raise UsageError(
            "HDFS_NAMENODE is not an http or https URL", hint="for example https://namenode:9871, without a user"
        )
    return url.rstrip("/")


def _content(variable: str, text: str) -> str:
    try:
        return memory_file(base64.b64decode("".join(text.split()), validate=True))
    except ValueError as error:
        raise UsageError(f"{variable} is not base64 text", hint="encode the file by: base64 -w0") from error
