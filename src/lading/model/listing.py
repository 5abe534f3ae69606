"""The listing of a source: files, each with the size, validator and digests that the origin declares.  No I/O."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

from lading.errors import IntegrityError, LadingError
from lading.model.digest import Digest
from lading.model.manifest import MOST_BYTES, File, Manifest
from lading.model.paths import name_faults, shown_path
from lading.model.pattern import chooser, exact_pattern
from lading.model.signature import Signature

_MOST_FAULTS = 3


class Layer(NamedTuple):
    """Marks a file as an archive from which the model's tree is made.

    Layers are unpacked over each other by ``number``.  ``image_folder`` is for layers of a container image:
    only files below that folder of the image belong to the model, and whiteouts take effect
    (https://github.com/opencontainers/image-spec/blob/main/layer.md).
    """

    number: int = 0
    image_folder: str = ""


class Relay(NamedTuple):
    """Who may have the bytes of a file besides its origin: the dfdaemon at ``url``.

    ``name`` stands for exactly these bytes, a digest of them; with "" the file's URL and validator do.
    """

    url: str
    name: str = ""


class ListedFile(NamedTuple):
    """One file that a source has.

    ``path`` is relative to the model's root, with ``/``.  ``size_bytes`` is None if only the end of the
    response will tell it.  ``validator`` names the exact version at the origin (an ETag, a modification
    time); ``declared`` are the digests that the origin declares.
    ``locator`` is the source's own name for the file and never leaves the process.  ``ranged`` says that
    ranges of the file can be requested, ``layer`` that the tree in it is delivered.
    ``answers_differ`` says that responses with the listed version have another validator than the listing.
    ``content`` is the whole content of a file that no source has.
    ``refusal`` is why the source cannot deliver the file: an error only if the file is wanted.  A path that ends in
    a slash is then a folder that was not listed.
    ``scan`` is the verdict of the origin's own scanners, in its words; None if it was not asked for, or has none.
    ``relay`` is asked for the file instead of its origin.
    """

    path: str
    size_bytes: int | None
    validator: str | None = None
    declared: tuple[Digest, ...] = ()
    locator: str = ""
    ranged: bool = True
    layer: Layer | None = None
    content: bytes | None = None
    answers_differ: bool = False
    refusal: LadingError | None = None
    scan: str | None = None
    relay: Relay | None = None

    @property
    def shown(self) -> str:
        """The printable name of the file: the origin's whole path if the locator is one, else ``path``."""
        before = self.locator.removesuffix(self.path)
        return shown_path(self.locator if before.endswith("/") and before != self.locator else self.path)

    @property
    def fault(self) -> LadingError | None:
        """Why this file cannot be delivered, apart from its name; None if it can."""
        if self.refusal is None and self.size_bytes is not None and not 0 <= self.size_bytes <= MOST_BYTES:
            return IntegrityError(f"{self.shown!r} is said to have {str(self.size_bytes)[:40]} bytes")
        return self.refusal


class GeneratedFile(NamedTuple):
    """A file that a registry adds to a model, if the model has the file ``beside``, or if that is ""."""

    path: str
    content: bytes
    beside: str


class Listing(NamedTuple):
    """The files of one model, sorted by path, and where they are (URIs are redacted).

    ``resolved`` is the URI of exactly the listed version, if the source can pin it.  ``origin`` identifies the
    URI with which the source was opened, which may be a channel; it contains no secret.
    ``query_id`` identifies the request: the requested URI and the patterns.
    ``patterns`` are those that chose the files: ``+`` before one that allows, ``-`` before one that ignores.
    ``opened_by`` names the key that decrypts encrypted files; ``signature`` says who signed the files.
    """

    files: tuple[ListedFile, ...]
    requested: str = ""
    resolved: str = ""
    origin: str = ""
    version: str = ""
    registry: str = ""
    pin: str = ""
    metadata: Mapping[str, Any] = MappingProxyType({})
    opened_by: str = ""
    query_id: str = ""
    patterns: tuple[str, ...] = ()
    signature: Signature | None = None

    @classmethod
    def of(cls, files: Iterable[ListedFile]) -> "Listing":
        """A listing of a source's files; it keeps faulty ones, which are an error only if they are wanted."""
        return cls(tuple(sorted(files, key=lambda file: file.path)))

    @property
    def size_bytes(self) -> int:
        """The sum of all known sizes."""
        return sum(file.size_bytes or 0 for file in self.files)

    def by_path(self) -> dict[str, ListedFile]:
        return {file.path: file for file in self.files}

    def faults(self) -> Iterator[tuple[ListedFile, LadingError]]:
        """Every file that cannot be delivered together with the others, and why."""
        return name_faults(self.files, lambda file: file.fault)

    def refuse_faults(self) -> None:
        """Raise if files cannot be delivered; the hint says how to leave them out."""
        faults = list(islice(self.faults(), _MOST_FAULTS + 1))
        if not faults:
            return
        from shlex import quote

        error, shown = faults[0][1], faults[:_MOST_FAULTS]
        others = ", ".join(file.shown for file, _ in shown[1:]) + (" and more" if len(faults) > len(shown) else "")
        patterns = " ".join(f"--ignore {quote(exact_pattern(file.path))}" for file, _ in shown)
        rest = f"{patterns} delivers the rest" if len(faults) == len(shown) else f"leave them all out, as by {patterns}"
        raise error.rephrased(
            message=f"{error.message}; neither can be delivered: {others}" if others else "",
            hint="; ".join(filter(None, (error.hint, rest))),
        )

    def select(self, allow: Sequence[str], ignore: Sequence[str]) -> "Listing":
        """The listing with the files that these patterns choose.  Layers stay: patterns choose the files in them."""
        is_wanted = chooser(allow, ignore)
        return self._replace(files=tuple(file for file in self.files if file.layer is not None or is_wanted(file.path)))

    def with_generated(self, generated: Iterable[GeneratedFile]) -> "Listing":
        """The listing with the generated files added; a file of the origin with the same path stays."""
        known, added = self.by_path(), []
        for path, content, beside in generated:
            if (not beside or beside in known) and path not in known:
                digest = Digest.of(content)
                added.append(ListedFile(path, len(content), str(digest), (digest,), content=content))
        return self._replace(files=Listing.of([*self.files, *added]).files) if added else self

    def without(self, paths: Mapping[str, object]) -> "Listing":
        """The listing without the files with these paths."""
        return self._replace(files=tuple(file for file in self.files if file.path not in paths))

    def sealed(
        self, files: Iterable[File] = (), archives: tuple[File, ...] = (), folders: tuple[str, ...] = ()
    ) -> Manifest:
        """The manifest of a delivery of this listing, with these delivered files."""
        return Manifest(
            tuple(sorted(files, key=lambda file: file.path)),
            requested=self.requested,
            resolved=self.resolved,
            origin=self.origin,
            version=self.version,
            registry=self.registry,
            pin=self.pin,
            metadata=self.metadata,
            archives=archives,
            opened_by=self.opened_by,
            query_id=self.query_id,
            patterns=self.patterns,
            folders=folders,
            signature=self.signature,
        )
