"""Which namenode is asked for which path, with what: KServe's secret, its storage JSON, variables, the URI."""

import base64
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from lading.auth import kerberos
from lading.errors import NotFound, Unsupported, UsageError
from lading.events import ignore
from lading.model.uri import ModelURI
from lading.session import Session
from lading.settings.families import DEPENDENTS
from lading.settings.hdfs import STORAGE_KEYS, Hdfs, read_hdfs
from lading.settings.settings import Settings
from lading.settings.variables import Variables
from lading.sources.hdfs import HdfsSource
from lading.system.disk import memory_file

CONFIGURED = {"HDFS_NAMENODE": "https://nn1:9871;https://nn2:9871"}


def source(uri: str, **environment: str) -> HdfsSource:
    settings = Settings.load({"LADING_CONFIG": "", **environment})
    return HdfsSource(ModelURI.parse(uri), settings, Session(settings, ignore).http)


@pytest.mark.parametrize(
    ("uri", "environment", "namenodes", "names"),
    [
        ("hdfs://user/me/model", CONFIGURED, ("https://nn1:9871", "https://nn2:9871"), ["user", "me", "model"]),
        ("webhdfs://user/me", CONFIGURED, ("https://nn1:9871", "https://nn2:9871"), ["user", "me"]),
        ("hdfs:///user//me/", CONFIGURED, ("https://nn1:9871", "https://nn2:9871"), ["user", "me"]),
        ("hdfs://nn2:8020/user/me", CONFIGURED, ("https://nn1:9871", "https://nn2:9871"), ["user", "me"]),
        ("hdfs://user/a%20b#c", CONFIGURED, ("https://nn1:9871", "https://nn2:9871"), ["user", "a%20b#c"]),
        ("hdfs://", {"HDFS_NAMENODE": "http://nn/gateway/default/"}, ("http://nn/gateway/default",), []),
        ("webhdfs://nn:9870/user/me", {}, ("http://nn:9870",), ["user", "me"]),
        ("swebhdfs://nn:9871/user/me", {}, ("https://nn:9871",), ["user", "me"]),
        ("webhdfs://[::1]:9870/x", {}, ("http://[::1]:9870",), ["x"]),
    ],
)
def test_a_uri_names_a_path_and_only_with_a_port_a_host(
    uri: str, environment: dict[str, str], namenodes: tuple[str, ...], names: list[str]
) -> None:
    found = source(uri, **environment)
    assert (found._namenodes, found._names) == (namenodes, names)


@pytest.mark.parametrize(
    ("uri", "environment", "says"),
    [
        ("hdfs://user/me", {}, "HDFS_NAMENODE"),
        ("hdfs://nn:8020/user/me", {}, "HDFS_NAMENODE"),
        ("webhdfs://nn/user/me", {}, "HDFS_NAMENODE"),
        ("webhdfs://elsewhere:9870/user/me", CONFIGURED, "another host"),
        ("hdfs://user/me?op=DELETE", CONFIGURED, "not an HDFS URI"),
        ("hdfs://me:s3cret@nn:9870/x", CONFIGURED, "not an HDFS URI"),
        ("hdfs://user/../me", CONFIGURED, "'..'"),
        ("hdfs://x", {"HDFS_NAMENODE": "nn:9870"}, "not an http or https URL"),
        ("hdfs://x", {"HDFS_NAMENODE": "https://me:s3cret@nn:9870"}, "not an http or https URL"),
        ("hdfs://x", {"HDFS_NAMENODE": "https://[s3cret:9870"}, "not an http or https URL"),
        ("hdfs://x", {"HDFS_NAMENODE": "https://nn:s3cret"}, "not an http or https URL"),
        ("hdfs://x", {"HDFS_HEADERS": '{"A": "s3cret"}'}, "no HDFS_NAMENODE"),
        ("hdfs://x", {**CONFIGURED, "HDFS_HEADERS": "s3cret"}, "not a JSON object"),
        ("hdfs://x", {**CONFIGURED, "HDFS_KERBEROS_PRINCIPAL": "me@R"}, "only one of"),
        ("hdfs://x", {**CONFIGURED, "HDFS_TLS_CERT": "s3cret!"}, "not base64"),
        ("hdfs://x", {**CONFIGURED, "HDFS_TLS_CERT": "s3cret\u00e9"}, "not base64"),
        ("hdfs://x", {**CONFIGURED, "HDFS_TLS_SKIP_VERIFY": "perhaps"}, "TLS_SKIP_VERIFY"),
    ],
)
def test_what_is_wrong_is_said_and_no_secret_is(uri: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        source(uri, **environment)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


SECRET = {
    "HDFS_NAMENODE": "https://nn:9871\n",
    "HDFS_ROOTPATH": "/models",
    "USER_PROXY": "eve",
    "HEADERS": '{"X-Key": "k"}',
    "N_THREADS": "2",
    "TLS_SKIP_VERIFY": "true",
    "TLS_CERT": "certificate",
    "TLS_KEY": "key",
    "KERBEROS_PRINCIPAL": "me@REALM",
    "KERBEROS_KEYTAB": "\x05\x02\xff",
}


def facts(hdfs: Hdfs) -> tuple[object, ...]:
    headers = [(name, value.reveal()) for name, value in hdfs.headers]
    files = [Path(place).read_bytes() for place in (hdfs.tls_certificate, hdfs.tls_key, hdfs.keytab)]
    return (hdfs.namenodes, hdfs.root, hdfs.proxy_user, headers, hdfs.verify_tls, hdfs.principal, files)


FACTS = (
    ("https://nn:9871",),
    "/models",
    "eve",
    [("X-Key", "k")],
    False,
    "me@REALM",
    [b"certificate", b"key", b"\x05\x02\xff"],
)


def test_the_mounted_secret_is_read_as_kserve_mounts_it(tmp_path: Path) -> None:
    for name, text in SECRET.items():
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    found = read_hdfs(Variables({"HDFS_SECRET_DIR": str(tmp_path)}))
    assert facts(found) == FACTS
    assert "'k'" not in repr(found)


@pytest.mark.parametrize("kind", ["hdfs", "webhdfs"])
def test_the_storage_json_has_the_same_keys_and_files_in_base64(kind: str) -> None:
    spec: dict[str, object] = {"type": kind, **SECRET, "TLS_SKIP_VERIFY": True, "HEADERS": {"X-Key": "k"}}
    for name in ("TLS_CERT", "TLS_KEY", "KERBEROS_KEYTAB"):
        spec[name] = base64.encodebytes(SECRET[name].encode("latin-1")).decode()
    settings = Settings.load({"STORAGE_CONFIG": json.dumps(spec), "LADING_CONFIG": ""})
    assert facts(read_hdfs(settings.variables)) == FACTS


def test_credentials_are_never_put_together_from_two_places(tmp_path: Path) -> None:
    (tmp_path / "HDFS_NAMENODE").write_text("https://mounted:9871")
    (tmp_path / "HEADERS").write_text('{"X-Key": "mounted"}')
    of_environment = Variables({"HDFS_NAMENODE": "https://environment:9871", "HDFS_HEADERS": '{"X-Key": "e"}'})
    from_json = of_environment.overlaid({"HDFS_NAMENODE": "https://json:9871"})
    assert read_hdfs(from_json).headers == ()
    mounted = read_hdfs(of_environment.overlaid({"HDFS_SECRET_DIR": str(tmp_path)}))
    assert mounted.namenodes == ("https://mounted:9871",)
    both = read_hdfs(from_json.overlaid({"HDFS_NAMENODE": "https://json:9871", "HDFS_SECRET_DIR": str(tmp_path)}))
    assert (both.namenodes, both.headers) == (("https://json:9871",), ())


def test_whatever_belongs_to_a_namenode_goes_with_it() -> None:
    assert {*DEPENDENTS["HDFS_NAMENODE"], "HDFS_NAMENODE"} == set(STORAGE_KEYS.values())


def test_a_folder_that_is_named_must_be_there_and_name_a_namenode(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file HDFS_NAMENODE"):
        read_hdfs(Variables({"HDFS_SECRET_DIR": str(tmp_path)}))
    with pytest.raises((UsageError, NotFound)):
        read_hdfs(Variables({"HDFS_SECRET_DIR": str(tmp_path / "no")}))


def test_kerberos_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)
    monkeypatch.setattr("lading.auth.kerberos._gssapi", kerberos._gssapi.__wrapped__)
    with pytest.raises(Unsupported) as caught:
        source("hdfs://x", **CONFIGURED, HDFS_KERBEROS_PRINCIPAL="me@R", HDFS_KERBEROS_KEYTAB="BQI=")
    assert caught.value.hint == "pip install 'lading[kerberos]'"


def test_a_file_in_memory_is_nobody_elses_and_one_for_each_content() -> None:
    place = memory_file(b"secret")
    assert Path(place).read_bytes() == Path(place).read_bytes() == b"secret"
    assert memory_file(b"secret") == place != memory_file(b"another")
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o400
    assert os.readlink(place).startswith("/memfd:")
