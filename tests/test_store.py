"""The store: what is fetched once, what is found again, and what is shared."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from lading import events as told
from lading.deliver import Request, deliver
from lading.errors import IntegrityError, LadingError, NotAllowed, NotFound, Unsupported, UsageError
from lading.settings import RegistryEntry, StoreSettings
from lading.store import Store
from lading.store.eviction import sweep
from lading.store.inspection import verify
from servers.real_s3 import s3_anonymous
from servers.trees import content, read_tree, whole_manifest, write_tree

SHARDS = {f"shard-{number:02}.bin": content(3000 + number, seed=number) for number in range(50)}
NEWER = SHARDS | {f"shard-{number:02}.bin": content(3000 + number, seed=100 + number) for number in range(5)}

CHANGED = [path for path in SHARDS if NEWER[path] != SHARDS[path]]


@pytest.fixture
def settings(tmp_path) -> StoreSettings:
    return StoreSettings(path=str(tmp_path / "store"))


@pytest.fixture
def store(settings) -> Store:
    return Store(settings)


@pytest.fixture(params=["locks", "no locks"])
def pull_by(request, pull, settings):
    """Deliver by way of the store; all holds with and without locks."""
    by = settings._replace(locks=request.param == "locks")
    return lambda uri, destination, **options: pull(uri, destination, **{"store": by, **options})


def blobs(store: Store) -> list[Path]:
    return sorted(store.blobs_folder.glob("*/*"))


def put_model(bucket, prefix: str, files: dict[str, bytes]) -> str:
    for path, data in files.items():
        bucket.put(f"{prefix}/{path}", data)
    return f"s3://models/{prefix}"


def test_a_model_is_fetched_once_and_is_whole_in_every_destination(server, tmp_path, pull_by, store):
    uri = server.put("/model.bin", content(100_000))
    for number in range(3):
        pull_by(uri, tmp_path / str(number))
        assert read_tree(tmp_path / str(number)) == {"model.bin": content(100_000)}
        whole_manifest(tmp_path / str(number))
    assert server.asked_bytes == 100_000
    assert len(blobs(store)) == len(store.models()) == 1
    assert list(store.incoming_folder.iterdir()) == []
    assert list(store.leases.folder.iterdir()) == []


def test_a_manifest_says_what_was_asked_and_not_what_the_store_was_asked_before(server, tmp_path, pull_by):
    uri = server.put("/model.bin", b"model")
    first, second = (pull_by(uri, tmp_path / name) for name in "ab")
    assert first.files == second.files
    assert (tmp_path / "b/.lading.json").read_text() == second.dumps()


def registered(folder: Path, name: str, uri: str, files: dict[str, bytes]) -> RegistryEntry:
    """A catalog that records the SHA-256 of every file of a model."""
    digests = {path: f"sha256:{hashlib.sha256(data).hexdigest()}" for path, data in files.items()}
    catalog = folder / f"{name}.yaml"
    catalog.write_text(json.dumps({"models": {name: {"versions": {"1": {"uri": uri, "digests": digests}}}}}))
    return RegistryEntry(name, "catalog", {"path": str(catalog)})


def test_a_new_revision_that_shares_45_of_50_shards_fetches_five(server, bucket, tmp_path, pull_by, events, store):
    variables = s3_anonymous(server.url)
    pull_by(put_model(bucket, "llm", SHARDS), tmp_path / "old", **variables)
    for path in CHANGED:
        bucket.put(f"llm/{path}", NEWER[path])
    server.asked_bytes = 0
    pull_by("s3://models/llm", tmp_path / "new", **variables)
    assert_five_were_fetched(server, tmp_path, events, store)


def test_a_model_elsewhere_that_shares_45_of_50_shards_by_digest_fetches_five(
    server, bucket, tmp_path, pull_by, events, store
):
    variables = s3_anonymous(server.url)
    pull_by(put_model(bucket, "llm", SHARDS), tmp_path / "old", **variables)
    catalog = registered(tmp_path, "newer", put_model(bucket, "other", NEWER), NEWER)
    server.asked_bytes = 0
    pull_by("model-registry://newer", tmp_path / "new", registries=(catalog,), **variables)
    assert_five_were_fetched(server, tmp_path, events, store)


def assert_five_were_fetched(server, folder, events, store):
    assert read_tree(folder / "new") == NEWER
    assert server.asked_bytes == sum(len(NEWER[path]) for path in CHANGED)
    assert [event.files for event in events if isinstance(event, told.Supplied)] == [45]
    assert len(blobs(store)) == 55
    assert verify(store).rotten == ()
    assert (folder / "store/models").exists()
