"""An origin in memory that implements the contract of a source: the story is told with it, and no socket is opened."""

import hashlib
from collections.abc import Callable, Sequence
from typing import ClassVar

from lading.errors import NotFound, OriginChanged
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.uri import ModelURI
from lading.network.client import HttpClient
from lading.settings.settings import Settings
from lading.sources.source import Sink

_PIECE_BYTES = 64 * 1024


class FakeSource:
    """``fake:///model`` is the model in ``models``; ``on_read`` may change it, or raise, before a range is sent."""

    credential_kind = "anonymous"
    models: ClassVar[dict[str, dict[str, bytes]]] = {}
    declared: ClassVar[dict[str, Sequence[Digest]]] = {}
    reads: ClassVar[list[tuple[str, int, int]]] = []
    on_read: ClassVar[Callable[[str], object] | None] = None

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        self._name = uri.path.strip("/")

    def list(self) -> Listing:
        files = self.models.get(self._name)
        if not files:
            raise NotFound(f"fake:///{self._name} has no files")
        return Listing.of(
            [ListedFile(path, len(data), _etag(data), self._digests(path)) for path, data in files.items()]
        )

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        if FakeSource.on_read is not None:
            FakeSource.on_read(file.path)
        data = self.models[self._name][file.path]
        if _etag(data) != file.validator:
            raise OriginChanged(f"{file.path} is another version now")
        end = len(data) if byte_range.end is None else byte_range.end
        self.reads.append((file.path, byte_range.start, end))
        sink.version(_etag(data))
        for start in range(byte_range.start, end, _PIECE_BYTES):
            sink.write(memoryview(data)[start : min(start + _PIECE_BYTES, end)])

    def _digests(self, path: str) -> tuple[Digest, ...]:
        return tuple(self.declared.get(path, ()))


def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()}"'
