"""What a model is made of: digests, files, the manifest, and its JSON form.  No I/O.

A *listed* manifest says what a source told: names, sizes, validators, perhaps digests.
A *sealed* manifest says what was delivered: every size and digest is known.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from shlex import quote
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import IntegrityError, LadingError, Unsupported, UsageError
from lading.uri import printable

# JSON, but not by its name: KServe's XGBoost server takes any file that ends in .json for its model.
FILE_NAME = ".lading.manifest"
WORKSPACE_NAME = ".lading"
RESERVED_NAMES = (FILE_NAME, WORKSPACE_NAME)
# What mkfs makes at the root of a volume: neither a model's nor a stray.
OF_A_VOLUME = "lost+found"

# What a file system counts in (off_t).
_MOST_BYTES = 2**63 - 1
# A path with nothing in it to look at twice: almost all of them.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,199})*")
# What stands for other characters in a pattern.
_WILDCARD = re.compile(r"[*?[]")
_MOST_FAULTS = 3
# Hexadecimal digits of each digest, weakest first: a file's identity is its strongest one.
HEX_DIGITS = {
    "crc32": 8,
    "crc32c": 8,
    "crc64nvme": 16,
    "md5": 32,
    "git-sha1": 40,
    "sha1": 40,
    "sha256": 64,
    "sha384": 96,
    "sha512": 128,
}
STRONG = frozenset({"sha256", "sha384", "sha512"})


class Digest(NamedTuple):
    """A digest of a whole file, printed as ``sha256:<lower-case hexadecimal>``.

    ``part_sizes_bytes`` makes it a *composite*: the digest of its parts' digests, as S3 computes
    it for multipart uploads
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html).
    ``hdfs-crc32`` and ``hdfs-crc32c`` are always composites, of a file's blocks.
    """

    algorithm: str
    value: str
    part_sizes_bytes: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read ``algorithm:hex``; raises ``UsageError`` for an unknown algorithm or a wrong length."""
        algorithm, _, value = text.partition(":")
        algorithm, value = algorithm.lower(), value.lower()
        if algorithm not in HEX_DIGITS:
            raise UsageError(
                f"{printable(text)!r} is not a digest",
                hint=f"write ALGORITHM:HEX with one of {', '.join(HEX_DIGITS)}",
            )
        if not re.fullmatch(f"[0-9a-f]{{{HEX_DIGITS[algorithm]}}}", value):
            raise UsageError(
                f"{printable(text)!r} is not a {algorithm} digest",
                hint=f"{algorithm} has {HEX_DIGITS[algorithm]} hexadecimal digits",
            )
        return cls(algorithm, value)

    @property
    def strength(self) -> int:
        """Larger for the stronger of two; equal for two of one algorithm."""
        return list(HEX_DIGITS).index(self.algorithm)

    def __str__(self) -> str:
        parts = f" of {len(self.part_sizes_bytes)} parts" if self.part_sizes_bytes else ""
        return f"{self.algorithm}:{self.value}{parts}"


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
        raise error.but(
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
                    (not wanted or any(_selects(pattern, file.path) for pattern in wanted))
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


def _selects(pattern: str, path: str) -> bool:
    """Whether the pattern matches the path or, of a folder that was not looked into, could match anything in it."""
    if not path.endswith("/"):
        return fnmatchcase(path, pattern)
    begins = _WILDCARD.split(pattern, maxsplit=1)[0]
    return begins.startswith(path) or (begins != pattern and path.startswith(begins))


def exact_pattern(path: str) -> str:
    """The pattern that matches this path, whatever characters it holds."""
    escaped = _WILDCARD.sub(lambda found: f"[{found[0]}]", path)
    # What a terminal does not show, and what would be an option.
    seen = "".join(character if character.isprintable() else "?" for character in escaped)
    return f"[-]{seen[1:]}" if seen.startswith("-") else seen


def shown_path(path: str) -> str:
    """``path`` as it may be printed, also if it is no Unicode."""
    return printable(path.encode("utf-8", "backslashreplace").decode())


def safe_path(path: str) -> str:
    """``path`` itself, if it names a file below the model's root and nowhere else.

    A listing is a stranger's input: a name that would leave the destination, or stand where
    lading keeps its own files, is refused and never repaired.
    """
    if why := why_unsafe(path):
        raise IntegrityError(f"the origin lists the name {shown_path(path)!r}, which {why}")
    return path


def why_unsafe(path: str) -> str:
    """What is wrong with ``path`` as the name of a file below the model's root, or ""."""
    if _PLAIN_PATH.fullmatch(path):
        return ""
    segments = path.split("/")
    if path.startswith("/"):
        return "begins with a slash below the model's own folder"
    if ".." in segments or "." in segments or "" in segments:
        return "has an empty, '.' or '..' segment"
    if "\0" in path:
        return "holds a NUL character"
    if segments[0] in RESERVED_NAMES:
        return "is a name that lading keeps for itself"
    try:
        if max(len(segment.encode()) for segment in segments) > 255:
            return "has a segment longer than 255 bytes"
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return ""
