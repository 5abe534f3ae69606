"""MLflow: options of its entry, and the variables of its own client.

https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
"""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from lading.errors import Unsupported
from lading.settings.kubernetes import SERVICE_ACCOUNT
from lading.settings.registries import RegistryEntry
from lading.settings.server import AwsLogin, LoginSettings, ServerSettings, Tls, check_url
from lading.settings.value import Value
from lading.settings.variables import Variables

EXAMPLES = {"workspace": "team-a"}


class MlflowSettings(NamedTuple):
    """Options of an MLflow server; ``artifacts_url`` is the server that proxies the artifacts, if it is another one."""

    artifacts_url: str = ""
    workspace: Value = Value()

    def check(self, where: str, server: ServerSettings) -> None:
        _refuse_other_stores(where, server.url)
        if self.artifacts_url:
            check_url(self.artifacts_url, "artifacts_url", where)


def read_variables(env: Variables) -> RegistryEntry[MlflowSettings]:
    """The entry of the server that ``MLFLOW_REGISTRY_URI`` names, or else ``MLFLOW_TRACKING_URI``.

    The tracking server serves the artifacts; the login is for both.
    """
    url, user, password = _without_user(env.first("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"))
    artifacts_url, *_ = _without_user(env.get("MLFLOW_TRACKING_URI", ""))
    if artifacts_url not in ("", url):
        # A user in a URI is for that server only; the variables are for both servers.
        user = ""
    auth = env.get("MLFLOW_TRACKING_AUTH", "")
    in_cluster = auth in ("kubernetes", "kubernetes-namespaced")
    workspace = Value(file=f"{SERVICE_ACCOUNT}/namespace") if auth == "kubernetes-namespaced" else Value()
    options = MlflowSettings(
        artifacts_url=artifacts_url if artifacts_url != url else "",
        workspace=Value(env["MLFLOW_WORKSPACE"]) if env.get("MLFLOW_WORKSPACE") else workspace,
    )
    login = LoginSettings(user=Value(user), password=Value(password)) if user else _login(env, in_cluster=in_cluster)
    return RegistryEntry("mlflow", "mlflow", options, ServerSettings(url, login, _tls(env)))


def _refuse_other_stores(where: str, url: str) -> None:
    """Raise for folders, databases and Databricks, which MLflow's client takes in the place of a server."""
    scheme = url.partition(":")[0].lower()
    if scheme in ("databricks", "databricks-uc", "uc"):
        raise Unsupported(
            f"{where}: lading does not ask Databricks or Unity Catalog",
            hint="deliver from the storage URI, or from an MLflow server",
        )
    if url and scheme not in ("http", "https"):
        raise Unsupported(
            f"{where}: lading asks MLflow servers, and not a store of its client",
            hint="start `mlflow server` on that store, and give its http:// or https:// URL",
        )


def _login(env: Variables, *, in_cluster: bool) -> LoginSettings:
    """The login that MLflow's client would use, by its order of precedence (mlflow.utils.rest_utils.http_request)."""
    if env.flag("MLFLOW_TRACKING_AWS_SIGV4"):
        region = "AWS_REGION" if env.get("AWS_REGION") else "AWS_DEFAULT_REGION"
        return LoginSettings(aws=AwsLogin(Value(env=region), Value("execute-api")))
    if env.get("MLFLOW_TRACKING_USERNAME") and env.get("MLFLOW_TRACKING_PASSWORD") and not in_cluster:
        return LoginSettings(user=Value(env="MLFLOW_TRACKING_USERNAME"), password=Value(env="MLFLOW_TRACKING_PASSWORD"))
    if env.get("MLFLOW_TRACKING_TOKEN"):
        return LoginSettings(token=Value(env="MLFLOW_TRACKING_TOKEN"))
    return LoginSettings(token=Value(file=f"{SERVICE_ACCOUNT}/token")) if in_cluster else LoginSettings()


def _tls(env: Variables) -> Tls:
    return Tls(
        ca=env.get("MLFLOW_TRACKING_SERVER_CERT_PATH", ""),
        # One file of PEM text holds both the certificate and its key.
        certificate=env.get("MLFLOW_TRACKING_CLIENT_CERT_PATH", ""),
        verify=not env.flag("MLFLOW_TRACKING_INSECURE_TLS"),
    )


def _without_user(url: str) -> tuple[str, str, str]:
    """The URL without user information, and the user and password in it, which MLflow's client sends as Basic."""
    # White space comes with a Secret or a ConfigMap that was made by echo, and has no meaning in an address.
    url = url.strip()
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, "", ""
    if parts.scheme not in ("http", "https"):
        return url, "", ""
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=host)), unquote(name), unquote(password)
