"""``Storage``: what KServe's model servers call, by lading.

Settings come from the environment, under the names that KServe injects.  Nothing is written to it.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kserve_storage.logging import logger
from kserve_storage.storage_errors import raise_storage_error
from lading import LadingError, Request, Settings, pull_all, redact, sentence
from lading.events import Event, Progress

# Where KServe mounts models: what is to come from there is there already, or comes by another way.
MODEL_MOUNT_DIRS = "/mnt/models"
_PVC_PREFIX = "/mnt/pvc"
_LOCAL_PREFIX = "file://"
# What KServe calls the protocol of each scheme, and what lading adds to them.
_PROTOCOLS = {
    "file": "Local",
    "git+http": "Git",
    "git+https": "Git",
    "gs": "GCS",
    "hdfs": "HDFS",
    "hf": "HuggingFace",
    "http": "HTTP",
    "https": "HTTP",
    "mlflow": "Registry",
    "model-registry": "Registry",
    "models": "Registry",
    "modelscope": "ModelScope",
    "ms": "ModelScope",
    "oci": "OCI",
    "s3": "S3",
    "swebhdfs": "HDFS",
    "webhdfs": "HDFS",
}


class Storage:
    """Brings models to folders."""

    @staticmethod
    def download_files(
        source_uris: list[str],
        out_dirs: list[str],
        allow_patterns: list[str] | None = None,
        ignore_patterns: list[str] | None = None,
    ) -> list[str]:
        """Bring each URI to the folder at its place; returns the folders.  None appears before all have landed."""
        if len(source_uris) != len(out_dirs):
            raise ValueError(f"there are {len(source_uris)} URIs for {len(out_dirs)} folders")
        return _bring(list(zip(source_uris, out_dirs, strict=True)), allow_patterns, ignore_patterns)

    @staticmethod
    def download(
        uri: str,
        out_dir: str | None = None,
        allow_patterns: list[str] | None = None,
        ignore_patterns: list[str] | None = None,
    ) -> str:
        """Bring the model at ``uri`` to ``out_dir``, or to a new temporary folder; returns the folder.

        A local path without ``out_dir`` is returned as it is.  Raises ``RuntimeError``, whose cause is lading's
        own error, and leaves the folder as it was.
        """
        return _bring([(uri, out_dir)], allow_patterns, ignore_patterns)[0]


def _bring(pairs: Sequence[tuple[str, str | None]], allow: list[str] | None, ignored: list[str] | None) -> list[str]:
    started_s = time.monotonic()
    folders: list[str] = []
    requests: list[Request] = []
    with ExitStack() as temporary:
        for uri, out_dir in pairs:
            there = _is_there(uri)
            if there and out_dir is None:
                folders.append(_local_path(uri))
                continue
            if out_dir:
                os.makedirs(out_dir, exist_ok=True)
            else:
                out_dir = tempfile.mkdtemp()
                temporary.callback(shutil.rmtree, out_dir, ignore_errors=True)
            folders.append(out_dir)
            if there or not uri.startswith(MODEL_MOUNT_DIRS):
                requests.append(Request(_local_path(uri), Path(out_dir)))
        if requests:
            _deliver(requests, allow, ignored)
            logger.info("Model downloaded in %s seconds.", time.monotonic() - started_s)
        temporary.pop_all()
    return folders


def _is_there(uri: str) -> bool:
    """Whether the model is on this machine; raises for what says so and is not, and for what is no URI at all."""
    if uri.startswith(_PVC_PREFIX) and not os.path.exists(uri):
        raise RuntimeError(f"Cannot locate source uri {uri} for PVC")
    if os.path.exists(_local_path(uri)):
        return True
    if uri.startswith(_LOCAL_PREFIX):
        raise RuntimeError(f"Local path {uri} does not exist.")
    if not uri.startswith(MODEL_MOUNT_DIRS) and _scheme(uri) not in _PROTOCOLS:
        known = ", ".join(f"{scheme}://" for scheme in _PROTOCOLS)
        raise RuntimeError(f"Cannot recognize storage type for {redact(uri)}: known are {known}")
    return False


def _local_path(uri: str) -> str:
    return uri.removeprefix(_LOCAL_PREFIX)


def _scheme(uri: str) -> str:
    return uri.partition(":")[0].lower() if ":" in uri else ""


def _protocol(requests: Sequence[Request]) -> str:
    found = {_PROTOCOLS.get(_scheme(request.uri), "Local") for request in requests}
    return found.pop() if len(found) == 1 else "Storage"


def _deliver(requests: Sequence[Request], allow: list[str] | None, ignored: list[str] | None) -> None:
    try:
        settings = Settings.load()
        if allow is not None:
            settings = settings._replace(allow=tuple(allow))
        if ignored is not None:
            settings = settings._replace(ignore=tuple(ignored))
        pull_all(requests, settings=settings, listener=_log)
    except LadingError as error:
        what = requests[0].uri if len(requests) == 1 else f"one of {len(requests)} models"
        raise_storage_error(_protocol(requests), what, error)


def _log(event: Event) -> None:
    # A server's log is no place for how far it is, several times a second.
    if not isinstance(event, Progress):
        logger.info("%s", sentence(event))
