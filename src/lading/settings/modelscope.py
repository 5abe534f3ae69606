"""ModelScope: the variables of its own client, the package modelscope-hub."""

from typing import NamedTuple

from lading.secret import Secret
from lading.settings.variables import Variables, exact

STORAGE_KEYS = {"token": "MODELSCOPE_API_TOKEN", "endpoint": "MODELSCOPE_ENDPOINT"}


class ModelScope(NamedTuple):
    """Where ModelScope is (www.modelscope.ai is another site, with other models) and who asks."""

    endpoint: str = "https://www.modelscope.cn"
    token: Secret | None = None


def read_modelscope(variables: Variables) -> ModelScope:
    """Where ModelScope is and who asks; a token is without the line's end that a Secret may bring."""
    endpoint = variables.get("MODELSCOPE_ENDPOINT") or ModelScope().endpoint
    token = exact(variables.get("MODELSCOPE_API_TOKEN", "").strip(), "MODELSCOPE_API_TOKEN")
    return ModelScope(
        endpoint=(endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/"),
        token=Secret(token) if token else None,
    )
