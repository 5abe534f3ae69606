"""``verify`` hashes every file of the store again, each once, however many names it has."""

from typing import NamedTuple

from lading.destination.audit import Hashed, is_as_delivered
from lading.events import Listener, ignore
from lading.model.manifest import Manifest
from lading.model.paths import FILE_NAME
from lading.store.store import Store


class Rotten(NamedTuple):
    """A model that was put into quarantine, and its damaged files."""

    key: str
    uri: str
    paths: tuple[str, ...]


class Inspection(NamedTuple):
    """The result of ``verify``; it is clean if no model is ``rotten``."""

    models: int
    size_bytes: int
    rotten: tuple[Rotten, ...]


def verify(store: Store, listener: Listener = ignore) -> Inspection:
    """Hash every file again; a model with a damaged file goes to quarantine, and its next delivery fetches that file.

    ``listener`` hears how far it is.
    """
    good: dict[int, bool] = {}
    sizes: dict[int, int] = {}
    rotten = []
    models = store.models()
    hashed = Hashed(sum(model.files for model in models), sum(model.size_bytes for model in models), listener)
    keys = sorted(store.keys())
    for key in keys:
        manifest = store.find(key)
        wrong = _wrong(store, key, manifest, good, sizes, hashed) if manifest else (FILE_NAME,)
        # Unless it was evicted meanwhile.
        if wrong and store.folder(key).exists():
            store.put_aside(key)
            rotten.append(Rotten(key, manifest.requested if manifest else "", wrong))
    # The rest has another name only in what is being fetched.
    store.blobs.remove_damaged(good)
    return Inspection(len(keys), sum(sizes.values()), tuple(rotten))


def _wrong(
    store: Store, key: str, manifest: Manifest, good: dict[int, bool], sizes: dict[int, int], hashed: Hashed
) -> tuple[str, ...]:
    """Paths of a model that are not as they were; ``good`` and ``sizes`` know every file by its inode."""
    wrong = []
    for file in manifest.files:
        hashed.files += 1
        path = store.folder(key) / file.path
        try:
            status = path.lstat()
            if status.st_ino in good:
                hashed.known_bytes += status.st_size
            else:
                good[status.st_ino] = is_as_delivered(path, file, hashed)
                sizes[status.st_ino] = status.st_size
            if good[status.st_ino] and status.st_size == file.size_bytes:
                continue
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            pass
        # Nor may it be supplied to another model.
        store.blobs.drop(file)
        wrong.append(file.path)
    return tuple(wrong)
