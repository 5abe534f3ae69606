"""One model to fetch, and the results of its transfer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from lading.model.checks import VerifyMode
from lading.model.digest import Digest
from lading.model.listing import Layer, ListedFile, Listing
from lading.model.manifest import File, Manifest
from lading.settings.proxies import ProxyRule
from lading.sources.source import DeclaresDigests, Source
from lading.transfer.growing_file import GrowingFile
from lading.transfer.journal import Journal


class Unpacker(Protocol):
    """Makes a tree of archives."""

    def add(self, file: ListedFile, archive: GrowingFile) -> None:
        """Unpack the next one."""
        ...

    def finish(self) -> Manifest:
        """All files of the tree."""
        ...


class Job:
    """One model to fetch: its listing, and the stage that its files go to.

    ``unpacker`` makes a tree of the files that are layers; its result is ``unpacked``.
    ``blob_algorithm`` is the digest that a store keeps files by, "" without one.  ``relay_by`` is the rule by which large
    files may come from peers, None without one.
    ``expected`` are digests by path that the user or a registry gave.  ``sealed`` fills with the
    files that have been received and verified.
    """

    def __init__(
        self,
        source: Source,
        listed: Listing,
        stage: Path,
        journal: Journal,
        verify: VerifyMode,
        expected: Mapping[str, tuple[Digest, ...]],
        unpacker: Unpacker | None = None,
        *,
        blob_algorithm: str = "",
        relay_by: ProxyRule | None = None,
    ) -> None:
        self.source = source
        self.listed = listed
        self.stage = str(stage)
        self.journal = journal
        self.verify = verify
        self.ask_digests = source.digests if verify != "off" and isinstance(source, DeclaresDigests) else None
        self.expected = expected
        self.unpacker = unpacker
        self.blob_algorithm = blob_algorithm
        self.relay_by = relay_by
        self.layers = sorted((file for file in listed.files if file.layer), key=lambda file: file.layer or Layer())
        self.growing_files: dict[str, GrowingFile] = {}
        self.sealed: list[File] = []
        self.unpacked: Manifest | None = None
