"""The logger that KServe's servers know, ``storage.initializer``, and how it is set up."""

import json
import logging
import logging.config
from typing import Any

KSERVE_STORAGE_LOGLEVEL = "INFO"
KSERVE_STORAGE_LOGGER_NAME = "storage.initializer"
KSERVE_STORAGE_LOGGER_FORMAT = (
    "%(asctime)s.%(msecs)03d %(process)s %(name)s %(levelname)s [%(filename)s:%(funcName)s():%(lineno)s] %(message)s"
)
KSERVE_STORAGE_LOGGER_DATE_FORMAT = "%Y-%m-%d %H:%M:%S"

KSERVE_STORAGE_LOG_CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "storage": {"format": KSERVE_STORAGE_LOGGER_FORMAT, "datefmt": KSERVE_STORAGE_LOGGER_DATE_FORMAT},
    },
    "handlers": {"storage": {"class": "logging.StreamHandler", "formatter": "storage", "stream": "ext://sys.stderr"}},
    "loggers": {"storage": {"handlers": ["storage"], "level": KSERVE_STORAGE_LOGLEVEL, "propagate": False}},
}

logger = logging.getLogger(KSERVE_STORAGE_LOGGER_NAME)


def configure_logging(log_config: dict[str, Any] | str | None = None) -> None:
    """Set logging up: as above, from a mapping, or from a file (JSON, YAML, or that of ``logging.config``)."""
    if isinstance(log_config, str) and not log_config.endswith((".json", ".yaml", ".yml")):
        logging.config.fileConfig(log_config, disable_existing_loggers=False)
        return
    if isinstance(log_config, str):
        log_config = _read(log_config)
    logging.config.dictConfig(KSERVE_STORAGE_LOG_CONFIG if log_config is None else log_config)


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        if path.endswith(".json"):
            found: dict[str, Any] = json.load(file)
            return found
        import yaml

        loaded: dict[str, Any] = yaml.safe_load(file)
        return loaded
