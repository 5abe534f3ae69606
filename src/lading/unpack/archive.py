"""Unpacking one archive.  A name tells a zip; everything else is read as a tar."""

import errno

from lading.errors import IntegrityError, Unsupported
from lading.system.disk import disk_error
from lading.text.printable import printable
from lading.unpack.tar import DAMAGED_TAR, untar
from lading.unpack.tree import Archive, TreeWriter
from lading.unpack.zip import DAMAGED_ZIP, unzip


def unpack(name: str, writer: TreeWriter, archive: Archive) -> None:
    """Unpack the archive ``name`` by ``writer``.

    ``IntegrityError`` for members that would leave the tree, for a damaged or truncated archive, and
    for more bytes or members than are allowed; ``Unsupported`` for devices and encryption.
    """
    try:
        writer.root.mkdir()
        if name.lower().endswith(".zip"):
            unzip(archive, writer)
        else:
            archive.read_in_order()
            with archive.open() as stream:
                untar(stream, writer)
    # RecursionError: tarfile calls itself for a header that describes the next header.
    except (*DAMAGED_TAR, *DAMAGED_ZIP, EOFError, IndexError, RecursionError, ValueError) as error:
        raise IntegrityError(f"{printable(name)} is a damaged or truncated archive: {printable(str(error))}") from error
    except NotImplementedError as error:
        raise Unsupported(f"{printable(name)}: {error}", hint="pack it with the usual deflate") from error
    except OSError as error:
        if error.errno is None or (error.errno == errno.EINVAL and error.filename is None):
            # gzip and bz2 raise an OSError without a number for a damaged stream; a zip's directory
            # may point to a place before the start of the file.
            raise IntegrityError(f"{printable(name)} is a damaged or truncated archive: {error}") from error
        raise disk_error(error, error.filename or writer.root) from error
