"""The store: models and their files on a node, shared by deliveries, each fetched once.

    STORE/                        version 1
      format                      {"format": 1}
      models/KEY/…                one model as it was delivered, with its .lading.manifest; never changed
      incoming/KEY/…              the same while it is fetched: a destination like any other, with its
                                  workspace, lock and journal; renamed to models/KEY when it is whole
      incoming/KEY.removed.…      a model that is being evicted
      blobs/sha256/ab/HEX-CRC     every file of every model once, by its SHA-256 (and its CRC-32): a further
                                  name of the file below models/
      origins/ORIGIN/KEY          empty: which models are of one origin; in ORIGIN.unverified those fetched with ``off``
      asked/QUESTION              a KEY: what was last delivered for this question, should its registry go away
      uses/KEY                    empty: its time is that of the last use
      owners/NAMESPACE/KEY        empty: the same of the last use by a namespace, where there are quotas
      references/NAME             a KEY: a model that somebody keeps, whatever its last use; with facts as in ``asked``
      agent/NAME.json             what the agent remembers of a delivery that ends here
      locks/KEY                   held (flock) by the process that fetches this model
      leases/KEY.…                held (flock) by a process that needs this model now
      first                       held (flock, shared) by a process that a pod waits for, while it fetches
      quarantine/KEY.…            what had rotted, for a week
      pauses/ORIGIN               empty: its time is the end of a pause that this origin asked for (``network/pace.py``)
      pauses/ORIGIN.requests      empty: its time says how much this origin has been asked (``network/bucket.py``)
      swept                       empty: its time is that of the last sweep
      scrub                       how far the files have been hashed again (``scrub``)

KEY is a SHA-256 over the listing and the settings that matter: the same query finds the same model, and a model
whose origin has changed is another one.  Files are shared by hard links within the store: two revisions that
share 45 of 50 shards store them once, and a blob with only one name left is unused.  Everything is complete
when it gets its name; a killed process leaves files only in ``incoming``.  Locks and leases save work;
correctness does not depend on them.

``eviction`` removes models, ``inspection`` verifies them at once, ``scrub`` bit by bit.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lading.destination.workspace import read_manifest
from lading.errors import IntegrityError, Unavailable, Unsupported, UsageError
from lading.events import Listener, ignore
from lading.model.checks import VerifyMode
from lading.model.compare import ExpectedDigests, unchanged
from lading.model.digest import STRONG
from lading.model.listing import Listing
from lading.model.manifest import File, Manifest
from lading.model.paths import FILE_NAME
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings
from lading.store.blobs import BLOB_ALGORITHM, Blobs, link
from lading.store.files import entries, files_below, has_size, modified_at_s, remove_links, remove_unheld, touch
from lading.store.format import prepare
from lading.store.leases import Leases
from lading.store.pointers import Answers, Origins, Pointers, References
from lading.store.priority import Priority
from lading.system.disk import clones, disk_error, materialize_file, write_whole
from lading.system.folders import remove_tree
from lading.text.printable import printable

_REMOVED = ".removed."
# Of one origin; older revisions have less and less in common with what is fetched now.
_MOST_REVISIONS = 8


class Vanished(Unavailable):
    """A model was removed from the store while it was needed."""


class Model(NamedTuple):
    """One model of the store, as its manifest tells it.  ``used_at_s`` is Unix time; ``references`` are who keeps it."""

    key: str
    folder: Path
    requested: str
    resolved: str
    pin: str
    files: int
    size_bytes: int
    used_at_s: float
    references: tuple[str, ...]
    leased: bool


class Out(NamedTuple):
    """How a model came out of the store: files by each way (``reflink``, ``link``, ``copy``)."""

    ways: dict[str, int]
    size_bytes: int


class Store:
    """The store at ``settings.path``, created if it does not exist.  Safe for any number of processes.

    If ``writable`` is false, this process may only read it.  Methods raise ``OSError``, which callers turn into
    lading's errors with ``disk_error``.  ``listener`` is called for every model that this process evicts.
    """

    blob_algorithm = BLOB_ALGORITHM
    """The algorithm that every file is kept by."""

    def __init__(self, settings: StoreSettings, listener: Listener = ignore) -> None:
        self.settings = settings
        self.listener = listener
        self.root = Path(os.path.abspath(settings.path))
        self.models_folder = self.root / "models"
        self.incoming_folder = self.root / "incoming"
        self.blobs = Blobs(self.root / "blobs" / BLOB_ALGORITHM)
        self._uses = Pointers(self.root / "uses")
        self._origins = Origins(self.root / "origins")
        self.owners = self.root / "owners"
        self.answers = Answers(self.root / "asked")
        self.references = References(self.root / "references")
        self.leases = Leases(self.root / "leases", locks=settings.locks)
        self.priority = Priority(self.root / "first", locks=settings.locks)
        try:
            self.writable = prepare(self.root)
        except (FileExistsError, NotADirectoryError) as error:
            raise UsageError(f"the store {printable(str(self.root))} is not a folder") from error
        except OSError as error:
            raise disk_error(error, error.filename or self.root) from error

    # ---- finding and keeping --------------------------------------------------------------

    def key(self, listed: Listing, expected: ExpectedDigests, settings: Settings) -> str:
        """The key of the model with this listing under these settings.

        A file with neither a validator nor a strong digest may differ each time: its model gets a new key
        every time.
        """
        running = hashlib.sha256(f"{listed.origin}\n{settings.verify}\n".encode())
        if any(file.layer for file in listed.files):
            # Chosen from what comes out of it, and not from what is listed.
            running.update(json.dumps([settings.allow, settings.ignore]).encode())
        for file in listed.files:
            digests = (*expected.get(file.path, ()), *file.declared)
            digest_texts = " ".join(sorted(map(str, digests)))
            line = f"{file.path}\0{file.size_bytes}\0{file.validator}\0{file.layer}\0{digest_texts}\n"
            running.update(line.encode("utf-8", "surrogateescape"))
            if file.validator is None and not any(digest.algorithm in STRONG for digest in digests):
                running.update(secrets.token_bytes(16))
        return running.hexdigest()

    def folder(self, key: str) -> Path:
        """Where the model with this key is."""
        return self.models_folder / key

    def has(self, key: str) -> bool:
        """Whether there is a model under this key."""
        # To open a folder is what makes an NFS client ask whether another node has changed it since (nfs(5), close-to-open).
        with contextlib.suppress(OSError):
            os.close(os.open(self.models_folder, os.O_RDONLY))
        return (self.folder(key) / FILE_NAME).exists()

    def keys(self) -> list[str]:
        """The key of every model."""
        return os.listdir(self.models_folder)

    def find(self, key: str) -> Manifest | None:
        """The model with this key; None if the store does not have it."""
        return self._manifest(self.folder(key))

    def _manifest(self, folder: Path) -> Manifest | None:
        try:
            return read_manifest(folder / FILE_NAME)
        except (IntegrityError, Unsupported):
            return None

    def incoming(self, key: str, *, alone: bool = False) -> Path:
        """The folder into which the model with this key is fetched: one for all processes; without locks, or ``alone``, one for each."""
        return self.incoming_folder / (f"{key}.{secrets.token_hex(8)}" if alone or not self.settings.locks else key)

    def lock(self, key: str) -> Path:
        """The file that a process holds while it fetches the model with this key."""
        return self.root / "locks" / key

    def staged_bytes(self, key: str) -> int:
        """The bytes on the disk of a model that is being fetched."""
        return sum(min(status.st_size, status.st_blocks * 512) for status in files_below(self.incoming_folder / key))

    def reuse(self, listed: Listing, expected: ExpectedDigests, verify: VerifyMode, stage: Path) -> dict[str, File]:
        """Link the files of ``listed`` that the store has into ``stage``; returns them by path, as they were verified."""
        remove_links(stage)
        held = self.held(listed, expected, verify)
        return {path: file for path, (full_path, file) in held.items() if link(full_path, stage / path)}

    def held(self, listed: Listing, expected: ExpectedDigests, verify: VerifyMode) -> dict[str, tuple[Path, File]]:
        """The files of ``listed`` that the store has, by path: their full path, and the file as it was verified."""
        found: dict[str, tuple[Path, File]] = {}
        by_use = sorted(self._origins.keys(listed.origin, verify), key=self.used_at_s, reverse=True)
        for older in by_use[:_MOST_REVISIONS]:
            manifest = self.find(older)
            if manifest is not None:
                root = self.folder(older)
                same = unchanged(listed, manifest, expected, verify, partial(_has, root))
                found = {path: (root / path, file) for path, file in same.items()} | found
        for file in listed.files:
            if file.path not in found and file.layer is None:
                blob = self.blobs.find(file, expected.get(file.path, ()))
                if blob is not None:
                    found[file.path] = blob
        return found

    def commit(self, key: str, folder: Path, manifest: Manifest, verify: VerifyMode) -> None:
        """Publish a complete model from ``folder``; if another process was first, its model stays."""
        kept = tuple(self.blobs.keep(file, folder / file.path) for file in manifest.files)
        write_whole(folder / FILE_NAME, manifest._replace(files=kept).lines())
        self._origins.add(manifest.origin, key, verify)
        self.use(key)
        target = self.folder(key)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if self.find(key) is not None:
                remove_tree(folder)
                return
            self.put_aside(key)
            folder.rename(target)

    def use(self, key: str) -> None:
        """Note that the model is used now."""
        touch(self._uses.folder / key)

    def size_bytes(self, key: str) -> int | None:
        """The bytes of a model, as its manifest counts them; None if there is none."""
        facts = _facts(self.folder(key) / FILE_NAME)
        return facts and facts[-1]

    def used_at_s(self, key: str) -> float:
        """When the model was last used; 0.0 if nobody knows."""
        return modified_at_s(self._uses.folder / key)

    # ---- placing --------------------------------------------------------------------------

    def shares_with(self, folder: Path) -> bool:
        """Whether files that are materialized in ``folder`` take no space."""
        if folder.stat().st_dev != self.root.stat().st_dev:
            return False
        return self.settings.hard_links or not self.writable or clones(self.root)

    def materialize(self, key: str, files: Iterable[File], stage: Path) -> Out:
        """Put these files of a model below ``stage``: by reflink, else by link where the settings allow it, else by copy.

        ``Vanished`` when they have been evicted meanwhile, or are not what they were.  Call with a lease.
        """
        ways: dict[str, int] = {}
        size_bytes = 0
        root = self.folder(key)
        if self.writable:
            self.use(key)
        for file in files:
            source, target = root / file.path, stage / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not has_size(source, file.size_bytes):
                if self.writable and self.has(key):
                    self.put_aside(key)
                raise Vanished(f"{printable(file.path)} is no longer in the store", retry_after_s=0.0)
            try:
                way = materialize_file(source, target, links=self.settings.hard_links)
            except FileNotFoundError as error:
                raise Vanished(f"{printable(file.path)} is no longer in the store", retry_after_s=0.0) from error
            ways[way] = ways.get(way, 0) + 1
            size_bytes += file.size_bytes
        return Out(ways, size_bytes)

    def lease(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Keep a model from being evicted while the block runs, or the process lives."""
        return self.leases.hold(key) if self.writable else contextlib.nullcontext()

    # ---- what is there, and taking it away ------------------------------------------------------

    def models(self) -> list[Model]:
        """Every model, the one used last first.  Reads the head of each manifest, and no file's name."""
        held = self.leases.held()
        references = self.references.by_key()
        found = []
        for folder in entries(self.models_folder):
            key, facts = folder.name, _facts(folder / FILE_NAME)
            if facts is not None:
                names = tuple(sorted(references.get(key, ())))
                found.append(Model(key, folder, *facts, self.used_at_s(key), names, key in held))
        return sorted(found, key=lambda model: model.used_at_s, reverse=True)

    def own_bytes(self, key: str) -> int:
        """Bytes that removing this model would free: those of files that no other model and no destination shares."""
        # One name here, one among the blobs.
        own = {status.st_ino: status.st_size for status in files_below(self.folder(key)) if status.st_nlink <= 2}
        return sum(own.values()) - (self.folder(key) / FILE_NAME).stat().st_size

    def used_bytes(self) -> int:
        """The bytes of the store's files, each counted once."""
        few = (self.incoming_folder, self.root / "quarantine")
        beside = {status.st_ino: status.st_blocks * 512 for folder in few for status in files_below(folder)}
        # Each blob is there once: no need to remember millions.
        blobs = (status.st_blocks * 512 for status in files_below(self.blobs.folder) if status.st_ino not in beside)
        return sum(blobs) + sum(beside.values())

    def remove(self, key: str) -> int:
        """Remove a model with the files that only it had; returns the freed bytes."""
        # Under another name first: nobody finds it half removed, and ``eviction.clean_up`` removes what a kill leaves of it.
        doomed = self.incoming_folder / f"{key}{_REMOVED}{secrets.token_hex(4)}"
        try:
            self.folder(key).rename(doomed)
        except FileNotFoundError:
            return 0
        return self.dissolve(doomed)

    def is_half_removed(self, path: Path) -> bool:
        """Whether this entry of ``incoming`` is the rest of a removal whose process was killed."""
        return _REMOVED in path.name

    def dissolve(self, doomed: Path) -> int:
        """Remove what ``remove`` has renamed; returns the freed bytes.  Another process may do the same meanwhile."""
        key, manifest = doomed.name.partition(_REMOVED)[0], self._manifest(doomed)
        freed = 0
        if manifest is not None:
            self._origins.drop(manifest.origin, key)
            for file in manifest.files:
                with contextlib.suppress(FileNotFoundError):
                    status = (doomed / file.path).stat()
                    if status.st_nlink <= 2:
                        # While the folder is there, so that a kill leaves no blob that nobody remembers.
                        self.blobs.drop(file)
                        freed += status.st_size
        if not self.has(key):
            (self._uses.folder / key).unlink(missing_ok=True)
        remove_tree(doomed)
        return freed

    def remove_dangling(self, before_s: float) -> None:
        """Remove pointers to no model that are older than that Unix time, and locks that nobody holds."""
        keys = set(self.keys())
        groups = [*entries(self._origins.folder), *entries(self.owners)]
        for pointers in (self._uses, self.answers, self.references, *map(Pointers, groups)):
            pointers.remove_dangling(keys, before_s)
        for group in groups:
            with contextlib.suppress(OSError):
                # Only if it is empty.
                group.rmdir()
        for path in entries(self.root / "locks"):
            remove_unheld(path)
        # Pauses and requests that are long over lead to no model either.
        Pointers(self.root / "pauses").remove_dangling((), before_s)

    def collected_at_s(self) -> float:
        """When the last collection ended, in Unix time; 0.0 if there was none."""
        return modified_at_s(self.root / "swept")

    def note_collection(self) -> None:
        """Note that a collection ends now."""
        touch(self.root / "swept")

    def quarantined(self) -> list[Path]:
        """The models in quarantine."""
        return entries(self.root / "quarantine")

    def damaged(self) -> list[tuple[str, float]]:
        """The URI of each model in quarantine, and since when it is there (Unix time), the newest first."""
        found = []
        for path in self.quarantined():
            facts = _facts(path / FILE_NAME)
            found.append((facts[0] if facts else path.name, modified_at_s(path)))
        return sorted(found, key=lambda each: each[1], reverse=True)

    def put_aside(self, key: str) -> None:
        """Move a damaged model to quarantine, where it stays for a while."""
        target = self.root / "quarantine" / f"{key}.{secrets.token_hex(4)}"
        target.parent.mkdir(exist_ok=True)
        folder = self.folder(key)
        with contextlib.suppress(FileNotFoundError):
            manifest = self._manifest(folder)
            folder.rename(target)
            with contextlib.suppress(OSError):
                # Counts from now on, where times can be set.
                os.utime(target)
            for file in manifest.files if manifest else ():
                # What is not whole would be supplied again.
                if not has_size(target / file.path, file.size_bytes):
                    self.blobs.drop(file)


def _has(root: Path, file: File) -> bool:
    return has_size(root / file.path, file.size_bytes)


def _facts(path: Path) -> tuple[str, str, str, int, int] | None:
    """The facts at the head of a manifest; None if there is none that can be read."""
    head = ""
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(' "files": ['):
                    break
                head += line
        facts = json.loads(head.rstrip(",\n") + "}")
        requested, resolved, pin = (str(facts[name]) for name in ("requested", "resolved", "pin"))
        return requested, resolved, pin, int(facts["total_files"]), int(facts["total_bytes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
