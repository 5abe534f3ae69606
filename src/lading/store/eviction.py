"""Eviction: removes leftovers, models that are too old, and the least recently used ones when space is short."""

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lading.destination.workspace import Workspace, best_effort
from lading.errors import NoSpace
from lading.events import Evicted
from lading.store.files import entries, files_below
from lading.store.store import Store
from lading.system.disk import free_bytes, sync_file_system
from lading.system.folders import remove_tree
from lading.text.printable import printable
from lading.text.units import size

_DAY_S = 24 * 3600.0
# Fetched bytes wait so long for somebody who goes on; less where their space is needed.
_STALE_S = _DAY_S
_ABANDONED_S = 3600.0
_QUARANTINE_S = 7 * _DAY_S
# A name that points nowhere may belong to what is just being committed.
_GRACE_S = 3600.0


class Full(NoSpace):
    """Evicting every model that may go would not free enough space."""


class Gone(NamedTuple):
    """A model that was evicted, and what is free for it."""

    key: str
    uri: str
    freed_bytes: int
    why: str


def clean_up(store: Store, *, stale_s: float = _STALE_S, now_s: float | None = None) -> None:
    """Remove what killed processes left half removed or half fetched.  Cheap, since it reads one folder: called at every start."""
    now = time.time() if now_s is None else now_s
    for path in entries(store.incoming_folder):
        # What another user left, and this one cannot remove, must not end every delivery.
        with best_effort(path, store.listener):
            # What a link leads to is not the store's, and not to be looked at.
            if path.is_symlink():
                remove_tree(path)
            elif store.is_half_removed(path):
                store.dissolve(path)
            elif _is_stale(path, now - stale_s):
                remove_tree(path)


def collect_garbage(store: Store, *, now_s: float | None = None) -> int:
    """Remove everything unused; returns the freed bytes.  Reads the name of every file."""
    now = time.time() if now_s is None else now_s
    clean_up(store, now_s=now)
    freed = store.blobs.remove_unused()
    store.remove_dangling(now - _GRACE_S)
    for path in store.quarantined():
        with best_effort(path, store.listener):
            if now - path.lstat().st_mtime > _QUARANTINE_S:
                remove_tree(path)
    store.note_collection()
    return freed


def prune(store: Store, *, now_s: float | None = None) -> list[Gone]:
    """Evict by age and watermarks, the least recently used model first; returns the evicted models."""
    now = time.time() if now_s is None else now_s
    gone = []
    most_s = store.settings.max_age_s
    for key in _candidates(store) if most_s else ():
        if now - store.used_at_s(key) <= most_s:
            break
        gone.append(evict(store, key, "not used for so long"))
    if _excess_bytes(store, store.settings.high) > 0:
        left = _excess_bytes(store, store.settings.low)
        for key in _candidates(store):
            if left <= 0:
                break
            gone.append(evict(store, key, "used longest ago"))
            if store.settings.low.endswith("%"):
                left = _excess_bytes(store, store.settings.low)
            else:
                left -= gone[-1].freed_bytes
    if gone or store.collected_at_s() < now - _DAY_S:
        collect_garbage(store, now_s=now)
    return gone


def is_due(store: Store) -> bool:
    """Whether the last collection is more than a day ago."""
    return store.collected_at_s() < time.time() - _DAY_S


def evict_one(store: Store) -> bool:
    """Evict the least recently used model; false if none may go."""
    for key in _candidates(store):
        evict(store, key, "room is needed")
        return True
    return False


def ensure_free(store: Store, needed_bytes: int) -> None:
    """Evict until so many bytes are free; ``Full`` names what holds the space, and then nothing is evicted."""
    if free_bytes(store.root) >= needed_bytes:
        return
    collect_garbage(store)
    for path in store.quarantined():
        remove_tree(path)
    clean_up(store, stale_s=_ABANDONED_S)
    sync_file_system(store.root)
    if free_bytes(store.root) + evictable_bytes(store) >= needed_bytes:
        for key in _candidates(store):
            if free_bytes(store.root) >= needed_bytes:
                return
            evict(store, key, "room is needed")
    free = free_bytes(store.root)
    if free < needed_bytes:
        raise Full(
            f"the store {printable(str(store.root))} needs {size(needed_bytes)} and has {size(free)} free",
            hint=holders(store),
        )


def holders(store: Store) -> str:
    """A text that names what takes the space: the largest models that may not go, and those being fetched."""
    held = [
        (store.own_bytes(model.key), model.requested) for model in store.models() if model.leased or model.references
    ]
    words = [f"{requested} ({size(own_bytes)})" for own_bytes, requested in sorted(held, reverse=True)[:3]]
    incoming = sum(status.st_blocks * 512 for status in files_below(store.incoming_folder))
    if incoming:
        words.append(f"what is being fetched ({size(incoming)})")
    if not words:
        return "the store cannot free enough of it: give it a larger volume, or free space on this one"
    return f"in use, kept or on their way are {printable(', '.join(words))}; lading store ls shows all"


def _candidates(store: Store) -> Iterator[str]:
    """Keys of models that may be evicted, the least recently used first; each is checked when it is taken."""
    references = store.references.by_key()
    for key in sorted(store.keys(), key=store.used_at_s):
        if key not in references and key not in store.leases.held():
            yield key


def evict(store: Store, key: str, why: str) -> Gone:
    """Evict a model, and tell the store's listener ``why``."""
    manifest = store.find(key)
    freed = store.remove(key)
    # Some file systems give space back only with the next transaction.
    sync_file_system(store.root)
    gone = Gone(key, manifest.requested if manifest else "", freed, why)
    store.listener(Evicted(gone.uri or key, freed, why))
    return gone


def evictable_bytes(store: Store, wanted: Iterable[Path] = ()) -> int:
    """Bytes that evicting every model that may go would free, without the files that are ``wanted``."""
    needed = store.references.by_key().keys() | store.leases.held()
    staying = [store.folder(key) for key in needed] + [store.incoming_folder]
    held = {status.st_ino for folder in staying for status in files_below(folder)}
    held |= {path.stat().st_ino for path in wanted if path.exists()}
    # Each is there once: no need to remember millions.
    return sum(status.st_blocks * 512 for status in files_below(store.blobs.folder) if status.st_ino not in held)


def _excess_bytes(store: Store, watermark: str) -> float:
    """Bytes above a watermark: of the store's own, or of all that is used on its volume."""
    if not watermark.endswith("%"):
        return store.used_bytes() - float(watermark)
    usage = shutil.disk_usage(store.root)
    # As df(1) tells it: what is set aside for root counts as neither.
    return usage.used - float(watermark[:-1]) / 100 * (usage.used + usage.free)


def _is_stale(path: Path, before_s: float) -> bool:
    """Whether nothing was written to this incoming model since then; false if it cannot be read."""
    workspace = Workspace(path)
    # What a living process changes first: mostly there is no need to look at every file.
    for written in (path, workspace.folder, workspace.journal):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            if written.lstat().st_mtime >= before_s:
                return False
    unreadable: list[OSError] = []
    old = all(status.st_mtime < before_s for status in files_below(path, unreadable.append))
    return old and not unreadable
