"""The version of a delivery without a destination: one, and only in the store.

The store's reference ``agent/NAME`` keeps it from being evicted, and names it; it changes in one step.  Beside it,
``agent/NAME.json`` of the store is the record of the delivery.
"""

import hashlib
from collections.abc import Collection
from pathlib import Path

from lading.deliver import deliver_to_store
from lading.model.manifest import Manifest
from lading.session import Session
from lading.settings.agent import Delivery
from lading.settings.settings import Settings
from lading.store.files import entries
from lading.store.pointers import Pointer
from lading.store.store import Store

_KEEPER = "agent/"


class StoredVersion:
    """The version of one delivery in the store, with the methods of ``Versions``."""

    def __init__(self, delivery: Delivery, settings: Settings) -> None:
        self._store = Store(settings.store)
        self._name = _KEEPER + delivery.name
        self._patterns = settings.patterns
        self.root = self._store.root
        self.record = _records(self._store) / f"{delivery.name}.json"

    def key(self, pin: str) -> str:
        """The name of the version with this pin."""
        return _key(pin, self._patterns)

    def current(self) -> str:
        """The key of the version that is kept; "" if there is none."""
        reference = self._reference()
        return _key(reference.facts.pin, reference.facts.patterns) if reference else ""

    def manifest(self, key: str) -> Manifest | None:
        """The manifest of the version that is kept, if it has this key and is complete; else None."""
        reference = self._reference()
        if reference is None or key != _key(reference.facts.pin, reference.facts.patterns):
            return None
        stored = self._store.find(reference.key)
        return reference.facts.with_files_of(stored) if stored else None

    def fetch(self, uri: str, key: str, session: Session) -> str:
        """Deliver ``uri`` into the store and keep it; returns the key of the delivered version."""
        return self.key(deliver_to_store(uri, self._name, session).pin)

    def switch(self, key: str) -> None:
        """Do nothing: ``fetch`` has replaced the version before."""

    def prune(self, keep: Collection[str]) -> None:
        """Do nothing: the store evicts models that nobody keeps."""

    def _reference(self) -> Pointer | None:
        reference = self._store.references.get(self._name)
        return reference if reference and self._store.has(reference.key) else None


def release(store: Store, declared: Collection[str]) -> None:
    """Release the models of deliveries that are not ``declared``."""
    for names in store.references.by_key().values():
        for name in names:
            if name.startswith(_KEEPER) and name.removeprefix(_KEEPER) not in declared:
                store.references.release(name)
    for path in entries(_records(store)):
        # A file that is being written has another ending.
        if path.suffix == ".json" and path.stem not in declared:
            path.unlink(missing_ok=True)


def _records(store: Store) -> Path:
    return store.root / "agent"


def _key(pin: str, patterns: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join((pin, *patterns)).encode("utf-8", "surrogateescape")).hexdigest()
