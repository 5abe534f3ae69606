"""Quotas: how much of the store each namespace may use.

    STORE/owners/NAMESPACE/KEY      empty: its time is that of the namespace's last use of the model

A model counts in full for each namespace that uses it, also what it shares with others.  A process says itself for
which namespace it works: quotas share a store among those who trust each other, and hold nobody else off.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from lading.errors import NoSpace, UsageError
from lading.store.eviction import evict
from lading.store.files import entries, modified_at_s, touch
from lading.store.store import Store
from lading.text.printable import printable
from lading.text.units import size

# RFC 1123, as Kubernetes names namespaces.
_NAMESPACE = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class _Held(NamedTuple):
    """A model that a namespace uses; sorts by its last use there."""

    used_at_s: float
    key: str
    size_bytes: int


def charge(store: Store, namespace: str, sizes_bytes: Mapping[str, int]) -> None:
    """Charge a namespace for models, by key, that it is about to use; call with leases on them.

    Over its quota, it loses the models that it used longest ago; those that no other namespace uses are evicted.
    ``NoSpace`` if that does not suffice: then nothing is evicted.
    """
    if not store.settings.quotas or not namespace:
        return
    if not _NAMESPACE.fullmatch(namespace):
        raise UsageError(f"{printable(namespace)} is no namespace", hint="set POD_NAMESPACE by the downward API")
    most_bytes = store.settings.quota_bytes(namespace)
    if most_bytes is not None:
        _make_room(store, namespace, sizes_bytes, most_bytes)
    folder = store.owners / namespace
    folder.mkdir(parents=True, exist_ok=True)
    for key in sizes_bytes:
        touch(folder / key)


def _make_room(store: Store, namespace: str, sizes_bytes: Mapping[str, int], most_bytes: int) -> None:
    others = [each for each in _held(store, namespace) if each.key not in sizes_bytes]
    excess_bytes = sum(sizes_bytes.values()) + sum(each.size_bytes for each in others) - most_bytes
    if excess_bytes <= 0:
        return
    needed = store.references.by_key().keys() | store.leases.held()
    gone = []
    for each in sorted(each for each in others if each.key not in needed):
        if excess_bytes > 0:
            gone.append(each.key)
            excess_bytes -= each.size_bytes
    if excess_bytes > 0:
        raise NoSpace(
            f"namespace {namespace} may use {size(most_bytes)} of the store, which is {size(excess_bytes)} too little",
            hint="raise its quota (store.quotas), or end pods that use other models of it",
        )
    for key in gone:
        (store.owners / namespace / key).unlink(missing_ok=True)
        if not any((owner / key).exists() for owner in entries(store.owners)):
            evict(store, key, f"namespace {namespace} is over its quota")


def _held(store: Store, namespace: str) -> list[_Held]:
    """The models of the store that a namespace uses."""
    owned = ((path, store.size_bytes(path.name)) for path in entries(store.owners / namespace))
    return [_Held(modified_at_s(path), path.name, size_bytes) for path, size_bytes in owned if size_bytes is not None]
