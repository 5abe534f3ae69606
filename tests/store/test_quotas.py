"""Quotas: over its own, a namespace loses what it used longest ago, and nobody else does."""

import os

import pytest

from fakes.trees import content
from lading.errors import NoSpace, UsageError
from lading.events import Evicted
from lading.settings.store import StoreSettings
from lading.store.eviction import collect_garbage
from lading.store.store import Store

SIZE_BYTES = 64 << 10
QUOTAS = {"team-a": str(3 * SIZE_BYTES), "*": str(2 * SIZE_BYTES)}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(StoreSettings(path=str(tmp_path / "store"), high="100%", low="100%", quotas=QUOTAS))


@pytest.fixture
def bring(server, store, pull, tmp_path):
    """Deliver a model of 64 KiB for a namespace."""
    moments = iter(range(1, 100))

    def call(name: str, namespace: str) -> None:
        uri = server.put(f"/{name}.bin", content(SIZE_BYTES, seed=ord(name)))
        pull(uri, tmp_path / namespace / name, store=store.settings, variables={"POD_NAMESPACE": namespace})
        # All the uses of a test are within a moment of the clock.
        at_s = next(moments)
        for folder in (store.owners / namespace if namespace else store.owners, store.root / "uses"):
            for key in store.keys() if folder.exists() else ():
                if (folder / key).exists() and (folder / key).stat().st_mtime > 1e6:
                    os.utime(folder / key, (at_s, at_s))

    return call


def names(store: Store) -> str:
    """The models that are there, each by its one letter."""
    return "".join(sorted(model.requested.rpartition("/")[2][0] for model in store.models()))


def test_over_its_quota_a_namespace_loses_what_it_used_longest_ago(store, bring, events):
    for name in "abc":
        bring(name, "team-a")
    bring("x", "team-b")
    assert names(store) == "abcx"
    bring("d", "team-a")
    assert names(store) == "bcdx"
    assert [event.why for event in events if isinstance(event, Evicted)] == ["namespace team-a is over its quota"]


def test_a_namespace_without_a_quota_of_its_own_has_that_of_all_others(store, bring):
    for name in "abc":
        bring(name, "team-b")
    assert names(store) == "bc"


def test_what_another_namespace_uses_stays_and_no_longer_counts(store, bring):
    for name in "ab":
        bring(name, "team-b")
    bring("a", "team-a")
    bring("c", "team-b")
    assert names(store) == "abc"
    assert len(list((store.owners / "team-b").iterdir())) == 2


def test_a_model_from_the_store_counts_as_one_that_is_fetched(store, bring):
    for name in "abc":
        bring(name, "team-a")
    for name in "abc":
        bring(name, "team-b")
    assert names(store) == "abc"
    assert len(list((store.owners / "team-b").iterdir())) == 2


@pytest.mark.parametrize("why", ["leased", "kept"])
def test_what_is_needed_or_kept_stays_and_a_delivery_that_does_not_fit_is_refused(store, bring, tmp_path, why):
    bring("a", "team-b")
    bring("b", "team-b")
    (key, _) = sorted(store.keys(), key=store.used_at_s)
    if why == "kept":
        store.references.keep("by hand", key)
        bring("c", "team-b")
        assert names(store) == "ac"
        return
    with store.lease(store.keys()[0]), store.lease(store.keys()[1]), pytest.raises(NoSpace, match="namespace team-b"):
        bring("c", "team-b")
    assert names(store) == "ab"
    assert not (tmp_path / "team-b/c").exists()


def test_a_model_larger_than_its_quota_is_refused_and_nothing_is_evicted(server, store, bring, pull, tmp_path):
    bring("a", "team-b")
    uri = server.put("/large.bin", content(3 * SIZE_BYTES))
    with pytest.raises(NoSpace, match=r"may use 128\.0 KiB of the store, which is 64\.0 KiB too little"):
        pull(uri, tmp_path / "large", store=store.settings, variables={"POD_NAMESPACE": "team-b"})
    assert names(store) == "a"
    assert not (tmp_path / "large").exists()


def test_without_a_namespace_there_is_no_quota(store, bring):
    for name in "abcd":
        bring(name, "")
    assert names(store) == "abcd"


@pytest.mark.parametrize("namespace", ["../blobs", "a/b", "UPPER", "a" * 64, "-"])
def test_what_is_no_namespace_is_refused(server, store, pull, tmp_path, namespace):
    uri = server.put("/a.bin", b"a")
    with pytest.raises(UsageError, match="is no namespace"):
        pull(uri, tmp_path / "a", store=store.settings, variables={"POD_NAMESPACE": namespace})
    assert not (tmp_path / "a").exists()


def test_a_collection_forgets_owners_of_what_is_gone(store, bring):
    bring("a", "team-a")
    (key,) = store.keys()
    store.remove(key)
    collect_garbage(store)
    assert not list(store.owners.iterdir())
