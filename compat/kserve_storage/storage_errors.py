"""The words of KServe's errors: what its callers and its users' alerts know, before lading's own."""

from typing import NoReturn

from kserve_storage.logging import logger
from lading import LadingError, redact
from lading.errors import NotAllowed, NotFound, Unavailable


def raise_storage_error(protocol: str, uri: str, error: Exception, resource_name: str = "") -> NoReturn:
    """Log the error and raise it as the ``RuntimeError`` that callers expect."""
    message = get_storage_error_message(protocol, error, resource_name)
    logger.error("%s error for %s: %s", protocol, redact(uri), error)
    raise RuntimeError(message) from error


def get_storage_error_message(protocol: str, error: Exception, resource_name: str = "") -> str:
    """One sentence in KServe's words, by the kind of the error, and what lading says."""
    name = f" '{resource_name}'" if resource_name else ""
    said = f"{error} ({error.hint})" if isinstance(error, LadingError) and error.hint else str(error)
    if isinstance(error, NotAllowed):
        return f"{protocol} authentication failed. {said}"
    if isinstance(error, NotFound):
        return f"{protocol} resource{name} not found. {said}"
    if isinstance(error, Unavailable):
        return f"Failed to connect to {protocol} endpoint{name}. {said}"
    return f"{protocol} error: {said}"
