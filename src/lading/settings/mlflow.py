"""MLflow: the variables of its own client, as the entry of a registry.

https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html
"""

from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from lading.settings.kubernetes import SERVICE_ACCOUNT
from lading.settings.variables import Variables


def mlflow_options(env: Variables) -> dict[str, Any]:
    """The options of the MLflow server that ``MLFLOW_REGISTRY_URI`` or else ``MLFLOW_TRACKING_URI`` names.

    Empty if neither is set.  Artifacts come through the tracking server; the login is for both.
    """
    url, artifacts_url = env.first("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"), env.get("MLFLOW_TRACKING_URI", "")
    if not url:
        return {}
    url, user, password = _without_user(url)
    artifacts_url, *_ = _without_user(artifacts_url)
    if artifacts_url not in ("", url):
        # A user that is written into a URI is for that server alone; the variables are for both.
        user = ""
    auth = env.get("MLFLOW_TRACKING_AUTH", "")
    in_cluster = auth in ("kubernetes", "kubernetes-namespaced")
    workspace = {"file": f"{SERVICE_ACCOUNT}/namespace"} if auth == "kubernetes-namespaced" else ""
    options = {
        "url": url,
        "artifacts_url": artifacts_url if artifacts_url != url else "",
        "login": {"user": user, "password": password} if user else _login(env, in_cluster=in_cluster),
        "tls": _tls(env),
        "workspace": env.get("MLFLOW_WORKSPACE") or workspace,
    }
    return {name: value for name, value in options.items() if value}


def _login(env: Variables, *, in_cluster: bool) -> dict[str, Any]:
    """Whom MLflow's client would ask as, in its order of precedence (mlflow.utils.rest_utils.http_request)."""
    if env.flag("MLFLOW_TRACKING_AWS_SIGV4"):
        region = "AWS_REGION" if env.get("AWS_REGION") else "AWS_DEFAULT_REGION"
        return {"aws": {"region": {"env": region}, "service": "execute-api"}}
    if env.get("MLFLOW_TRACKING_USERNAME") and env.get("MLFLOW_TRACKING_PASSWORD") and not in_cluster:
        return {"user": {"env": "MLFLOW_TRACKING_USERNAME"}, "password": {"env": "MLFLOW_TRACKING_PASSWORD"}}
    if env.get("MLFLOW_TRACKING_TOKEN"):
        return {"token": {"env": "MLFLOW_TRACKING_TOKEN"}}
    return {"token": {"file": f"{SERVICE_ACCOUNT}/token"}} if in_cluster else {}


def _tls(env: Variables) -> dict[str, Any]:
    tls = {
        "ca": env.get("MLFLOW_TRACKING_SERVER_CERT_PATH"),
        # One file of PEM text holds both the certificate and its key.
        "certificate": env.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    }
    told: dict[str, Any] = {name: value for name, value in tls.items() if value}
    return told | {"verify": False} if env.flag("MLFLOW_TRACKING_INSECURE_TLS") else told


def _without_user(url: str) -> tuple[str, str, str]:
    """The URL as it may be sent and printed, and the user and password in it, which MLflow's client sends as Basic."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url, "", ""
    if parts.scheme not in ("http", "https"):
        return url, "", ""
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=host)), unquote(name), unquote(password)
