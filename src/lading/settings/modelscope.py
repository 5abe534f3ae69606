"""ModelScope: the variables of its own client, the package modelscope-hub."""

from typing import NamedTuple

from lading.secret import Secret
from lading.settings.variables import Variables, exact

STORAGE_KEYS = {"token": "MODELSCOPE_API_TOKEN", "endpoint": "MODELSCOPE_ENDPOINT"}


class ModelScope(NamedTuple):
    """The address of ModelScope (www.modelscope.ai is another site, with other models) and the token for it."""

    endpoint: str = "https://www.modelscope.cn"
    token: Secret | None = None


def read_modelscope(variables: Variables) -> ModelScope:
    """Read ModelScope's address and the token, without the line end that a Secret may have added."""
    endpoint = variables.get("MODELSCOPE_ENDPOINT") or ModelScope().endpoint
    token = exact(variables.get("MODELSCOPE_API_TOKEN", "").strip(), "MODELSCOPE_API_TOKEN")
    return ModelScope(
        endpoint=(endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/"),
        token=Secret(token) if token else None,
    )
