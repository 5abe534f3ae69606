"""The manifest: the files that were delivered, and its JSON form.  No I/O."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import IntegrityError, Unsupported, UsageError
from lading.model.digest import STRONG, Digest
from lading.model.paths import FILE_NAME, name_faults, safe_path, shown_path
from lading.model.signature import Signature
from lading.model.uri import ModelURI

# The largest size of a file (off_t).
MOST_BYTES = 2**63 - 1


class File(NamedTuple):
    """One delivered file, verified against the digests that were known.

    ``path`` is relative to the model's root, with ``/``.  ``digest`` is the one that lading computed,
    ``verified`` are the digests that were checked, ``blob_digest`` is the SHA-256 by which a store keeps the file.
    ``validator`` names the exact version at the origin; a file from an archive has none.
    ``mtime_ns`` is the modification time of the file in a destination; it identifies nothing.
    """

    path: str
    size_bytes: int
    digest: Digest
    validator: str | None = None
    verified: tuple[Digest, ...] = ()
    blob_digest: Digest | None = None
    mtime_ns: int | None = None

    @property
    def shown(self) -> str:
        """The path, printable."""
        return shown_path(self.path)

    @property
    def known(self) -> tuple[Digest, ...]:
        """Every digest of the file."""
        return (*self.verified, *([self.blob_digest] if self.blob_digest else ()), self.digest)

    @property
    def strongest(self) -> Digest:
        """The strongest digest of the file: the only one that an audit computes, and so the only one that it proves."""
        return max(self.known, key=lambda digest: digest.strength)

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "size": self.size_bytes,
            "digest": str(self.digest),
            "verified": [str(digest) for digest in self.verified],
            "validator": self.validator,
            **({"part_sizes": parts} if (parts := self._part_sizes()) else {}),
            **({"address": str(self.blob_digest)} if self.blob_digest else {}),
        }

    def _part_sizes(self) -> dict[str, list[int]]:
        """The sizes of the parts of each strong composite digest."""
        composites = [digest for digest in self.verified if digest.part_sizes_bytes and digest.algorithm in STRONG]
        return {str(digest): list(digest.part_sizes_bytes) for digest in composites}

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "File":
        size, mtime_ns, validator = item["size"], item.get("mtime_ns"), item["validator"]
        if type(size) is not int or not 0 <= size <= MOST_BYTES:
            raise ValueError(size)
        if type(mtime_ns) not in (int, type(None)):
            raise ValueError(mtime_ns)
        if not isinstance(validator, str | None):
            raise TypeError(validator)
        return cls(
            path=safe_path(item["path"]),
            size_bytes=size,
            digest=Digest.parse(item["digest"]),
            validator=validator,
            verified=tuple(_verified(item["verified"], item.get("part_sizes") or {})),
            blob_digest=Digest.parse(item["address"]) if item.get("address") else None,
            mtime_ns=mtime_ns,
        )


def _verified(texts: Sequence[str], part_sizes: Mapping[str, Sequence[int]]) -> Iterator[Digest]:
    """The digests that can be computed again; a composite without the sizes of its parts cannot."""
    for text in texts:
        plain, _, words = text.partition(" ")
        sizes = part_sizes.get(text, ())
        if not all(type(each) is int and each > 0 for each in sizes):
            raise ValueError(sizes)
        if sizes or not words:
            yield Digest.parse(plain)._replace(part_sizes_bytes=tuple(sizes))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


class Manifest(NamedTuple):
    """The files of one delivered model, sorted by path, and where they came from; ``Listing`` explains the fields.

    ``archives`` are the origin's files that were unpacked, or decrypted with the key ``opened_by``.
    ``folders`` are the empty folders: only archives have them, and no digest covers them.  ``last_known`` is the time
    of an earlier resolution that was used because no registry was available, or "".
    """

    files: tuple[File, ...]
    requested: str = ""
    resolved: str = ""
    origin: str = ""
    version: str = ""
    registry: str = ""
    pin: str = ""
    metadata: Mapping[str, Any] = MappingProxyType({})
    archives: tuple[File, ...] = ()
    opened_by: str = ""
    seconds: float = 0.0
    query_id: str = ""
    last_known: str = ""
    patterns: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    signature: Signature | None = None

    @classmethod
    def of(cls, files: Iterable[File]) -> "Manifest":
        """A manifest of these files; raises for paths that leave the root, or that exclude each other."""
        manifest = cls(tuple(sorted(files, key=lambda file: file.path)))
        for _, error in name_faults(manifest.files):
            raise error
        return manifest

    @property
    def came_from(self) -> ModelURI | None:
        """The URI of the delivered version, redacted; None if it is not known."""
        return ModelURI.parse(self.resolved) if self.resolved else None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def digest(self) -> Digest:
        """The identity of the tree: SHA-256 over one line per file, ``path NUL size NUL digest``."""
        running = hashlib.sha256()
        for file in self.files:
            running.update(f"{file.path}\0{file.size_bytes}\0{file.digest}\n".encode())
        return Digest("sha256", running.hexdigest())

    def with_files_of(self, other: "Manifest") -> "Manifest":
        """The facts of this manifest with the files of ``other``."""
        return self._replace(files=other.files, archives=other.archives, folders=other.folders)

    def by_path(self) -> dict[str, File]:
        return {file.path: file for file in self.files}

    def all_folders(self) -> set[str]:
        """Every folder below the root: those of the files, and the empty ones."""
        found = set(self.folders)
        for path in (*self.folders, *(file.path for file in self.files)):
            while (path := path.rpartition("/")[0]) and path not in found:
                found.add(path)
        return found

    def to_json(self) -> dict[str, Any]:
        return {**self._facts(), "files": [file.to_json() for file in self.files]}

    def _facts(self) -> dict[str, Any]:
        return {
            "format": 1,
            "requested": self.requested,
            "resolved": self.resolved,
            "origin": self.origin,
            "registry": self.registry,
            "pin": self.pin,
            "version": self.version,
            "metadata": dict(self.metadata),
            "archives": [archive.to_json() for archive in self.archives],
            "opened_by": self.opened_by,
            "digest": str(self.digest),
            "total_files": len(self.files),
            "total_bytes": self.size_bytes,
            "seconds": self.seconds,
            "asked": self.query_id,
            "patterns": list(self.patterns),
            **({"folders": list(self.folders)} if self.folders else {}),
            **({"signature": self.signature.to_json()} if self.signature else {}),
            **({"last_known": self.last_known} if self.last_known else {}),
        }

    def lines(self, mtime_ns: Callable[[str], int | None] = lambda _: None) -> Iterator[str]:
        """The manifest as JSON text, one line per file, so that a hundred thousand files are never one string.

        ``mtime_ns`` gives the modification time of the file at a path; only a destination's own manifest has them.
        """
        facts = json.dumps(self._facts(), indent=1, ensure_ascii=False).removesuffix("\n}")
        yield f'{facts},\n "files": ['
        separator = "\n  "
        for file in self.files:
            time_ns = mtime_ns(file.path)
            times = {} if time_ns is None else {"mtime_ns": time_ns}
            yield separator + json.dumps(file.to_json() | times, ensure_ascii=False)
            separator = ",\n  "
        yield "\n ]\n}\n"

    def dumps(self) -> str:
        return "".join(self.lines())

    @classmethod
    def loads(cls, text: str) -> "Manifest":
        """Read what ``dumps`` wrote; ``Unsupported`` for another format, ``IntegrityError`` for any other text."""
        try:
            data = json.loads(text)
            if data["format"] != 1:
                raise Unsupported(
                    f"{FILE_NAME} has format {data['format']!r}; this lading reads format 1",
                    hint="pull again, or use the lading that wrote it",
                )
            manifest = cls.of(File.from_json(item) for item in data["files"])
            manifest = manifest._replace(
                requested=_text(data["requested"]),
                resolved=_text(data["resolved"]),
                origin=_text(data["origin"]),
                version=_text(data["version"]),
                registry=_text(data["registry"]),
                pin=_text(data.get("pin", "")),
                metadata=dict(data["metadata"]),
                archives=tuple(File.from_json(item) for item in data["archives"]),
                opened_by=_text(data.get("opened_by", "")),
                seconds=float(data["seconds"]),
                query_id=_text(data.get("asked", "")),
                patterns=tuple(map(_text, data.get("patterns", ()))),
                folders=tuple(map(safe_path, data.get("folders", ()))),
                signature=Signature.from_json(data["signature"]) if data.get("signature") else None,
                last_known=_text(data.get("last_known", "")),
            )
            # It must be a URI.
            _ = manifest.came_from
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
            raise IntegrityError(f"{FILE_NAME} is not a manifest", hint="pull again") from error
        if data.get("digest") != str(manifest.digest):
            raise IntegrityError(f"{FILE_NAME} does not match its own digest", hint="pull again")
        return manifest
