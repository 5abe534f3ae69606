"""A folder or file on this machine: ``/path``, ``./path`` or ``file:///path``.

Links are followed, as a copy for a reader elsewhere must: what is delivered are files.
"""

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from lading.errors import LadingError, NotFound, OriginChanged, Unavailable, Unsupported, UsageError
from lading.model.byte_range import ByteRange
from lading.model.listing import ListedFile, Listing
from lading.model.paths import RESERVED_NAMES
from lading.model.uri import ModelURI
from lading.network.client import HttpClient
from lading.settings.settings import Settings
from lading.sources.schemes import meant
from lading.sources.source import Sink
from lading.system.disk import disk_error
from lading.text.printable import printable
from lading.text.suggest import suggest

_BUFFER_BYTES = 256 * 1024


class LocalSource:
    """A path.  The validator of a file is its inode, modification time and size."""

    credential_kind = "file permissions"

    def __init__(self, uri: ModelURI, settings: Settings, http: HttpClient) -> None:
        if uri.authority not in (None, "", "localhost"):
            raise UsageError(
                f"{uri.redacted()} names the host {printable(str(uri.authority))}",
                hint="a file URI has three slashes: file:///path",
            )
        self.root = Path(unquote(uri.path) if uri.scheme else uri.path)
        self._local = threading.local()

    def list(self) -> Listing:
        try:
            if self.root.is_dir():
                listed = Listing.of(self._walk(self.root, "", ()))
            else:
                listed = Listing.of([_file(self.root.name, self.root)])
        except FileNotFoundError as error:
            raise (self._not_found() if not self.root.is_symlink() else _translated(error, self.root)) from error
        except OSError as error:
            raise _translated(error, self.root) from error
        if not listed.files:
            raise NotFound(f"{printable(str(self.root))} is an empty folder")
        return listed

    def read(self, file: ListedFile, byte_range: ByteRange, sink: Sink) -> None:
        buffer = self._buffer()
        try:
            descriptor = os.open(file.locator, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise OriginChanged(f"{printable(file.path)} vanished while it was read") from error
        except OSError as error:
            raise disk_error(error, file.locator) from error
        try:
            at = byte_range.start
            end = file.size_bytes if byte_range.end is None else byte_range.end
            while end is None or at < end:
                wanted = len(buffer) if end is None else min(len(buffer), end - at)
                try:
                    count = os.preadv(descriptor, [buffer[:wanted]], at)
                except OSError as error:
                    raise disk_error(error, file.locator) from error
                if count == 0:
                    break
                sink.write(buffer[:count])
                at += count
            # After the bytes, so that a writer that came in between is seen.
            if _validator(os.fstat(descriptor)) != file.validator:
                raise OriginChanged(f"{printable(file.path)} changed while it was read")
            if end is not None and at < end:
                raise Unavailable(f"{printable(file.path)} ends after {at} of {end} bytes")
        finally:
            os.close(descriptor)

    def _buffer(self) -> memoryview:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(_BUFFER_BYTES))
        buffer: memoryview = self._local.buffer
        return buffer

    def _walk(self, folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[ListedFile]:
        real = os.path.realpath(folder)
        if real in above:
            raise Unsupported(f"{printable(str(folder))} links to a folder that holds it")
        with os.scandir(folder) as entries:
            for entry in entries:
                if not prefix and entry.name in RESERVED_NAMES:
                    # The folder is itself a delivery: its manifest is about the model, not part of it.
                    continue
                path, is_folder = prefix + entry.name, False
                try:
                    is_folder = entry.is_dir()
                    if is_folder:
                        yield from self._walk(Path(entry.path), f"{path}/", (*above, real))
                    else:
                        yield _file(path, Path(entry.path))
                # What is not wanted stands in nobody's way.
                except Unsupported as error:
                    yield ListedFile(path, None, refusal=error)
                except OSError as error:
                    refusal = _translated(error, Path(entry.path))
                    yield ListedFile(f"{path}/" if is_folder else path, None, refusal=refusal)

    def _not_found(self) -> NotFound:
        hint = meant(str(self.root))
        with suppress(OSError):
            hint = hint or suggest(self.root.name, os.listdir(self.root.absolute().parent))
        return NotFound(f"there is no file or folder {printable(str(self.root))}", hint=hint)


def _translated(error: OSError, path: Path) -> LadingError:
    if error.errno in (errno.ENOENT, errno.ELOOP) and path.is_symlink():
        return Unsupported(f"{printable(str(path))} is a link that leads nowhere")
    return disk_error(error, path)


def _file(path: str, full_path: Path) -> ListedFile:
    status = full_path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Unsupported(f"{printable(str(full_path))} is neither a file nor a folder")
    return ListedFile(path, status.st_size, _validator(status), locator=str(full_path))


def _validator(status: os.stat_result) -> str:
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
