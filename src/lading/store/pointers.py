"""Pointers to a model of the store: from a query that it answered, from its origin, and from a name that keeps it.

    asked/QUESTION      {"key", "facts"}
    origins/ORIGIN/KEY  empty; in ORIGIN.unverified of what was fetched without verification
    references/SHA-256  {"name", "key", "facts"}        named by the SHA-256 of the name; facts only if they are known

Facts are the manifest of the delivery, without the files.
"""

import contextlib
import hashlib
import json
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

from lading.errors import IntegrityError, Unsupported
from lading.model.checks import VerifyMode
from lading.model.manifest import Manifest
from lading.store.files import entries
from lading.system.disk import write_whole


class Pointer(NamedTuple):
    """A model's key, the facts of its delivery (its manifest without the files), and their time."""

    key: str
    facts: Manifest
    known_at_s: float


class Pointers:
    """Files in ``folder`` that each point to a model; by default, by their name, which is its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remove_dangling(self, keys: Container[str], before_s: float) -> None:
        """Remove those older than ``before_s``, Unix time, that lead to no model of ``keys``."""
        for path in entries(self.folder):
            # Of another user, who alone can tell.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                if path.stat().st_mtime < before_s and self._key(path) not in keys:
                    path.unlink()

    def _key(self, path: Path) -> str:
        return path.name


class Answers(Pointers):
    """The last answer to each query."""

    def remember(self, delivered: Manifest, key: str) -> None:
        """Note that this delivery answered its query."""
        write_whole(
            self.folder / delivered.query_id, [json.dumps({"key": key, "facts": _without_files(delivered)}), "\n"]
        )

    def recall(self, query_id: str) -> Pointer | None:
        """The last answer to a query."""
        return _read(self.folder / query_id)

    def _key(self, path: Path) -> str:
        found = _read(path)
        return found.key if found else ""


class Origins:
    """Which models are of one origin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, origin: str, key: str, verify: VerifyMode) -> None:
        """Note that a model is of this origin."""
        folder = self._folders(origin)[verify == "off"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / key).touch()

    def keys(self, origin: str, verify: VerifyMode) -> list[str]:
        """The keys of the models of this origin that satisfy ``verify``."""
        folders = self._folders(origin)[: 2 if verify == "off" else 1]
        return [path.name for folder in folders for path in entries(folder)]

    def drop(self, origin: str, key: str) -> None:
        """Forget a model."""
        for folder in self._folders(origin):
            (folder / key).unlink(missing_ok=True)

    def _folders(self, origin: str) -> tuple[Path, Path]:
        """Of what was verified, and of what was not."""
        return self.folder / origin, self.folder / f"{origin}.unverified"


class References(Pointers):
    """Who keeps which model."""

    def keep(self, name: str, key: str, delivered: Manifest | None = None) -> None:
        """Keep the model with ``key`` under this name from now on.

        ``delivered`` is the manifest that ``get`` returns.
        """
        facts = {"facts": _without_files(delivered)} if delivered else {}
        write_whole(self._path(name), [json.dumps({"name": name, "key": key, **facts}), "\n"])

    def release(self, name: str) -> None:
        """Keep nothing under this name any more."""
        self._path(name).unlink(missing_ok=True)

    def get(self, name: str) -> Pointer | None:
        """The model that is kept under this name, if its facts are known."""
        return _read(self._path(name))

    def by_key(self) -> dict[str, list[str]]:
        """Who keeps each model, by its key."""
        found: dict[str, list[str]] = {}
        for path in entries(self.folder):
            name, key = _read_reference(path)
            found.setdefault(key, []).append(name)
        return found

    def _key(self, path: Path) -> str:
        return _read_reference(path)[1]

    def _path(self, name: str) -> Path:
        return self.folder / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _read_reference(path: Path) -> tuple[str, str]:
    """Who keeps which key; both are empty if it is gone, or makes no sense.

    ``OSError`` if it cannot be read: somebody keeps a model by it all the same.
    """
    try:
        reference = json.loads(path.read_text(encoding="utf-8"))
        return str(reference["name"]), str(reference["key"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def _without_files(delivered: Manifest) -> dict[str, Any]:
    return delivered._replace(files=(), archives=(), folders=()).to_json()


def _read(path: Path) -> Pointer | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        facts = Manifest.loads(json.dumps(data["facts"]))
        return Pointer(str(data["key"]), facts, path.stat().st_mtime)
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError, IntegrityError, Unsupported):
        return None
