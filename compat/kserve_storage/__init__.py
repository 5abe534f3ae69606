"""KServe's package of this name, by lading: ``Storage.download`` and what goes with it."""

from kserve_storage.kserve_storage import MODEL_MOUNT_DIRS, Storage
from kserve_storage.logging import configure_logging, logger

__all__ = ["MODEL_MOUNT_DIRS", "Storage", "configure_logging", "logger"]
