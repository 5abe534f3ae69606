"""What a model is made of: digests, files, the manifest, and its JSON form.  No I/O.

A *listed* manifest says what a source told: names, sizes, validators, perhaps digests.
A *sealed* manifest says what was delivered: every size and digest is known.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from shlex import quote
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import IntegrityError, LadingError, Unsupported, UsageError
from lading.model.digest import Digest
from lading.model.paths import FILE_NAME, safe_path, shown_path, why_unsafe
from lading.model.pattern import exact_pattern, selects

# What a file system counts in (off_t).
_MOST_BYTES = 2**63 - 1
_MOST_FAULTS = 3


class Layer(NamedTuple):
    """What makes a file an archive of which the model's tree is made.

    Layers are laid on each other by ``number``.  ``image_folder`` is for those of a container image:
    only what is below that folder of the image belongs to the model, and whiteouts take effect
    (https://github.com/opencontainers/image-spec/blob/main/layer.md).
    """

    number: int = 0
    image_folder: str = ""


class File(NamedTuple):
    """One file of a model.

    ``path`` is relative to the model's root, with ``/``.  ``size_bytes`` is None while only the
    end of the answer will tell.  ``validator`` names the exact version at the origin (an ETag, a
    modification time).  ``declared`` are digests that the origin or the user vouches for;
    ``digest`` is the one that lading computed, ``verified`` what the bytes were checked against.
    ``locator`` is the source's own name for the file and never leaves the process; ``ranged`` says
    that parts of it can be asked for, ``layer`` that it is delivered as the tree in it.
    ``answers_differ`` says that answers with the listed version have another validator than the listing.
    ``content`` is all of a file that no source has, ``address`` the SHA-256 by which a store keeps it.
    ``mtime_ns`` is when the file in a destination was written, by its file system; it identifies nothing.
    ``refusal`` is why a source cannot deliver what it lists here: an error only for who wants it.  A path that ends in a
    slash is then a folder that was not looked into.
    """

    path: str
    size_bytes: int | None
    validator: str | None = None
    declared: tuple[Digest, ...] = ()
    digest: Digest | None = None
    verified: tuple[Digest, ...] = ()
    locator: str = ""
    ranged: bool = True
    layer: Layer | None = None
    content: bytes | None = None
    address: Digest | None = None
    mtime_ns: int | None = None
    answers_differ: bool = False
    refusal: LadingError | None = None

    @property
    def shown(self) -> str:
        """The whole name that the origin has, where the source's own name for the file is a path, too; printable."""
        before = self.locator.removesuffix(self.path)
        return shown_path(self.locator if before.endswith("/") and before != self.locator else self.path)

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "size": self.size_bytes,
            "digest": str(self.digest) if self.digest else None,
            "verified": [str(digest) for digest in self.verified],
            "validator": self.validator,
            **({"address": str(self.address)} if self.address else {}),
        }

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> "File":
        size, mtime_ns = item["size"], item.get("mtime_ns")
        if type(size) is not int or size < 0:
            raise ValueError(size)
        if type(mtime_ns) not in (int, type(None)):
            raise ValueError(mtime_ns)
        return cls(
            path=safe_path(item["path"]),
            size_bytes=size,
            validator=item["validator"],
            digest=Digest.parse(item["digest"]) if item["digest"] else None,
            # A composite cannot be computed again without its parts: it stays as words only.
            verified=tuple(Digest.parse(text) for text in item["verified"] if " " not in text),
            address=Digest.parse(item["address"]) if item.get("address") else None,
            mtime_ns=mtime_ns,
        )


class GeneratedFile(NamedTuple):
    """A file that a registry adds to a model which has the file ``beside``, or to any, if that is ""."""

    path: str
    content: bytes
    beside: str


class Manifest(NamedTuple):
    """Every file of one model, sorted by path, and where the model came from (URIs are redacted).

    ``resolved`` names exactly what was listed, if the source can pin it.  ``origin`` identifies the URI
    that the source was opened with, a channel perhaps, without what is redacted for secrecy.
    ``asked`` identifies the question: the requested URI and the patterns.  ``last_known`` says when it was
    resolved, if that was not for this delivery since no registry could be asked.
    ``patterns`` are those that chose the files: ``+`` before one that allows, ``-`` before one that ignores.
    ``folders`` are the empty ones: only archives have them, and no digest covers them.
    ``archives`` are the files at the origin that files were unpacked from, or opened from with the key ``opened_by``.
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
    asked: str = ""
    last_known: str = ""
    patterns: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @classmethod
    def listed(cls, files: Iterable[File]) -> "Manifest":
        """These files as a source tells of them: what is wrong with one matters only to who wants it."""
        return cls(tuple(sorted(files, key=lambda file: file.path)))

    @classmethod
    def of(cls, files: Iterable[File]) -> "Manifest":
        """A manifest of these files; refuses sizes that are none, and paths that leave the root or stand in each other's way."""
        manifest = cls.listed(files)
        for _, error in manifest.faults():
            raise error
        return manifest

    def faults(self) -> Iterator[tuple[File, LadingError]]:
        """Every file that cannot be delivered beside the others, and why."""
        known = self.by_path()
        twice = Counter(file.path for file in self.files) if len(known) < len(self.files) else {}
        # By folder, the first file in it.
        folders: dict[str, File] = {}
        for file in self.files:
            if file.refusal is not None:
                yield file, file.refusal
            elif why := why_unsafe(file.path):
                yield file, IntegrityError(f"the origin lists the name {file.shown!r}, which {why}")
            elif file.size_bytes is not None and not 0 <= file.size_bytes <= _MOST_BYTES:
                yield file, IntegrityError(f"{file.shown!r} is said to have {str(file.size_bytes)[:40]} bytes")
            elif twice and twice[file.path] > 1:
                raise IntegrityError(f"two files are both called {file.shown!r}")
            else:
                parent = file.path.rpartition("/")[0]
                while parent and parent not in folders:
                    folders[parent] = file
                    parent = parent.rpartition("/")[0]
        for path in sorted(folders.keys() & known.keys()):
            both = f"{known[path].shown!r} is a file, and also the folder of {folders[path].shown!r}"
            yield known[path], IntegrityError(both, hint="a folder cannot hold both: the origin must lose one of them")

    def refuse_faults(self) -> None:
        """Raise for files that cannot be delivered; the hint is how to leave them out."""
        faults = list(islice(self.faults(), _MOST_FAULTS + 1))
        if not faults:
            return
        error, shown = faults[0][1], faults[:_MOST_FAULTS]
        others = ", ".join(file.shown for file, _ in shown[1:]) + (" and more" if len(faults) > len(shown) else "")
        patterns = " ".join(f"--ignore {quote(exact_pattern(file.path))}" for file, _ in shown)
        rest = f"{patterns} delivers the rest" if len(faults) == len(shown) else f"leave them all out, as by {patterns}"
        raise error.rephrased(
            message=f"{error.message}; neither can be delivered: {others}" if others else "",
            hint="; ".join(filter(None, (error.hint, rest))),
        )

    @property
    def size_bytes(self) -> int:
        """The sum of all known sizes."""
        return sum(file.size_bytes or 0 for file in self.files)

    @property
    def digest(self) -> Digest:
        """SHA-256 over one line per file, ``path NUL size NUL digest``: the identity of the tree."""
        running = hashlib.sha256()
        for file in self.files:
            running.update(f"{file.path}\0{file.size_bytes}\0{file.digest}\n".encode())
        return Digest("sha256", running.hexdigest())

    def by_path(self) -> dict[str, File]:
        return {file.path: file for file in self.files}

    def all_folders(self) -> set[str]:
        """Every folder below the root that these files make, and the empty ones."""
        found = set(self.folders)
        for path in (*self.folders, *(file.path for file in self.files)):
            while (path := path.rpartition("/")[0]) and path not in found:
                found.add(path)
        return found

    def with_generated(self, generated: Iterable[GeneratedFile]) -> "Manifest":
        """These files and those that belong to them; one that the origin has too stays as it is there."""
        known, added = self.by_path(), []
        for path, content, beside in generated:
            if (not beside or beside in known) and path not in known:
                digest = Digest("sha256", hashlib.sha256(content).hexdigest())
                added.append(File(path, len(content), str(digest), (digest,), content=content))
        return self._replace(files=Manifest.listed([*self.files, *added]).files) if added else self

    def select(self, allow: Sequence[str], ignore: Sequence[str]) -> "Manifest":
        """The files that match a pattern of ``allow`` (or all, if it is empty) and none of ``ignore``.

        Patterns are those of ``fnmatch`` on the whole path, so that ``*`` crosses ``/``; a pattern
        that ends in ``/`` means everything below that folder.  A layer stays: its name is no model's.
        """
        wanted = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in allow]
        refused = [f"{pattern}*" if pattern.endswith("/") else pattern for pattern in ignore]
        return self._replace(
            files=tuple(
                file
                for file in self.files
                if file.layer is not None
                or (
                    (not wanted or any(selects(pattern, file.path) for pattern in wanted))
                    and not any(fnmatchcase(file.path, pattern) for pattern in refused)
                )
            ),
        )

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
            "asked": self.asked,
            "patterns": list(self.patterns),
            **({"folders": list(self.folders)} if self.folders else {}),
            **({"last_known": self.last_known} if self.last_known else {}),
        }

    def lines(self, mtime_ns: Callable[[str], int | None] = lambda _: None) -> Iterator[str]:
        """The manifest as JSON text, a file a line: a hundred thousand files are never one string.

        ``mtime_ns`` tells when the file at a path was written: only a destination's own manifest says that.
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
        """Read what ``dumps`` wrote; raises ``IntegrityError`` when it is anything else."""
        try:
            data = json.loads(text)
            if data["format"] != 1:
                raise Unsupported(
                    f"{FILE_NAME} has format {data['format']!r}; this lading reads format 1",
                    hint="pull again, or use the lading that wrote it",
                )
            manifest = cls.of(File.from_json(item) for item in data["files"])
            manifest = manifest._replace(
                requested=data["requested"],
                resolved=data["resolved"],
                origin=data["origin"],
                version=data["version"],
                registry=data["registry"],
                pin=data.get("pin", ""),
                metadata=data["metadata"],
                archives=tuple(File.from_json(item) for item in data["archives"]),
                opened_by=data.get("opened_by", ""),
                seconds=data["seconds"],
                asked=data.get("asked", ""),
                patterns=tuple(data.get("patterns", ())),
                folders=tuple(map(safe_path, data.get("folders", ()))),
                last_known=data.get("last_known", ""),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
            raise IntegrityError(f"{FILE_NAME} is not a manifest", hint="pull again") from error
        if data.get("digest") != str(manifest.digest):
            raise IntegrityError(f"{FILE_NAME} does not match its own digest", hint="pull again")
        return manifest
