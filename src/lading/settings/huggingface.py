"""The Hugging Face Hub: the variables of its own client.

https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

from typing import NamedTuple

from lading.secret import Secret
from lading.settings.variables import Variables, exact

STORAGE_KEYS = {"token": "HF_TOKEN", "endpoint": "HF_ENDPOINT"}


class HuggingFace(NamedTuple):
    """The Hub's address and the token for it.

    ``token_file`` is used if there is no ``token``; only a file that was configured (``token_file_named``) must exist.
    """

    endpoint: str = "https://huggingface.co"
    token: Secret | None = None
    token_file: str = ""
    token_file_named: bool = False


def read_hugging_face(variables: Variables) -> HuggingFace:
    """Read the Hub's address and the token, without the line end that a Secret may have added."""
    endpoint = variables.get("HF_ENDPOINT") or HuggingFace().endpoint
    token = exact(variables.first("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN").strip(), "HF_TOKEN")
    named = variables.get("HF_TOKEN_PATH", "")
    home = variables.get("HOME", "")
    cache = variables.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
    folder = variables.get("HF_HOME") or (f"{cache}/huggingface" if cache else "")
    return HuggingFace(
        endpoint=(endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/"),
        token=Secret(token) if token else None,
        token_file=named or (f"{folder}/token" if folder else ""),
        token_file_named=bool(named),
    )
