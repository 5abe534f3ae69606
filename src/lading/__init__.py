"""lading brings a model, named by a URI or a registry entry, to a folder: verified, whole or not at all."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "pull", "resolve"]

if TYPE_CHECKING:
    from lading.api import pull, resolve


def __getattr__(name: str) -> object:
    # On first use: the command line reports "wrong option" without loading what moves bytes.
    if name in ("pull", "resolve"):
        from lading import api

        return getattr(api, name)
    raise AttributeError(f"module 'lading' has no attribute {name!r}")
