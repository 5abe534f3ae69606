"""The store: what is fetched once, what is found again, and what is shared."""

import base64
import fcntl
import hashlib
import json
import os
import tarfile
import threading
from pathlib import Path

import pytest

from fakes.faulty_http import claimed_size
from fakes.real_s3 import s3_anonymous
from fakes.registry_entries import registry_entry
from fakes.trees import content, read_tree, whole_manifest, write_tree
from lading import events as told
from lading.deliver import deliver, deliver_to_store
from lading.delivery.request import Request
from lading.errors import DeadlineExceeded, IntegrityError, NoSpace, NotAllowed, Unavailable, Unsupported, UsageError
from lading.model.digest import Digest
from lading.model.listing import Layer, ListedFile, Listing
from lading.model.manifest import File, Manifest
from lading.settings.limits import Limits
from lading.settings.registries import RegistryEntry
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.store.eviction import collect_garbage, ensure_free, evict_one, prune
from lading.store.inspection import verify
from lading.store.store import Store
from lading.system.disk import free_bytes

SHARDS = {f"shard-{number:02}.bin": content(3000 + number, seed=number) for number in range(50)}
NEWER = SHARDS | {f"shard-{number:02}.bin": content(3000 + number, seed=100 + number) for number in range(5)}

CHANGED = [path for path in SHARDS if NEWER[path] != SHARDS[path]]


@pytest.fixture
def settings(tmp_path) -> StoreSettings:
    """Nothing is evicted for the disk of this machine, however full it is."""
    return StoreSettings(path=str(tmp_path / "store"), high="100%", low="100%")


@pytest.fixture
def store(settings) -> Store:
    return Store(settings)


@pytest.fixture(params=["locks", "no locks"])
def pull_by(request, pull, settings):
    """Deliver by way of the store; all holds with and without locks."""
    by = settings._replace(locks=request.param == "locks")
    return lambda uri, destination, **options: pull(uri, destination, **{"store": by, **options})


def blobs(store: Store) -> list[Path]:
    return sorted(store.blobs.folder.glob("*/*"))


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
    assert whole_manifest(tmp_path / "b").dumps() == second.dumps()


def registered(folder: Path, name: str, uri: str, files: dict[str, bytes]) -> RegistryEntry:
    """A catalog that records the SHA-256 of every file of a model."""
    digests = {path: f"sha256:{hashlib.sha256(data).hexdigest()}" for path, data in files.items()}
    catalog = folder / f"{name}.yaml"
    catalog.write_text(json.dumps({"models": {name: {"versions": {"1": {"uri": uri, "digests": digests}}}}}))
    return registry_entry(name, "catalog", path=str(catalog))


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
    assert [event.files for event in events if isinstance(event, told.ReusedFromStore)] == [45]
    assert len(blobs(store)) == 55
    assert verify(store).rotten == ()
    assert (folder / "store/models").exists()


# ---- what is the same model, and what is not ---------------------------------------------------


def test_what_nothing_pins_is_fetched_again_each_time(server, tmp_path, pull_by):
    for number, text in enumerate((b"old", b"new")):
        uri = server.put("/model.bin", text, etag="")
        pull_by(uri, tmp_path / str(number))
        assert read_tree(tmp_path / str(number)) == {"model.bin": text}


def test_a_digest_that_is_given_now_is_checked_whatever_the_store_has(server, tmp_path, pull_by, store):
    uri = server.put("/model.bin", b"model")
    pull_by(uri, tmp_path / "a")
    with pytest.raises(IntegrityError):
        pull_by(uri, tmp_path / "b", digest=f"sha256:{'0' * 64}")
    assert not (tmp_path / "b").exists()
    server.asked_bytes = 0
    right = hashlib.sha256(b"model").hexdigest()
    manifest = pull_by(uri, tmp_path / "c", digest=f"sha256:{right}")
    assert manifest.files[0].verified == (Digest("sha256", right),)
    assert server.asked_bytes == 0
    pull_by(uri, tmp_path / "d", digest=f"sha512:{hashlib.sha512(b'model').hexdigest()}")
    assert server.asked_bytes == 5
    assert len(blobs(store)) == 1


def test_what_was_not_verified_does_not_do_where_it_must_be(server, tmp_path, pull_by):
    uri = server.put("/model.bin", b"model")
    pull_by(uri, tmp_path / "a")
    with pytest.raises(Unsupported, match="cannot be verified"):
        pull_by(uri, tmp_path / "b", verify="strict")
    assert not (tmp_path / "b").exists()


def test_what_came_without_verifying_is_not_taken_by_who_verifies(server, bucket, tmp_path, pull_by):
    variables = s3_anonymous(server.url)
    wrong = base64.b64encode(bytes(4)).decode()
    bucket.put("llm/a.bin", b"damaged", checksums={"x-amz-checksum-crc32": wrong, "x-amz-checksum-type": "FULL_OBJECT"})
    bucket.put("llm/b.bin", b"whole")
    pull_by("s3://models/llm", tmp_path / "a", verify="off", **variables)
    # One after the other, so that no request is on its way when it ends.
    limits = Limits(stall_s=5.0, connect_s=5.0, attempts=4, workers=1)
    with pytest.raises(IntegrityError):
        pull_by("s3://models/llm", tmp_path / "b", limits=limits, **variables)
    assert not (tmp_path / "b").exists()
    server.asked_bytes = 0
    pull_by("s3://models/llm", tmp_path / "c", verify="off", **variables)
    assert server.asked_bytes == 0


def test_several_models_at_once_come_once_each(server, tmp_path, new_session, settings, store):
    one, two = (server.put(f"/{name}.bin", name.encode()) for name in ("one", "two"))
    requests = [Request(uri, tmp_path / str(number)) for number, uri in enumerate((one, two, one))]
    manifests = deliver(requests, new_session(store=settings))
    assert [read_tree(tmp_path / str(number)) for number in range(3)] == [
        {"one.bin": b"one"},
        {"two.bin": b"two"},
        {"one.bin": b"one"},
    ]
    assert [manifest.files[0].path for manifest in manifests] == ["one.bin", "two.bin", "one.bin"]
    assert server.asked_bytes == 6
    assert len(store.models()) == 2


def test_layers_of_which_other_files_are_wanted_are_another_model(store):
    layers = Listing((ListedFile("layer", 1, "v", layer=Layer()),), origin="o")
    plain = Listing((ListedFile("file", 1, "v"),), origin="o")
    asked = [Settings(), Settings(allow=("*.json",)), Settings(ignore=("*.json",))]
    assert len({store.key(layers, {}, settings) for settings in asked}) == 3
    assert len({store.key(plain, {}, settings) for settings in asked}) == 1


def test_an_archive_is_kept_as_what_is_in_it(server, tmp_path, pull_by, store):
    write_tree(tmp_path / "tree", {"a/b": b"in it", "c": b"too"})
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        for path in ("a/b", "c"):
            tar.add(tmp_path / "tree" / path, path)
    uri = server.put("/model.tar.gz", (tmp_path / "model.tar.gz").read_bytes())
    for name in ("x", "y", "y"):
        pull_by(uri, tmp_path / name)
        assert read_tree(tmp_path / name) == {"a/b": b"in it", "c": b"too"}
    assert server.asked_bytes == len((tmp_path / "model.tar.gz").read_bytes())
    assert {blob.read_bytes() for blob in blobs(store)} == {b"in it", b"too"}
    assert verify(store).rotten == ()


def test_digests_that_contradict_each_other_are_no_reason_to_take_a_file(store, tmp_path):
    source = write_tree(tmp_path / "incoming", {"model.bin": b"model"})
    right = Digest("sha256", hashlib.sha256(b"model").hexdigest())
    wrong = Digest("sha256", "0" * 64)
    file = File("model.bin", 5, Digest("crc32", "00000000"), "v", verified=(right,))
    store.commit("k" * 64, source, Manifest((file,), origin="o"), "auto")
    listed = Listing((ListedFile("model.bin", 5, "w", (wrong,)),), origin="elsewhere")
    md5 = Digest("md5", "0" * 32)
    for expected in ((right,), (md5,), (right, md5)):
        assert store.reuse(listed, {"model.bin": expected}, "auto", tmp_path / "stage") == {}
    longer = Listing((ListedFile("model.bin", 6, "w", (right,)),), origin="elsewhere")
    assert store.reuse(longer, {}, "auto", tmp_path / "stage") == {}
    assert read_tree(tmp_path / "stage") == {}
    unsized = Listing((ListedFile("model.bin", None, "w", (right,)),), origin="elsewhere")
    assert store.reuse(unsized, {}, "strict", tmp_path / "stage")["model.bin"].size_bytes == 5


def test_a_destination_that_holds_it_needs_nothing_of_the_store(server, tmp_path, pull, pull_by, events):
    uri = server.put("/model.bin", b"model")
    pull(uri, tmp_path / "model")
    (tmp_path / "model/.lading/stage").mkdir(parents=True)
    server.asked_bytes = 0
    pull_by(uri, tmp_path / "model")
    assert server.asked_bytes == 0
    assert isinstance(events[-1], told.AlreadyDelivered)
    whole_manifest(tmp_path / "model")


# ---- what comes out of it ----------------------------------------------------------------------


def test_a_hard_link_is_made_only_where_the_settings_say_that_nobody_can_write(server, tmp_path, pull, settings, store):
    uri = server.put("/model.bin", b"model")
    pull(uri, tmp_path / "copy", store=settings)
    pull(uri, tmp_path / "link", store=settings._replace(hard_links=True))
    [blob] = blobs(store)
    assert not os.path.samefile(blob, tmp_path / "copy/model.bin")
    if store.shares_with(tmp_path):
        return  # a file system with reflinks
    assert os.path.samefile(blob, tmp_path / "link/model.bin")
    assert (tmp_path / "link/model.bin").stat().st_mode & 0o222 == 0
    (tmp_path / "copy/model.bin").write_bytes(b"other")
    assert blob.read_bytes() == b"model"


def test_it_is_told_how_a_model_was_placed(server, tmp_path, pull_by, events):
    pull_by(server.put("/model.bin", b"model"), tmp_path / "model")
    [placed] = [event for event in events if isinstance(event, told.Materialized)]
    assert placed.ways in ("1 by copy", "1 by reflink")
    assert placed.size_bytes == 5


@pytest.mark.parametrize("damage", [Path.unlink, lambda place: (place.chmod(0o644), place.write_bytes(b"cut"))])
def test_a_model_that_is_damaged_is_put_aside_and_fetched_again(server, tmp_path, pull_by, store, events, damage):
    uri = server.put("/model.bin", b"model")
    pull_by(uri, tmp_path / "a")
    [model] = store.models()
    damage(model.folder / "model.bin")
    for name in "bc":
        pull_by(uri, tmp_path / name)
        assert read_tree(tmp_path / name) == {"model.bin": b"model"}
    assert server.asked_bytes == 10
    assert any(isinstance(event, told.Retried) for event in events)
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_a_model_whose_manifest_is_torn_is_fetched_again(server, tmp_path, pull_by, store):
    uri = server.put("/model.bin", b"model")
    pull_by(uri, tmp_path / "a")
    (store.models()[0].folder / ".lading.manifest").write_text("{")
    pull_by(uri, tmp_path / "b")
    assert read_tree(tmp_path / "b") == {"model.bin": b"model"}
    assert len(store.models()) == 1


def test_what_is_evicted_while_it_is_placed_is_never_half_placed(server, bucket, tmp_path, pull_by, store):
    variables = s3_anonymous(server.url)
    uri = put_model(bucket, "llm", SHARDS)
    over = threading.Event()

    def evict() -> None:
        # As if no lease held, on a file system where locks lie.
        while not over.wait(0.003):
            for key in os.listdir(store.models_folder):
                store.remove(key)

    evicting = threading.Thread(target=evict)
    evicting.start()
    try:
        for number in range(4):
            try:
                pull_by(uri, tmp_path / str(number), **variables)
            except Unavailable:
                assert not (tmp_path / str(number)).exists()
                continue
            assert read_tree(tmp_path / str(number)) == SHARDS
            whole_manifest(tmp_path / str(number))
    finally:
        over.set()
        evicting.join()
    pull_by(uri, tmp_path / "last", **variables)
    assert read_tree(tmp_path / "last") == SHARDS
    assert verify(store).rotten == ()


def test_a_damaged_blob_does_not_take_the_place_of_what_was_just_verified(server, tmp_path, pull_by, store):
    pull_by(server.put("/a.bin", b"model"), tmp_path / "a")
    [blob] = blobs(store)
    blob.chmod(0o644)
    blob.write_bytes(b"cut")
    pull_by(server.put("/b.bin", b"model"), tmp_path / "b")
    assert read_tree(tmp_path / "b") == {"b.bin": b"model"}
    assert [each.read_bytes() for each in blobs(store)] == [b"model"]
    assert [rotten.paths for rotten in verify(store).rotten] == [("a.bin",)]


# ---- rot ---------------------------------------------------------------------------------------


def test_verify_finds_a_turned_bit_and_the_next_delivery_fetches_that_file_alone(
    server, bucket, tmp_path, pull_by, store
):
    variables = s3_anonymous(server.url)
    uri = put_model(bucket, "llm", {"a": b"aaaa", "b": b"bbbbb"})
    catalog = registered(tmp_path, "llm", uri, {"a": b"aaaa", "b": b"bbbbb"})
    options = {"registries": (catalog,), **variables}
    pull_by("model-registry://llm", tmp_path / "x", **options)
    assert verify(store) == (1, 9, ())
    victim = store.models()[0].folder / "a"
    victim.chmod(0o644)
    victim.write_bytes(b"aaab")
    [rotten] = verify(store).rotten
    assert (rotten.uri, rotten.paths) == ("model-registry://llm", ("a",))
    assert store.models() == []
    server.asked_bytes = 0
    pull_by("model-registry://llm", tmp_path / "y", **options)
    assert server.asked_bytes == 4
    assert read_tree(tmp_path / "y") == {"a": b"aaaa", "b": b"bbbbb"}
    assert verify(store).rotten == ()


def test_verify_sees_files_that_have_no_blob_and_blobs_that_have_no_model(server, tmp_path, pull_by, store):
    pull_by(server.put("/model.bin", b"model"), tmp_path / "a")
    [blob] = blobs(store)
    blob.unlink()
    stray = store.blobs.folder / "00" / f"{'0' * 64}-00000000"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"not this")
    assert verify(store) == (1, 5, ())
    assert not stray.exists()
    victim = store.models()[0].folder / "model.bin"
    victim.chmod(0o644)
    victim.write_bytes(b"mudel")
    assert [rotten.paths for rotten in verify(store).rotten] == [("model.bin",)]


# ---- eviction ----------------------------------------------------------------------------------


@pytest.fixture
def three(server, tmp_path, pull, settings, store):
    """Three models of 64 KiB, the one used longest ago first, and a way to see which are left."""
    for number in range(3):
        uri = server.put(f"/{number}.bin", content(65536, seed=number))
        pull(uri, tmp_path / str(number), store=settings)
        key = store.models()[0].key
        os.utime(store.root / "uses" / key, (1000 + number, 1000 + number))
    return [model.key for model in reversed(store.models())]


def limited(store: Store, **settings) -> Store:
    return Store(store.settings._replace(**settings))


def left(store: Store) -> list[str]:
    return [model.key for model in reversed(store.models())]


def test_above_the_high_mark_what_was_used_longest_ago_goes_until_the_low_one(three, store):
    assert prune(limited(store, high="200000", low="100000")) == []
    gone = prune(limited(store, high="190000", low="140000"))
    assert [each.key for each in gone] == three[:1]
    assert gone[0].freed_bytes == 65536
    assert left(store) == three[1:]
    assert len(blobs(store)) == 2
    assert len(list((store.root / "uses").iterdir())) == 2


def test_a_share_of_the_volume_is_a_mark_too(three, store):
    assert prune(limited(store, high="100%", low="100%")) == []
    assert len(prune(limited(store, high="0%", low="0%"))) == 3
    assert left(store) == []
    assert blobs(store) == []


def test_what_was_not_used_for_so_long_goes(three, store):
    assert [each.key for each in prune(limited(store, max_age_s=100.0, high="100%"), now_s=1101.5)] == three[:2]
    assert left(store) == three[2:]


def test_what_is_kept_or_needed_now_stays(three, store):
    store.references.keep("by hand", three[0])
    with store.lease(three[1]):
        prune(limited(store, high="0", low="0"))
        assert left(store) == three[:2]
        prune(limited(store, high="0", low="0", locks=False))
        assert left(store) == three[:2]
    store.references.release("by hand")
    prune(limited(store, high="0", low="0"))
    assert left(store) == []


def test_who_keeps_a_model_may_say_what_it_is_to_him(three, store):
    facts = store.find(three[0])._replace(requested="model-registry://iris", version="v3")
    store.references.keep("by me", three[0], facts)
    store.references.keep("by hand", three[0])
    assert sorted(store.references.by_key()[three[0]]) == ["by hand", "by me"]
    answer = store.references.get("by me")
    assert (answer.key, answer.facts.requested, answer.facts.version) == (three[0], "model-registry://iris", "v3")
    assert answer.facts.files == ()
    # Nothing is known of what somebody keeps without saying it, nor of what nobody keeps.
    assert store.references.get("by hand") is None
    store.references.release("by me")
    assert store.references.get("by me") is None


def test_whatever_evicts_a_model_tells_it(three, store):
    heard: list[told.Event] = []
    hearing = Store(store.settings._replace(high="0", low="0"), heard.append)
    assert evict_one(hearing)
    prune(hearing)
    assert [event.why for event in heard] == ["room is needed", "used longest ago", "used longest ago"]
    assert all(isinstance(event, told.Evicted) and event.freed_bytes == 65536 for event in heard)


def test_a_model_is_kept_in_the_store_alone_and_fetched_only_once(bucket, server, store, new_session, events):
    uri = put_model(bucket, "m", SHARDS)
    session = new_session(store=store.settings, **s3_anonymous(server.url))
    manifest = deliver_to_store(uri, "me", session)
    (model,) = store.models()
    assert model.references == ("me",)
    assert (len(manifest.files), manifest.size_bytes) == (50, model.size_bytes)
    assert read_tree(model.folder) == SHARDS
    asked = server.asked_bytes
    assert deliver_to_store(uri, "other", session).files == manifest.files
    assert server.asked_bytes == asked
    assert [type(event).__name__ for event in events].count("Delivered") == 1
    # A newer one takes the name, and what it shares is not fetched.
    put_model(bucket, "m", NEWER)
    deliver_to_store(uri, "me", session)
    assert server.asked_bytes - asked < sum(map(len, SHARDS.values())) // 5
    assert sorted(model.references for model in store.models()) == [("me",), ("other",)]


def test_what_cannot_be_written_keeps_nothing(bucket, server, store, new_session, monkeypatch):
    uri = put_model(bucket, "m", {"a": b"1"})
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(NotAllowed, match="cannot keep the model"):
        deliver_to_store(uri, "me", new_session(store=store.settings, **s3_anonymous(server.url)))


def test_a_store_within_its_own_source_is_not_filled_from_it(store, new_session, tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(UsageError, match="one lies within the other"):
        deliver_to_store(str(tmp_path), "me", new_session(store=store.settings))


def test_the_lease_of_a_process_that_is_dead_holds_nothing(three, store):
    (store.leases.folder / f"{three[0]}.dead").touch()
    assert three[0] not in store.leases.held()
    (store.leases.folder / f"{three[0]}.dead").touch()
    unlocked = limited(store, locks=False)
    assert three[0] in unlocked.leases.held()
    os.utime(store.leases.folder / f"{three[0]}.dead", (0, 0))
    assert three[0] not in unlocked.leases.held()


def test_a_model_that_can_never_fit_is_refused_and_nothing_is_evicted_for_it(server, three, store, pull, tmp_path):
    huge = free_bytes(store.root) * 2
    uri = server.put("/huge.bin", b"huge")
    server.misbehave("/huge.bin", claimed_size(huge))
    store.references.keep("by hand", three[2])
    server.asked_bytes = 0
    with pytest.raises(NoSpace, match="needs") as caught:
        pull(uri, tmp_path / "huge", store=store.settings)
    assert "2.bin (64.0 KiB)" in caught.value.hint
    assert server.asked_bytes == 0
    assert left(store) == three
    assert not (tmp_path / "huge").exists()


def test_a_shared_file_goes_with_the_last_model_that_has_it(server, bucket, tmp_path, pull, settings, store):
    variables = s3_anonymous(server.url)
    pull(put_model(bucket, "llm", SHARDS), tmp_path / "old", store=settings, **variables)
    for path in CHANGED:
        bucket.put(f"llm/{path}", NEWER[path])
    pull("s3://models/llm", tmp_path / "new", store=settings, **variables)
    newer, older = store.models()
    assert store.own_bytes(older.key) == store.own_bytes(newer.key) == sum(len(NEWER[path]) for path in CHANGED)
    assert store.remove(older.key) == sum(len(SHARDS[path]) for path in CHANGED)
    assert len(blobs(store)) == 50
    assert store.remove(newer.key) == newer.size_bytes
    assert blobs(store) == []


def test_what_killed_processes_left_goes_with_a_sweep(three, store):
    for place in ("uses/k", "origins/o/k", "asked/k", "references/k", "locks/k", "incoming/old/stage/x"):
        stray = store.root / place
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_text("torn")
        os.utime(stray, (0, 0))
    for folder in ("incoming/old/stage", "incoming/old"):
        os.utime(store.root / folder, (0, 0))
    (store.blobs.folder / "00").mkdir(exist_ok=True)
    (store.blobs.folder / "00" / "orphan").write_bytes(b"orphan")
    (store.root / "incoming/new/stage").mkdir(parents=True)
    assert collect_garbage(store) == 6
    assert not any((store.root / place).exists() for place in ("uses/k", "origins/o", "asked/k", "locks/k"))
    assert [place.name for place in store.incoming_folder.iterdir()] == ["new"]
    assert left(store) == three
    assert len(list((store.root / "uses").iterdir())) == 3


def test_room_is_made_of_what_nobody_needs_first(three, store):
    ensure_free(store, 0)
    assert left(store) == three


# ---- places that are none ----------------------------------------------------------------------


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "store").touch()
    for path in ("store", "store/below"):
        with pytest.raises(UsageError, match="not a folder"):
            Store(StoreSettings(path=str(tmp_path / path)))


def test_a_folder_that_holds_something_else_is_refused_and_stays(tmp_path):
    write_tree(tmp_path / "store", {"photo.jpg": b"photo"})
    with pytest.raises(UsageError, match=r"photo\.jpg"):
        Store(StoreSettings(path=str(tmp_path / "store")))
    assert os.listdir(tmp_path / "store") == ["photo.jpg"]


def test_a_new_volume_may_have_its_lost_and_found(tmp_path):
    (tmp_path / "lost+found").mkdir()
    assert Store(StoreSettings(path=str(tmp_path))).writable


@pytest.mark.parametrize(
    ("text", "error"),
    [('{"format": 2}', Unsupported), ("", IntegrityError), ("[]", IntegrityError), ("{}", IntegrityError)],
)
def test_a_store_of_another_format_is_refused(tmp_path, text, error):
    (tmp_path / "format").write_text(text)
    with pytest.raises(error):
        Store(StoreSettings(path=str(tmp_path)))


def test_the_store_the_destination_and_the_source_lie_beside_each_other(tmp_path, pull, settings):
    source = write_tree(tmp_path / "source", {"model.bin": b"model"})
    for destination in (tmp_path / "store", tmp_path / "store/models/x", tmp_path):
        with pytest.raises(UsageError, match="one lies within the other"):
            pull(str(source), destination, store=settings)
    with pytest.raises(UsageError, match="one lies within the other"):
        pull(str(source), tmp_path / "x", store=settings._replace(path=str(source / "store")))
    assert not (source / "store").exists()
    assert not (tmp_path / "store/models/x").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("store: {highest: 1}", "store has the unknown key 'highest'"),
        ("store: {high: 0.9, low: 0.8}", "store.high is 0.9 bytes"),
        ("store: {high: 90}", "store.high is 90 bytes"),
        ("store: {high: '90'}", "store.high is '90' bytes"),
        ("store: {low: 0}", "store.low is 0 bytes"),
        ("store: {high: true}", "store.high is true"),
        ("store: {high: }", "store.high is null"),
        ("store: {high: 110%}", "store.high is '110%'"),
        ("store: {high: 80%, low: 90%}", "above store.high"),
        ("store: {high: 1GiB, low: 2GiB}", "above store.high"),
        ("store: {high: much}", "store.high is 'much'"),
        ("store: {locks: 1}", "store.locks is 1"),
        ("store: {max_age_s: -1}", "store.max_age_s is -1"),
        ("store: [path]", "not a mapping"),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path, text, why):
    (tmp_path / "lading.yaml").write_text(text)
    with pytest.raises(UsageError, match=why):
        Settings.load({"LADING_CONFIG": str(tmp_path / "lading.yaml")})


@pytest.mark.parametrize(
    ("mark", "meant"),
    [("0.9", "write 90%,"), ("1", "write 100%,"), ("85", "write 85%,"), ("0", "write 80%,"), ("1000", "write 80%,")],
)
def test_a_mark_whose_percent_sign_is_left_out_is_told_with_it(tmp_path, mark, meant):
    (tmp_path / "lading.yaml").write_text(f"store: {{high: {mark}}}")
    with pytest.raises(UsageError) as caught:
        Settings.load({"LADING_CONFIG": str(tmp_path / "lading.yaml")})
    assert caught.value.hint.startswith(meant)


def test_settings_come_from_the_file_and_the_environment(tmp_path):
    keys = "path: /a, high: 1GiB, low: 50%, max_age_s: 60, hard_links: true, locks: false, scrub_s: 0"
    config = f"store: {{{keys}, quotas: {{a: 1GiB}}}}"
    (tmp_path / "lading.yaml").write_text(config)
    environ = {"LADING_CONFIG": str(tmp_path / "lading.yaml")}
    gib = str(1 << 30)
    assert Settings.load(environ).store == ("/a", gib, "50%", 60, True, False, 0, 20_000_000, {"a": gib})
    assert Settings.load({**environ, "LADING_STORE": "/b"}).store.path == "/b"
    assert Settings.load({}).store.path == ""


# ---- what somebody else does there -----------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path) -> Path:
    """A folder that is not the store's, old enough for all that is swept."""
    folder = write_tree(tmp_path / "theirs", {"a": b"1", "deep/b": b"2"})
    for place in (*folder.rglob("*"), folder):
        os.utime(place, (0, 0))
    return folder


@pytest.fixture
def evicted(pull, store, tmp_path) -> tuple[str, str]:
    """The URI and the key of a model that the store had."""
    uri = str(write_tree(tmp_path / "source", {"a": b"1" * 1000}))
    pull(uri, tmp_path / "before", store=store.settings)
    [key] = store.keys()
    store.remove(key)
    return uri, key


@pytest.mark.parametrize("name", ["models", "incoming", "blobs", "origins", "leases", "locks", "quarantine"])
def test_a_link_in_the_place_of_a_folder_of_the_store_is_refused(store, theirs, name):
    (store.root / name).exists() and (store.root / name).rename(store.root / f".{name}")
    (store.root / name).symlink_to(theirs)
    there = read_tree(theirs)
    with pytest.raises(UsageError, match=f"{name} is a symbolic link"):
        Store(store.settings)
    assert read_tree(theirs) == there


@pytest.mark.parametrize(
    "name", ["incoming/k", "incoming/k.removed.1", "origins/o", "blobs/sha256/ab", "quarantine/k.1", "leases/k.1"]
)
@pytest.mark.parametrize("target", ["theirs", "theirs/a", "nowhere"])
def test_what_is_swept_is_never_where_a_link_leads(three, store, theirs, name, target):
    there = read_tree(theirs)
    (store.root / name).parent.mkdir(exist_ok=True)
    (store.root / name).symlink_to(theirs.parent / target)
    os.utime(store.root / name, (0, 0), follow_symlinks=False)
    collect_garbage(store)
    assert store.leases.held() == set()
    assert read_tree(theirs) == there
    assert left(store) == three


@pytest.mark.parametrize("name", ["incoming/{}/.lading", "locks/{}"])
def test_a_link_where_a_model_is_fetched_is_refused(pull, store, theirs, evicted, tmp_path, name):
    uri, key = evicted
    there, link = read_tree(theirs), store.root / name.format(key)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(theirs)
    with pytest.raises(UsageError):
        pull(uri, tmp_path / "model", store=store.settings)
    assert read_tree(theirs) == there
    assert not (tmp_path / "model").exists()


def test_a_lock_or_a_lease_can_be_opened_only_by_who_may_write_to_it(pull, store, tmp_path):
    source, modes = write_tree(tmp_path / "source", {"a": b"1"}), {}

    def look(_):
        places = [place for name in ("locks", "leases") for place in (store.root / name).glob("*")]
        modes.update({place.parent.name: place.stat().st_mode & 0o444 for place in places})

    pull(str(source), tmp_path / "model", store=store.settings, listener=look)
    assert modes == {"locks": 0, "leases": 0}


def test_a_lock_that_is_held_for_ever_by_who_fetches_nothing_delays_a_delivery_only(
    pull, store, evicted, events, clock, tmp_path
):
    uri, key = evicted
    store.lock(key).parent.mkdir(exist_ok=True)
    began_s = clock.now()
    with store.lock(key).open("w") as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        pull(uri, tmp_path / "model", store=store.settings)
    assert read_tree(tmp_path / "model") == {"a": b"1" * 1000}
    assert any(isinstance(event, told.Retried) for event in events)
    # Of stalls of five seconds each.
    assert 75 < clock.now() - began_s < 100
    assert store.has(key)
    assert list(store.incoming_folder.iterdir()) == []


def test_who_fetches_slowly_is_waited_for(pull, store, evicted, tmp_path):
    uri, key = evicted
    store.lock(key).parent.mkdir(exist_ok=True)
    staged = write_tree(store.incoming(key), {"slow": b""}) / "slow"

    def fetch(event):
        if isinstance(event, told.WaitingForStore):
            staged.write_bytes(staged.read_bytes() + b"1" * 4096)

    with store.lock(key).open("w") as slow:
        fcntl.flock(slow, fcntl.LOCK_EX)
        limits = Limits(stall_s=5.0, deadline_s=1000.0)
        with pytest.raises(DeadlineExceeded):
            pull(uri, tmp_path / "model", store=store.settings, limits=limits, listener=fetch)


def test_a_lease_that_somebody_else_locks_first_is_taken_under_another_name(store, monkeypatch):
    original, strangers = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not strangers:
            strangers.append(os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY))
            original(strangers[0], fcntl.LOCK_EX)
        original(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with store.lease("k"):
        assert len(list(store.leases.folder.glob("k.*"))) == 1
        assert "k" in store.leases.held()
    os.close(strangers[0])
    assert store.leases.held() == set()
