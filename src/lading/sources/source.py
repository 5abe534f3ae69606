"""The contract of a source, and the optional abilities of some.

A source lists and reads; it does nothing else.  Retries, threads, hashing, selection, caching and progress
exist once, around it.  CONTRIBUTING.md walks through adding one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.signature import Attachment, Sought
from lading.model.uri import ModelURI


class Sink(Protocol):
    """Takes what a source reads."""

    def version(self, validator: str) -> None:
        """The validator that came with the answer, "" for none; called before the first piece.

        Raises ``OriginChanged`` where its bytes may not stand beside those that were read before.
        """
        ...

    def on_digests(self, declared: Sequence[Digest]) -> None:
        """Digests of the whole file that came with the answer; called before the first piece, if at all."""
        ...

    def write(self, piece: memoryview) -> None:
        """The next bytes, in order.  ``piece`` is valid until this returns: the source reuses its buffer."""
        ...


class Source(Protocol):
    """One model at one place.

    Both methods raise the errors of ``lading.errors``, translated by type or status, never by
    words in a message, and may be called from any thread.
    """

    credential_kind: str
    """What signs or authorises the requests, in words: ``environment``, ``anonymous``, …"""

    def list(self) -> Listing:
        """Every file with its size and validator.  ``NotFound`` if there is none, with names that are near."""
        ...

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        """Push the bytes of ``byte_range`` of exactly the version of ``file`` that was listed.

        One attempt.  Raises ``OriginChanged`` when the version is another one: a source whose answers name
        theirs tells it to the sink, which judges it; any other makes sure by itself.
        """
        ...


@runtime_checkable
class DeclaresDigests(Protocol):
    """A source that must be asked for digests, since neither its listing nor a range tells them."""

    def digests(self, file: ListedFile) -> Sequence[Digest]:
        """The digests that the origin declares for this file; costs a request."""
        ...


@runtime_checkable
class Pins(Protocol):
    """A source whose URI may name a channel (a tag, a branch): listing finds out what that stands for."""

    pin: ModelURI
    """Exactly what was listed, as a URI; known once ``list`` has returned."""


@runtime_checkable
class FindsPin(Protocol):
    """A source that can tell what its URI stands for at much less cost than a listing has."""

    def find_pin(self) -> ModelURI | None:
        """The pin that a listing would find now; None where only a listing can tell."""
        ...


@runtime_checkable
class KeepsAttachments(Protocol):
    """A source whose model has one digest, that of its manifest, and that keeps signatures of that beside the model."""

    manifest_digest: Digest | None
    """Of the manifest that was listed, which of an index is the index's; known once ``list`` has returned."""

    def attachments(self, sought: Sought) -> Iterator[Attachment]:
        """What lies beside the model, each read when it is asked for; of very many, some."""
        ...


@runtime_checkable
class OnThisMachine(Protocol):
    """A source whose files are on this machine, below ``root``."""

    root: Path
