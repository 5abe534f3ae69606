"""How to reach an API server of Kubernetes: by a pod's ServiceAccount, or by a kubeconfig.

https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/,
https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lading.errors import NotFound, Unsupported, UsageError
from lading.secret import Secret
from lading.settings.limits import Network
from lading.settings.variables import Variables
from lading.system.disk import memory_file, read_secret_file
from lading.text.printable import printable
from lading.text.suggest import suggest

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_DEFAULT = "~/.kube/config"
# Keys that change the user or the way to the server: to ignore one would be to ask as somebody else.
_NOT_DONE = {
    "exec": "has a program that fetches its login",
    "auth-provider": "has an auth-provider",
    "as": "impersonates another",
    "as-uid": "impersonates another",
    "as-groups": "impersonates another",
    "username": "has a password",
    "tls-server-name": "has a tls-server-name",
}


class Access(NamedTuple):
    """An API server and the credential for it: the client certificate of ``network``, or a token.

    ``token_file`` is read for each request and wins over ``token``.
    """

    server: str
    namespace: str
    network: Network
    token: Secret | None = None
    token_file: str = ""

    def bearer(self) -> Secret | None:
        """The bearer token for a request now; None if there is none."""
        return Secret(read_secret_file(self.token_file)) if self.token_file else self.token


def read_access(
    variables: Variables,
    network: Network,
    *,
    kubeconfig: str = "",
    context: str = "",
    service_account: Path = Path(SERVICE_ACCOUNT),
) -> Access:
    """The API server of ``kubeconfig``, else of KUBECONFIG, of the pod that this runs in, or of ~/.kube/config."""
    # Only OpenSSL: rustls is for large files.
    network = network._replace(ca_files=(), tls="openssl")
    named = kubeconfig or variables.get("KUBECONFIG", "")
    if not named and not context and variables.get("KUBERNETES_SERVICE_HOST") and service_account.is_dir():
        return _in_cluster(variables, network, service_account)
    paths = [Path(path).expanduser() for path in (named or _DEFAULT).split(os.pathsep) if path]
    return _Kubeconfig(paths).access(context, network)


def _in_cluster(variables: Variables, network: Network, folder: Path) -> Access:
    host, port = variables["KUBERNETES_SERVICE_HOST"], variables.get("KUBERNETES_SERVICE_PORT") or "443"
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=read_secret_file(str(folder / "namespace")),
        network=_believing(network, str(folder / "ca.crt")),
        token_file=str(folder / "token"),
    )


def _believing(network: Network, authority: str) -> Network:
    """``network`` for an API server: if it has an authority of its own, public authorities are not trusted."""
    return network._replace(ca_files=(authority,), only_ca_files=True) if authority else network


class _Kubeconfig:
    """Several kubeconfig files as one: of entries with the same name, the first one counts."""

    def __init__(self, paths: Sequence[Path]) -> None:
        there = [path for path in paths if path.exists()]
        if not there:
            raise NotFound(
                f"there is no kubeconfig {printable(str(paths[0]))}" if paths else "KUBECONFIG names no file",
                hint="set KUBECONFIG, or run this in a pod with a ServiceAccount",
            )
        from lading.text.strict_yaml import read_yaml

        self._files = [(path, read_yaml(path)) for path in there]
        self._shown = printable(":".join(map(str, there)))

    def access(self, context: str, network: Network) -> Access:
        """The API server and credential of ``context``, or of the current context if it is empty."""
        context = context or next((str(said) for _, file in self._files if (said := file.get("current-context"))), "")
        if not context:
            raise UsageError(f"{self._shown} has no current-context", hint="kubectl config use-context NAME")
        _, said = self._entry("contexts", "context", context)
        place, cluster = self._entry("clusters", "cluster", said.get("cluster"))
        home, user = self._entry("users", "user", said["user"]) if said.get("user") else (place, {})
        self._refuse(cluster, user)
        if not str(cluster.get("server", "")).startswith(("https://", "http://")):
            raise self._wrong(f"the cluster {said.get('cluster')!r} has no server")
        network = _believing(network, self._pem(place, cluster, "certificate-authority"))
        if proxy := str(cluster.get("proxy-url") or ""):
            network = network._replace(http_proxy=proxy, https_proxy=proxy, no_proxy=())
        return Access(
            server=str(cluster["server"]).rstrip("/"),
            namespace=str(said.get("namespace") or "default"),
            network=network._replace(
                verify_tls=not cluster.get("insecure-skip-tls-verify"),
                client_certificate=self._pem(home, user, "client-certificate"),
                client_key=self._pem(home, user, "client-key"),
            ),
            token=Secret(str(user["token"])) if user.get("token") else None,
            token_file=str(home.parent / str(user["tokenFile"])) if user.get("tokenFile") else "",
        )

    def _entry(self, section: str, key: str, name: object) -> tuple[Path, Mapping[str, Any]]:
        """The file that has the entry with this name, and the entry."""
        names = []
        for path, file in self._files:
            for item in file.get(section) or ():
                if not isinstance(item, dict) or not isinstance(item.get(key) or {}, dict):
                    raise self._wrong(f"an entry of {section} is not a mapping")
                if item.get("name") == name:
                    return path, item.get(key) or {}
                names.append(str(item.get("name")))
        raise NotFound(f"{self._shown} has no {key} {printable(str(name))!r}", hint=suggest(str(name), names))

    def _refuse(self, *entries: Mapping[str, Any]) -> None:
        for entry in entries:
            for key, words in _NOT_DONE.items():
                if entry.get(key):
                    raise Unsupported(
                        f"{self._shown}: the entry of the current context {words} ({key}), which lading does not do",
                        hint="name another kubeconfig: one with a token (kubectl create token), a certificate, "
                        "or the server http://127.0.0.1:8001 of kubectl proxy",
                    )

    def _pem(self, place: Path, entry: Mapping[str, Any], key: str) -> str:
        """The path of certificates or a key: text in the kubeconfig wins over a file that it names; "" for neither."""
        data = entry.get(f"{key}-data")
        if not data:
            return str(place.parent / str(entry[key])) if entry.get(key) else ""
        try:
            return memory_file(base64.b64decode(str(data), validate=True))
        except ValueError as error:
            raise self._wrong(f"{key}-data is not in base64") from error

    def _wrong(self, what: str) -> UsageError:
        return UsageError(f"{self._shown}: {printable(what)}", hint="kubectl config view shows it")
