"""The store: models and their files on a node, shared by deliveries, each fetched once.

    STORE/                        version 1
      format                      {"format": 1}
      models/KEY/…                one model as it was delivered, with its .lading.json; never changed
      incoming/KEY/…              the same while it is fetched: a destination like any other, with its
                                  workspace, lock and journal; renamed to models/KEY when it is whole
      blobs/sha256/ab/HEX-CRC     every file of every model once, by its SHA-256 (and its CRC-32): a further
                                  name of the file below models/
      origins/ORIGIN/KEY          empty: which models are of one origin
      uses/KEY                    empty: its time is that of the last use
      references/NAME             a KEY: a model that somebody keeps, whatever its last use
      locks/KEY                   held (flock) by the process that fetches this model
      leases/KEY.…                held (flock) by a process that places this model now
      quarantine/…                what ``verify`` took away

KEY is a SHA-256 over where a model comes from and its pin: the same question finds the same model, and a
model whose origin has changed is another one.  Files are shared by hard links within the store: that
two revisions share 45 of 50 shards costs nothing, and a blob that only one name is left of is nobody's.
Everything is complete when it gets its name; a process that is killed leaves only what is in
``incoming``, and locks save work but never decide what is right.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lading.disk import disk_error, free_bytes, place_file
from lading.errors import IntegrityError, NoSpace, NotFound, Unsupported
from lading.manifest import FILE_NAME, WORKSPACE_NAME, Digest, File, Manifest
from lading.pins import split_pin
from lading.reuse import Vouched, unchanged
from lading.settings import StoreSettings, VerifyMode
from lading.uri import ModelURI, printable
from lading.verify import new_hash
from lading.workspace import read_manifest, remove_tree

FORMAT = 1
ADDRESS = "sha256"
_READ_BYTES = 1 << 20
_STALE_S = 24 * 3600.0


class Model(NamedTuple):
    """One model of the store.  ``own_bytes`` would be free without it; ``used_at_s`` is Unix time."""

    key: str
    folder: Path
    manifest: Manifest
    own_bytes: int
    used_at_s: float
    references: tuple[str, ...]
    leased: bool


class Placed(NamedTuple):
    """How a model came out of the store: files by each way (``reflink``, ``link``, ``copy``)."""

    ways: dict[str, int]
    size_bytes: int


class Store:
    """The store at ``settings.path``, made if it is not there.  Safe for any number of processes."""

    address = ADDRESS
    """The algorithm that every file is kept by."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self.root = Path(os.path.abspath(settings.path))
        self._models = self.root / "models"
        self._incoming = self.root / "incoming"
        self._blobs = self.root / "blobs" / ADDRESS
        self._uses = self.root / "uses"
        self._leases = self.root / "leases"
        self._references = self.root / "references"
        try:
            for folder in (self._models, self._incoming, self._blobs, self._uses, self._leases, self._references):
                folder.mkdir(parents=True, exist_ok=True)
            self._check_format()
        except OSError as error:
            raise disk_error(error, error.filename or self.root) from error

    def _check_format(self) -> None:
        place = self.root / "format"
        if not place.exists():
            _write_whole(place, json.dumps({"format": FORMAT}) + "\n")
        try:
            found = json.loads(place.read_text(encoding="utf-8"))["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{printable(str(self.root))} is not a store of lading") from error
        if found != FORMAT:
            raise Unsupported(
                f"the store {printable(str(self.root))} has the format {found!r}; this lading knows {FORMAT}",
                hint="use the lading that wrote it, or another folder",
            )

    # ---- finding and keeping --------------------------------------------------------------

    def key(self, listed: Manifest) -> str:
        """The name of the model that this listing is."""
        _, pin = split_pin(ModelURI.parse(listed.pin))
        paths = "\0".join(file.path for file in listed.files)
        return hashlib.sha256(f"{listed.origin}\n{pin}\n{paths}".encode("utf-8", "surrogateescape")).hexdigest()

    def find(self, key: str) -> Manifest | None:
        """What is in the store under this key."""
        try:
            return read_manifest(self._models / key / FILE_NAME)
        except (IntegrityError, Unsupported):
            return None

    def folder(self, key: str) -> Path:
        """Where the model with this key is."""
        return self._models / key

    def incoming(self, key: str, *, alone: bool) -> Path:
        """Where the model with this key is fetched to: one folder for all, or one of this process ``alone``."""
        return self._incoming / (f"{key}.{socket.gethostname()}.{os.getpid()}" if alone else key)

    def lock(self, key: str) -> Path:
        """The file that a process holds while it fetches the model with this key."""
        return self.root / "locks" / key

    def supply(self, listed: Manifest, vouched: Vouched, verify: VerifyMode, stage: Path) -> dict[str, File]:
        """Link into ``stage`` what the store has of ``listed``; returns those files, by path, as they were verified."""
        found: dict[str, File] = {}
        for older in self._of_origin(listed.origin):
            manifest = self.find(older)
            if manifest is not None:
                root = self._models / older
                for path, file in unchanged(listed, manifest, vouched, verify, _size_below(root)).items():
                    if path not in found and _link(root / path, stage / path):
                        found[path] = file
        for file in listed.files:
            if file.path not in found and file.layer is None:
                expected = (*vouched.get(file.path, ()), *file.declared)
                address = next(filter(_is_address, expected), None)
                blob = address and self._blob(address.value)
                # Any other digest that is expected is checked by nobody here.
                only = all(digest == address for digest in vouched.get(file.path, ()))
                if blob and address and only and _link(blob, stage / file.path):
                    own = Digest("crc32", blob.name.rpartition("-")[2])
                    size = (stage / file.path).stat().st_size
                    found[file.path] = file._replace(
                        size_bytes=size, declared=(), digest=own, verified=(address,), locator=""
                    )
        return found

    def commit(self, key: str, folder: Path, manifest: Manifest) -> None:
        """Name a model that is whole in ``folder``; if another process was first, its model stays."""
        self._keep(manifest.files, folder)
        origin = self.root / "origins" / manifest.origin
        origin.mkdir(parents=True, exist_ok=True)
        (origin / key).touch()
        self.use(key)
        try:
            folder.rename(self._models / key)
        except OSError as error:
            if self.find(key) is None:
                raise disk_error(error, folder) from error
            remove_tree(folder)

    def _keep(self, files: Iterable[File], root: Path) -> None:
        """Give every file its name among the blobs, or make it a further name of the blob that is there."""
        for file in files:
            place = root / file.path
            known = next((digest for digest in (file.address, *file.verified) if digest and _is_address(digest)), None)
            address = known.value if known else _sha256(place)
            own = file.digest.value if file.digest else ""
            blob = self._blobs / address[:2] / f"{address}-{own}"
            place.chmod(0o444)
            blob.parent.mkdir(exist_ok=True)
            # Whichever link works: the blob that is there may be evicted between the two.
            while not self._link_new(place, blob) and not _replace(blob, place):
                pass

    def _link_new(self, place: Path, blob: Path) -> bool:
        """Make ``blob`` a name of the file at ``place``; false when there is one of that name."""
        try:
            os.link(place, blob)
        except FileExistsError:
            return False
        except OSError as error:
            raise Unsupported(
                f"the store {printable(str(self.root))} is on a file system without hard links ({error.strerror})",
                hint="put it on a local file system such as ext4, XFS or btrfs",
            ) from error
        return True

    def use(self, key: str) -> None:
        """Note that the model is used now."""
        (self._uses / key).touch()

    def _of_origin(self, origin: str) -> list[str]:
        """Keys of models of the same origin, the one used last first."""
        try:
            keys = os.listdir(self.root / "origins" / origin)
        except FileNotFoundError:
            return []
        return sorted(keys, key=self._used_at_s, reverse=True)

    def _blob(self, address: str) -> Path | None:
        folder = self._blobs / address[:2]
        try:
            names = [name for name in os.listdir(folder) if name.startswith(f"{address}-")]
        except FileNotFoundError:
            return None
        return folder / names[0] if names else None

    def _used_at_s(self, key: str) -> float:
        try:
            return (self._uses / key).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    # ---- placing --------------------------------------------------------------------------

    def place(self, key: str, paths: Iterable[str], stage: Path) -> Placed:
        """Put these files of a model below ``stage``: by reflink, else by link where the settings allow it, else by copy.

        ``NotFound`` when they have been evicted meanwhile.
        """
        ways: dict[str, int] = {}
        size_bytes = 0
        root = self._models / key
        with self.lease(key):
            self.use(key)
            for path in paths:
                target = stage / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                try:
                    way = place_file(root / path, target, links=self.settings.hard_links)
                except FileNotFoundError as error:
                    raise NotFound(f"{printable(path)} is no longer in the store") from error
                except OSError as error:
                    raise disk_error(error, target) from error
                ways[way] = ways.get(way, 0) + 1
                size_bytes += target.stat().st_size
        return Placed(ways, size_bytes)

    @contextlib.contextmanager
    def lease(self, key: str) -> Iterator[None]:
        """Keep a model from being evicted while the block runs, or the process lives."""
        place = self._leases / f"{key}.{secrets.token_hex(8)}"
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            place.unlink(missing_ok=True)
            os.close(descriptor)

    def refer(self, name: str, key: str | None) -> None:
        """Keep the model with ``key`` under this name from now on; None lets it go."""
        place = self._references / hashlib.sha256(name.encode()).hexdigest()
        if key is None:
            place.unlink(missing_ok=True)
        else:
            _write_whole(place, json.dumps({"name": name, "key": key}) + "\n")

    # ---- what is there, and making room -------------------------------------------------------

    def models(self) -> list[Model]:
        """Every model, the one used last first."""
        held = self._leased()
        referring = self._referring()
        found = []
        for key in os.listdir(self._models):
            manifest = self.find(key)
            if manifest is not None:
                own = sum(_own_bytes(self._models / key / file.path) for file in manifest.files)
                names = tuple(sorted(referring.get(key, ())))
                found.append(Model(key, self._models / key, manifest, own, self._used_at_s(key), names, key in held))
        return sorted(found, key=lambda model: model.used_at_s, reverse=True)

    def used_bytes(self) -> int:
        """What the store's files take, each counted once."""
        seen: set[int] = set()
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(os.path.join(folder, name))
                    if status.st_ino not in seen:
                        seen.add(status.st_ino)
                        total += status.st_blocks * 512
        return total

    def remove(self, key: str) -> None:
        """Take a model away; what only it had goes with it."""
        # Under another name first: nobody finds it half removed, and a scan removes what a kill leaves of it.
        doomed = self._incoming / f"{key}.removed.{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            (self._models / key).rename(doomed)
        for origin in (self.root / "origins").glob(f"*/{key}"):
            origin.unlink(missing_ok=True)
        (self._uses / key).unlink(missing_ok=True)
        remove_tree(doomed)
        self.sweep()

    def sweep(self) -> int:
        """Remove what a killed process or an eviction left; returns the bytes that are free again."""
        freed = 0
        for blob in self._blobs.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                status = blob.stat()
                if status.st_nlink == 1:
                    blob.unlink()
                    freed += status.st_size
        now = time.time()
        for place in self._incoming.iterdir():
            # Fetched bytes wait for a day for somebody who goes on.
            if ".removed." in place.name or now - _changed_at_s(place) > _STALE_S:
                remove_tree(place)
        return freed

    def make_room(self, needed_bytes: int) -> None:
        """Evict the models used longest ago until so many bytes are free; ``NoSpace``, which says what holds the rest."""
        while (free := free_bytes(self.root)) < needed_bytes:
            if not self.give_way():
                raise NoSpace(
                    f"the store {printable(str(self.root))} needs {needed_bytes} bytes and has {free} free",
                    hint=self.holders(),
                )

    def give_way(self) -> bool:
        """Evict the model used longest ago; false if none may go."""
        candidates = [model for model in self.models() if _may_go(model)]
        if candidates:
            self.remove(candidates[-1].key)
        return bool(candidates)

    def prune(self, *, now_s: float | None = None) -> list[Model]:
        """Evict by the settings' age and watermarks, longest unused first; returns what went."""
        now = time.time() if now_s is None else now_s
        gone: list[Model] = []
        for model in reversed(self.models()):
            old = self.settings.max_age_s and now - model.used_at_s > self.settings.max_age_s
            if _may_go(model) and (old or self._above(self.settings.low if gone else self.settings.high)):
                self.remove(model.key)
                gone.append(model)
        self.sweep()
        return gone

    def _above(self, mark: str) -> bool:
        """Whether the store is above a watermark: bytes of its own, or percent of the volume that are used."""
        if mark.endswith("%"):
            usage = shutil.disk_usage(self.root)
            return 100 * (usage.total - usage.free) > float(mark[:-1]) * usage.total
        return bool(mark) and self.used_bytes() > int(mark)

    def holders(self) -> str:
        """What takes the most space and may not go, in words."""
        models = sorted(self.models(), key=lambda model: model.own_bytes, reverse=True)
        if not models:
            return "nothing in the store takes it: free some space on its volume, or give a larger one"
        largest = ", ".join(f"{model.manifest.requested} ({model.own_bytes} bytes)" for model in models[:3])
        return f"in use or kept are {printable(largest)}; see lading store ls"

    def _leased(self) -> set[str]:
        """Keys of models that a living process holds; leases of the dead are removed."""
        held = set()
        for place in list(self._leases.iterdir()):
            try:
                descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                place.unlink(missing_ok=True)
            except OSError:
                held.add(place.name.partition(".")[0])
            finally:
                os.close(descriptor)
        return held

    def _referring(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for place in self._references.iterdir():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                reference = json.loads(place.read_text(encoding="utf-8"))
                found.setdefault(str(reference["key"]), []).append(str(reference["name"]))
        return found

    def verify(self) -> list[Model]:
        """Hash every blob again; models with a file that has rotted go to quarantine, and are returned."""
        rotten: set[int] = set()
        for blob in sorted(self._blobs.glob("*/*")):
            with contextlib.suppress(FileNotFoundError):
                if _sha256(blob) != blob.name.partition("-")[0]:
                    rotten.add(blob.stat().st_ino)
                    blob.unlink()
        gone = []
        for model in self.models():
            files = [model.folder / file.path for file in model.manifest.files]
            if any(not place.is_file() or place.stat().st_ino in rotten for place in files):
                target = self.root / "quarantine" / f"{model.key}.{secrets.token_hex(4)}"
                target.parent.mkdir(exist_ok=True)
                model.folder.rename(target)
                gone.append(model)
        return gone


def _is_address(digest: Digest) -> bool:
    return digest.algorithm == ADDRESS and not digest.part_sizes_bytes


def _may_go(model: Model) -> bool:
    return not model.leased and not model.references


def _size_below(root: Path) -> Callable[[str], int | None]:
    def size_bytes(path: str) -> int | None:
        try:
            return (root / path).stat().st_size
        except OSError:
            return None

    return size_bytes


def _link(source: Path, target: Path) -> bool:
    """A further name for a file; false when it is not there any more, or has as many names as it can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def _replace(blob: Path, place: Path) -> bool:
    """Make ``place`` a name of ``blob``; false when that is gone."""
    new = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    try:
        if os.path.samefile(blob, place):
            # rename(2) does nothing between two names of one file, and leaves both.
            return True
        os.link(blob, new)
    except FileNotFoundError:
        return False
    os.replace(new, place)
    return True


def _changed_at_s(folder: Path) -> float:
    """When something was last written in a folder that is fetched to."""
    times = [0.0]
    for place in (folder, folder / WORKSPACE_NAME, folder / WORKSPACE_NAME / "journal"):
        with contextlib.suppress(OSError):
            times.append(place.stat().st_mtime)
    return max(times)


def _own_bytes(place: Path) -> int:
    """What would be free without this file: nothing, if another model has it too."""
    try:
        status = place.stat()
    except FileNotFoundError:
        return 0
    # One name here, one among the blobs.
    return status.st_size if status.st_nlink <= 2 else 0


def _sha256(place: Path) -> str:
    running = new_hash(ADDRESS)
    buffer = memoryview(bytearray(_READ_BYTES))
    with place.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            running.update(buffer[:count])
    return running.hexdigest()


def _write_whole(place: Path, text: str) -> None:
    new = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    new.write_text(text, encoding="utf-8")
    new.replace(place)
