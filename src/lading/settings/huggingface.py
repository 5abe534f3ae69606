"""The Hugging Face Hub: the variables of its own client.

https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

from typing import NamedTuple

from lading.secret import Secret
from lading.settings.variables import Variables, exact

STORAGE_KEYS = {"token": "HF_TOKEN", "endpoint": "HF_ENDPOINT"}


class HuggingFace(NamedTuple):
    """Where the Hub is and who asks.

    ``token_file`` is used without a ``token``; it may be missing unless ``token_file_named`` says that it was asked for.
    """

    endpoint: str = "https://huggingface.co"
    token: Secret | None = None
    token_file: str = ""
    token_file_named: bool = False


def read_hugging_face(variables: Variables) -> HuggingFace:
    """Where the Hub is and who asks; a token is without the line's end that a Secret may bring."""
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
