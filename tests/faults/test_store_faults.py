"""Many processes on one store, and what kills them, fills their disk or takes the store away from them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from random import Random

import pytest

import lading
from fakes.killer import run_and_kill_at
from fakes.trees import MIB, content, read_tree, whole_manifest, write_tree
from lading import events as told
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.errors import IntegrityError, NoSpace, NotAllowed
from lading.model.digest import Digest
from lading.settings.limits import Limits
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.store.eviction import collect_garbage, prune
from lading.store.inspection import verify
from lading.store.store import Store

FILES = {"weights.bin": content(6 * MIB)} | {
    f"shards/{number:02}.bin": content(100_000, seed=number) for number in range(20)
}
TOTAL_BYTES = sum(map(len, FILES.values()))
PROCESSES = 50


@pytest.fixture
def uri(bucket) -> str:
    for path, data in FILES.items():
        bucket.put(f"model/{path}", data)
    return "s3://models/model"


@pytest.fixture(params=["locks", "no locks"])
def env(request, server, tmp_path) -> dict[str, str]:
    config = tmp_path / "lading.yaml"
    config.write_text("store: {locks: false}" if request.param == "no locks" else "store: {}")
    return {
        "AWS_ENDPOINT_URL": server.url,
        "awsAnonymousCredential": "true",
        "LADING_STORE": str(tmp_path / "store"),
        "LADING_CONFIG": str(config),
    }


@pytest.fixture
def has_locks(env) -> bool:
    return "false" not in Path(env["LADING_CONFIG"]).read_text()


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(StoreSettings(path=str(tmp_path / "store")))


# Many for the price of one: each is forked from a process that has loaded lading.
CROWD = """
import os, sys
import lading.cli.reporters, lading.deliver, lading.delivery.from_store, lading.sources.s3
from lading.cli.main import main
uri, folder, number = sys.argv[1:]
children = {}
for index in range(int(number)):
    if (child := os.fork()) == 0:
        os.dup2(os.open(f"{folder}/{index}.log", os.O_WRONLY | os.O_CREAT), 2)
        os._exit(main(["pull", uri, f"{folder}/{index}"]))
    children[child] = index
codes = [0] * len(children)
while children:
    child, status = os.wait()
    codes[children.pop(child)] = os.waitstatus_to_exitcode(status)
print(*codes)
"""


@pytest.fixture
def crowd(uri, env, tmp_path):
    """Start so many processes that want the same model; gives the process that waits for them, and their folder."""
    running = []

    def start(number: int) -> tuple[subprocess.Popen, Path]:
        folder = tmp_path / f"crowd-{len(running)}"
        folder.mkdir()
        command = [sys.executable, "-c", CROWD, uri, str(folder), str(number)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | env))
        return running[-1], folder

    yield start
    for process in running:
        process.kill()
        process.communicate()


def assert_all_hold_it(process, folder: Path, number: int) -> None:
    codes, _ = process.communicate(timeout=240)
    logs = {index: (folder / f"{index}.log").read_text() for index in range(number)}
    assert codes.split() == ["0"] * number, logs
    for index in range(number):
        assert read_tree(folder / str(index)) == FILES
    whole_manifest(folder / "0")


def test_fifty_processes_fetch_a_model_once(server, crowd, store, has_locks):
    number = PROCESSES if has_locks else 6
    process, folder = crowd(number)
    assert_all_hold_it(process, folder, number)
    if has_locks:
        assert server.asked_bytes == TOTAL_BYTES
    assert len(store.models()) == 1
    assert verify(store).rotten == ()
    assert list(store.incoming_folder.iterdir()) == []
    assert list(store.leases.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("env", "seed"),
    [*(("locks", seed) for seed in range(20)), *(("no locks", seed) for seed in range(5))],
    indirect=["env"],
)
def test_others_take_over_from_one_that_is_killed(server, uri, env, crowd, processes, store, tmp_path, has_locks, seed):
    moment, killed_at = Random(seed).randrange(TOTAL_BYTES), []
    server.pace_bytes_s = 20 * MIB
    leader = processes.start("pull", uri, tmp_path / "leader", env=env)

    def kill(_, total: int) -> None:
        if total >= moment and not killed_at:
            killed_at.append((time.monotonic(), len(server.requests)))
            leader.kill()

    server.on_sent = kill
    process, folder = crowd(2)
    assert leader.wait(timeout=60) == -signal.SIGKILL
    assert_all_hold_it(process, folder, 2)
    assert not (tmp_path / "leader/.lading.manifest").exists()
    assert verify(store).rotten == ()
    if has_locks:
        assert len(store.models()) == 1
        # The leader, and one other that went on: never two others.
        assert server.asked_bytes <= 2 * TOTAL_BYTES


@pytest.mark.parametrize("env", ["locks"], indirect=True)
def test_who_waits_hears_how_far_it_is_and_takes_over_within_ten_seconds(server, uri, env, processes, tmp_path):
    reached, go_on, taken_over = threading.Event(), threading.Event(), threading.Event()

    def hold(_, total: int) -> None:
        if total >= 4 * MIB and not go_on.is_set():
            reached.set()
            go_on.wait(60)
        elif go_on.is_set():
            taken_over.set()

    server.on_sent = hold
    leader = processes.start("pull", uri, tmp_path / "a", env=env)
    assert reached.wait(60)
    growing = processes.start("pull", uri, tmp_path / "b", env=env)
    line = next(line for line in growing.stderr if "waiting" in line)
    assert line.startswith(f"waiting: another process fetches {uri} into the store, ")
    assert line.endswith(f" of {TOTAL_BYTES / MIB:.1f} MiB so far\n")
    assert not line.endswith(", 0 B")
    leader.kill()
    go_on.set()
    assert taken_over.wait(10)
    assert growing.wait(timeout=60) == 0
    assert read_tree(tmp_path / "b") == FILES


@pytest.mark.parametrize("env", ["locks"], indirect=True)
def test_who_waits_ends_with_sigterm(server, uri, env, processes, tmp_path):
    reached, go_on = threading.Event(), threading.Event()
    server.on_sent = lambda *_: (reached.set(), go_on.wait(60))
    leader = processes.start("pull", uri, tmp_path / "a", env=env)
    assert reached.wait(60)
    growing = processes.start("pull", uri, tmp_path / "b", env=env)
    assert any("waiting" in line for line in growing.stderr)
    growing.terminate()
    assert growing.wait(timeout=5) == 143
    go_on.set()
    assert leader.wait(timeout=60) == 0


# ---- killed at every step ----------------------------------------------------------------------

OLD = {"same.bin": b"S" * 1000, "model.bin": b"old", "config.json": b"{}"}
NEW = {"same.bin": b"S" * 1000, "model.bin": b"new!", "config.json": b"{}", "more/x": b"x"}


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        yield Path(name)


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_a_process_killed_at_any_step_costs_only_what_was_not_done(folder, locks):
    before = folder / "before"
    source = write_tree(folder / "source", OLD)
    settings = partial(settings_for, locks=locks)
    lading.pull(str(source), folder / "first", settings=settings(before))
    for path in set(NEW) - {"same.bin", "config.json"}:
        write_tree(source, {path: NEW[path]})
    for number in range(1000):
        place, destination = folder / "store", folder / "model"
        # With its hard links.
        subprocess.run(["cp", "-a", before, place], check=True)
        # What is delivered comes in, and the old model goes.
        evicting = settings(place, high="1", low="0")
        action = partial(lading.pull, str(source), destination, settings=evicting)
        through = run_and_kill_at(number, action, creating=True)
        store, when = Store(evicting.store), f"killed before change {number}"
        if (destination / ".lading.manifest").exists():
            assert read_tree(destination) == NEW, when
        for model in store.models():
            assert read_tree(model.folder) in (OLD, NEW), when
        assert verify(store).rotten == (), when
        lading.pull(str(source), destination, settings=settings(place))
        assert read_tree(destination) == NEW, when
        for lease in store.leases.folder.iterdir():
            # Without locks, time tells that its process is dead.
            os.utime(lease, (0, 0))
        prune(Store(evicting.store))
        collect_garbage(store, now_s=time.time() + 10 * 24 * 3600)
        assert left_over(store) == [], when
        shutil.rmtree(place)
        shutil.rmtree(destination)
        if through:
            break
    else:
        pytest.fail("the delivery never came to its end")
    assert number > 50, "the kills did not reach all of it"


def settings_for(place: Path, *, locks: bool, **store) -> Settings:
    return Settings(limits=Limits(workers=2), store=StoreSettings(path=str(place), locks=locks, **store))


def left_over(store: Store) -> list[str]:
    """Every file of a store in which no model is left, but for its own."""
    found = (path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if not path.is_dir())
    return sorted(path for path in found if path not in ("format", "first", "swept"))


# ---- disks -------------------------------------------------------------------------------------


def filled(store: Store, number: int) -> list[str]:
    return sorted(Path(model.requested).name for model in store.models())[:number]


def test_a_store_that_is_full_makes_room_and_then_says_what_holds_the_space(server, new_disk, tmp_path, pull):
    disk = new_disk(10 * MIB)
    by = StoreSettings(path=str(disk.path / "store"), high="100%", low="100%")
    uris = [server.put(f"/{number}.bin", content(3 * MIB, seed=number)) for number in range(5)]
    for number, uri in enumerate(uris[:4]):
        pull(uri, tmp_path / str(number), store=by)
    store = Store(by)
    assert len(store.models()) == 3
    assert uris[0] not in {model.requested for model in store.models()}
    for model in store.models():
        store.references.keep("kept", model.key) if model.requested == uris[1] else None
        store.references.keep("kept too", model.key) if model.requested == uris[2] else None
        store.references.keep("and this", model.key) if model.requested == uris[3] else None
    server.asked_bytes = 0
    with pytest.raises(NoSpace) as caught:
        pull(uris[4], tmp_path / "4", store=by)
    assert f"{uris[1]} (3.0 MiB)" in caught.value.hint
    assert server.asked_bytes == 0
    assert len(store.models()) == 3
    assert not (tmp_path / "4").exists()


def test_a_disk_that_somebody_fills_meanwhile_is_met_by_eviction(server, new_disk, tmp_path, pull, events):
    disk = new_disk(12 * MIB)
    by = StoreSettings(path=str(disk.path / "store"), high="100%", low="100%")
    pull(server.put("/old.bin", content(4 * MIB)), tmp_path / "old", store=by)
    uri = server.put("/new.bin", content(4 * MIB, seed=1))
    filling, full = threading.Lock(), threading.Event()

    def fill(_, total: int) -> None:
        with filling:
            if total >= 5 * MIB and not full.is_set():
                disk.fill()
                full.set()

    server.on_sent = fill
    pull(uri, tmp_path / "new", store=by, range_bytes=256 * 1024)
    assert read_tree(tmp_path / "new") == {"new.bin": content(4 * MIB, seed=1)}
    assert [model.requested for model in Store(by).models()] == [uri]
    assert any(isinstance(event, told.Retried) for event in events)


def test_a_destination_that_is_full_evicts_nothing(server, new_disk, tmp_path, pull):
    disk = new_disk(2 * MIB)
    by = StoreSettings(path=str(tmp_path / "store"))
    pull(server.put("/small.bin", b"small"), tmp_path / "small", store=by)
    uri = server.put("/new.bin", content(4 * MIB, seed=1))
    server.asked_bytes = 0
    with pytest.raises(NoSpace):
        pull(uri, disk.path / "model", store=by)
    assert server.asked_bytes == 0
    disk.remount(f"size={5 * MIB}")
    store = Store(by)

    def fill(event) -> None:
        # After the room was looked at.
        if isinstance(event, told.Progress):
            disk.fill()

    with pytest.raises(NoSpace):
        pull(uri, disk.path / "model", store=by, listener=fill)
    assert len(store.models()) == 2
    assert not (disk.path / "model/.lading.manifest").exists()


def test_a_copy_on_the_same_disk_needs_its_room_too(server, new_disk, pull):
    disk = new_disk(10 * MIB)
    by = StoreSettings(path=str(disk.path / "store"))
    uri = server.put("/model.bin", content(6 * MIB))
    with pytest.raises(NoSpace):
        pull(uri, disk.path / "model", store=by)
    assert server.asked_bytes == 0
    pull(uri, disk.path / "model", store=by._replace(hard_links=True))
    assert read_tree(disk.path / "model") == {"model.bin": content(6 * MIB)}


def test_a_read_only_store_gives_what_it_has_and_the_rest_is_fetched_past_it(server, new_disk, tmp_path, pull, events):
    disk = new_disk(16 * MIB)
    by = StoreSettings(path=str(disk.path / "store"))
    uri = server.put("/a.bin", b"in the store")
    pull(uri, tmp_path / "a", store=by)
    disk.remount("ro")
    server.asked_bytes = 0
    pull(uri, tmp_path / "b", store=by)
    assert server.asked_bytes == 0
    assert read_tree(tmp_path / "b") == {"a.bin": b"in the store"}
    pull(server.put("/c.bin", b"elsewhere"), tmp_path / "c", store=by)
    assert read_tree(tmp_path / "c") == {"c.bin": b"elsewhere"}
    assert any(isinstance(event, told.StoreBypassed) for event in events)
    assert len(Store(by).models()) == 1
    with pytest.raises(NotAllowed):
        pull(uri, tmp_path / "d", store=by._replace(path=str(disk.path / "other")))


def test_past_a_store_that_may_only_be_read_several_models_come_all_or_none(
    server, new_disk, tmp_path, pull, new_session
):
    disk = new_disk(16 * MIB)
    by = StoreSettings(path=str(disk.path / "store"))
    stored, lacking = server.put("/a.bin", b"in the store"), server.put("/c.bin", b"elsewhere")
    pull(stored, tmp_path / "a", store=by)
    disk.remount("ro")
    damaged = Request(lacking, tmp_path / "c", Digest.parse("sha256:" + "0" * 64))
    with pytest.raises(IntegrityError):
        deliver([Request(stored, tmp_path / "b"), damaged], new_session(store=by))
    assert not (tmp_path / "b").exists()
    assert read_tree(tmp_path / "c") == {}
    manifests = deliver([Request(stored, tmp_path / "b"), Request(lacking, tmp_path / "c")], new_session(store=by))
    assert [whole_manifest(tmp_path / name).dumps() for name in "bc"] == [each.dumps() for each in manifests]


def test_when_one_destination_is_read_only_none_gets_its_model_from_the_store(server, new_disk, tmp_path, new_session):
    disk = new_disk(1 * MIB)
    disk.remount("ro")
    by = StoreSettings(path=str(tmp_path / "store"))
    requests = [Request(server.put(f"/{name}.bin", name.encode()), tmp_path / name) for name in "ab"]
    with pytest.raises(NotAllowed):
        deliver([*requests, Request(requests[0].uri, disk.path / "a")], new_session(store=by))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    assert len(Store(by).models()) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_the_store_of_another_user_is_read(folder):
    folder.chmod(0o755)
    source = write_tree(folder / "source", {"a.bin": b"in the store"})
    settings = settings_for(folder / "store", locks=True)
    lading.pull(str(source), folder / "a", settings=settings)
    (folder / "theirs").mkdir()
    os.chown(folder / "theirs", 65534, 65534)
    heard = []

    def as_somebody_else() -> None:
        os.setgid(65534)
        os.setuid(65534)
        lading.pull(str(source), folder / "theirs/b", settings=settings, listener=heard.append)
        assert [event.ways for event in heard if isinstance(event, told.Materialized)] in (
            ["1 by copy"],
            ["1 by reflink"],
        )
        (folder / "theirs/new").mkdir()
        write_tree(folder / "theirs/new", {"c.bin": b"not in the store"})
        lading.pull(str(folder / "theirs/new"), folder / "theirs/c", settings=settings, listener=heard.append)
        assert any(isinstance(event, told.StoreBypassed) for event in heard)

    assert run_and_kill_at(1 << 60, as_somebody_else)
    assert read_tree(folder / "theirs") == {
        "b/a.bin": b"in the store",
        "c/c.bin": b"not in the store",
        "new/c.bin": b"not in the store",
    } | {f"{name}/.lading.manifest": (folder / f"theirs/{name}/.lading.manifest").read_bytes() for name in "bc"}
    assert len(Store(settings.store).models()) == 1


def test_two_stores_know_nothing_of_each_other(server, tmp_path, pull):
    uri = server.put("/a.bin", b"model")
    for number in range(2):
        pull(uri, tmp_path / f"m{number}", store=StoreSettings(path=str(tmp_path / f"store-{number}")))
    assert server.asked_bytes == 10
