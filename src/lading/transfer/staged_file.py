"""One file while it is received: its staged bytes, its digests, and the check that makes it complete."""

import os
import threading
from collections.abc import Callable, Sequence

from lading.errors import OriginChanged, Unavailable
from lading.model.byte_range import ByteRange, missing
from lading.model.checks import mismatch
from lading.model.checksums import SequentialHash, combined_crc, is_crc, running_crc
from lading.model.digest import STRONG, Digest
from lading.model.listing import ListedFile
from lading.model.manifest import File
from lading.model.validator import is_same, is_weak
from lading.settings.proxies import ProxyRule
from lading.system.disk import disk_error, start_writeback
from lading.text.printable import printable
from lading.transfer.growing_file import GrowingFile
from lading.transfer.journal import Journal, Received
from lading.transfer.relay import choose_relay

_READ_BACK_BYTES = 1 << 20
_WRITE_BACK_BYTES = 8 << 20
OWN_CRC = "crc32"
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

ChooseChecks = Callable[[Sequence[Digest]], tuple[Digest, ...]]


class StagedFile:
    """A file that is being staged at ``path``.

    Ranges arrive in any order.  CRCs are kept per range and combined at the end.  A digest that needs
    the bytes in order is updated with each piece that is the next one; other pieces are read back
    from the page cache as soon as the gap before them is closed.
    """

    def __init__(
        self,
        file: ListedFile,
        path: str,
        journal: Journal,
        choose: ChooseChecks,
        *,
        blob_algorithm: str = "",
        digests_on_resume: bool = True,
        expected: Sequence[Digest] = (),
        signed: bool = False,
    ) -> None:
        """``blob_algorithm`` is the algorithm of a digest that is computed whether it is declared or not; "" for none.

        ``expected`` are those of the digests to check that somebody else than the origin declares, ``signed`` says
        that these are of a signature.
        ``digests_on_resume`` says that the digests to check are known although only a part of the file is requested.
        """
        self.file = file
        self.path = path
        # Without a validator, parts of two answers could be parts of two versions.
        self.splits = file.ranged and file.validator is not None
        # The validator of every answer; where answers differ from the listing, the first one's.
        self._pinned = "" if file.answers_differ else file.validator or ""
        self.outstanding = 0
        self.growing: GrowingFile | None = None
        self.refetched = False
        # Whether the file comes from its origin from now on, although it has a relay.
        self.left_relay = False
        self.journal = journal
        self._choose = choose
        self._expected = expected
        self._signed = signed
        self._wrong: tuple[Digest, Digest] | None = None
        self._blob_algorithm = blob_algorithm
        self._digests_on_resume = self._noting = digests_on_resume
        self._checks: tuple[Digest, ...] | None = None
        self._sequential: list[SequentialHash] = []
        self.crcs: list[str] = [OWN_CRC]
        self._received: dict[int, tuple[int, dict[str, int]]] = {}
        self._lock = threading.Lock()
        self._hashing = threading.Lock()
        self._staged_bytes = 0
        try:
            try:
                # New, as almost all are: nothing in it to look at.
                self.descriptor = os.open(path, _OPEN_FLAGS | os.O_EXCL, 0o666)
            except FileExistsError:
                self.descriptor, self._staged_bytes = _open_staged(path)
        except OSError as error:
            raise disk_error(error, path) from error

    def close(self) -> None:
        os.close(self.descriptor)

    def answered(self, validator: str, *, whole: bool) -> bool:
        """Accept an answer with this validator, or raise ``OriginChanged``; returns whether parts of other answers may follow.

        ``whole`` says that the answer has the whole file, and that no other part is staged.  Parts are combined
        only under one strong validator (RFC 9110, 15.3.7.3).  A whole answer is one version, unless its validator
        differs from the known one by the weak comparison (8.8.3.2).
        """
        strong = validator if self.splits and not is_weak(validator) else ""
        with self._lock:
            if self.file.answers_differ:
                self._pinned = self._pinned or strong
            pinned = self._pinned
        if strong and strong == pinned:
            return True
        # A reader that follows has taken the beginning already: nothing can begin again under it.
        if whole and self.growing is None and (not validator or not pinned or is_same(validator, pinned)):
            return False
        changed = OriginChanged(f"{printable(self.file.path)} changed while it was read")
        changed.answered = validator
        raise changed

    def on_digests(self, declared: Sequence[Digest]) -> None:
        """Decide what to check; the first call counts, since a digest cannot begin in the middle.

        Not safe from several threads: of a file with several ranges, call it before any is read.
        """
        if self._checks is not None:
            return
        self._checks = self._choose((*self.file.declared, *declared))
        self._noting = self._digests_on_resume or not declared
        self.crcs += [check.algorithm for check in self._checks if is_crc(check) and check.algorithm != OWN_CRC]
        wanted = [check for check in self._checks if not is_crc(check)]
        if self._blob_algorithm and not any(_is_whole(check, self._blob_algorithm) for check in wanted):
            wanted.append(Digest(self._blob_algorithm, ""))
        self._sequential = [SequentialHash(check, self.file.size_bytes) for check in wanted]

    def relay_by(self, rule: ProxyRule) -> None:
        """Let the file come from peers, if it is known what to check and they cannot forge that.  Call before any range is read."""
        known = self._checks is not None or self.file.declared or self._expected
        checks = (self._choose(self.file.declared) if self._checks is None else self._checks) if known else ()
        self.file = self.file._replace(relay=choose_relay(rule, self.file, checks))
        if self.file.relay is not None:
            self.on_digests(())

    def recover(self, most_bytes: int) -> list[ByteRange]:
        """Take over verified ranges of an earlier run; returns the ranges still to fetch."""
        size = self.file.size_bytes
        if size is None:
            # What an attempt left that knew the size would stay behind a shorter file's end.
            os.ftruncate(self.descriptor, 0)
            return [ByteRange(0, None)]
        earlier = self.journal.earlier.pop(self.file.path, [])
        covered, pinned = 0, ""
        for received in sorted(earlier, key=lambda received: (received.start, -received.end)):
            if (received.size_bytes, received.listed) != (size, self.file.validator):
                continue
            if pinned not in ("", received.answered):
                # Of another version, or so it was called.
                continue
            if received.start < covered:
                # CRCs of ranges that overlap cannot be put together.
                continue
            crcs = self._read_back_crcs(received.start, received.end)
            if crcs.get(OWN_CRC) == received.crc32:
                self._received[received.start] = (received.end, crcs)
                covered, pinned = received.end, received.answered
        if not self.splits and self.received_bytes() != size:
            self._received.clear()
        if self._received and pinned != self._pinned:
            # An earlier run found out what answers are called: what is still to come must be called the same.
            self._pinned, self.file = pinned, self.file._replace(answers_differ=True)
        # Bytes behind the end would be delivered too, and no digest would see them.
        usable_bytes = size if self._received else 0
        if self._staged_bytes > usable_bytes:
            os.ftruncate(self.descriptor, usable_bytes)
        self._catch_up()
        return missing(size, self.received_ranges(), most_bytes if self.splits else max(size, 1))

    def received_bytes(self) -> int:
        return sum(end - start for start, end in self.received_ranges())

    def hashed_bytes(self) -> int:
        """The position before which no digest will read staged bytes back."""
        return min((sequential.position for sequential in self._sequential), default=self.file.size_bytes or 0)

    def write(self, range_start: int, at: int, piece: memoryview) -> None:
        """Write bytes of a range, and update every digest that expects them next."""
        left = piece
        offset = at
        while left:
            try:
                count = os.pwrite(self.descriptor, left, offset)
            except OSError as error:
                raise disk_error(error, self.path) from error
            left, offset = left[count:], offset + count
        # Only the thread whose range is the next one finds its own position here.  If another one
        # is hashing just now, this piece is read back later.
        if any(sequential.position == at for sequential in self._sequential) and self._hashing.acquire(blocking=False):
            try:
                for sequential in self._sequential:
                    if sequential.position == at:
                        sequential.update(piece)
            finally:
                self._hashing.release()
        if self.growing is not None:
            self.growing.arrived(range_start, offset)

    def note(self, start: int, end: int, crc32: int) -> None:
        """Note in the journal how much of the range at ``start`` has been received."""
        size, validator = self.file.size_bytes, self.file.validator
        # Of what is not told again nothing is taken over: the next run would deliver it unverified.
        if size is None or not validator or not self._noting or self._is_being_read:
            return
        if self._pinned not in ("", validator):
            validator += f"\n{self._pinned}"
        if self.splits or end - start == size:
            self.journal.append(Received(self.file.path, size, validator, start, end, crc32))

    def finish_range(self, start: int, end: int, crcs: dict[str, int]) -> None:
        """Note that a whole range has been received."""
        with self._lock:
            self._received[start] = (end, crcs)
        if end - start >= _WRITE_BACK_BYTES and not self._is_being_read:
            start_writeback(self.descriptor, start, end - start)
        self._catch_up()

    def restart(self) -> None:
        """Forget everything, for a second try at a file whose digest was wrong."""
        with self._lock:
            self._received.clear()
            size = self.file.size_bytes
            self._sequential = [SequentialHash(sequential.wanted, size) for sequential in self._sequential]
            os.ftruncate(self.descriptor, 0)

    def forget(self) -> None:
        """Forget the digests to check: the next answer gives those of its own version."""
        self._checks = None
        self._sequential = []
        self.crcs = [OWN_CRC]

    def seal(self) -> File:
        """The file as delivered; raises ``IntegrityError`` when a digest does not match."""
        self.on_digests(())
        self._catch_up()
        ranges = [(start, end, crcs) for start, (end, crcs) in sorted(self._received.items())]
        # Up to the first gap: what is not there must not be taken for zeros.
        size = self._frontier(0)
        if self.file.size_bytes not in (None, size):
            raise Unavailable(f"{printable(self.file.path)} ends after {size} of {self.file.size_bytes} bytes")

        def whole(name: str) -> Digest:
            return combined_crc(name, ((crcs[name], end - start) for start, end, crcs in ranges))

        checks = self._checks or ()
        found = [(check, whole(check.algorithm)) for check in checks if is_crc(check)]
        found += [(sequential.wanted, sequential.digest()) for sequential in self._sequential]
        wrong = self._judged(found)
        return File(
            self.file.path,
            size,
            whole(OWN_CRC),
            self.file.validator,
            verified=tuple(check for check in checks if check not in wrong),
            blob_digest=next((each for _, each in found if _is_whole(each, self._blob_algorithm)), None),
        )

    def _judged(self, found: Sequence[tuple[Digest, Digest]]) -> list[Digest]:
        """Raise if a digest does not match; returns mismatches that are not about this file.

        If a digest that cannot be forged matches, a wrong one of the origin does not describe these bytes.
        """
        wrong = [(wanted, each) for wanted, each in found if wanted.value and each != wanted]
        has_strong_match = any(wanted == each and wanted.algorithm in STRONG for wanted, each in found)
        for wanted, each in wrong:
            by = "" if wanted in self._expected else self._declared_by(wanted)
            if has_strong_match and by:
                continue
            again, self._wrong = self._wrong == (wanted, each), (wanted, each)
            final, signed = self.growing is not None, self._signed and not by and wanted.algorithm in STRONG
            raise mismatch(printable(self.file.path), wanted, each, by=by, again=again, final=final, signed=signed)
        return [wanted for wanted, _ in wrong]

    def _declared_by(self, digest: Digest) -> str:
        """Which part of an answer declares a digest: an ETag may be an MD5, or any text with as many digits."""
        is_etag = digest.algorithm == "md5" and is_same(f'"{digest.value}"', self.file.validator or "")
        return "its ETag" if is_etag else "what its origin declares"

    def received_ranges(self) -> list[tuple[int, int]]:
        """First byte and end of each received range."""
        return [(start, end) for start, (end, _) in self._received.items()]

    @property
    def _is_being_read(self) -> bool:
        """Whether the file is read and removed meanwhile, so that a next run could not take over any of it."""
        return self.growing is not None and self.growing.begun

    def _frontier(self, position: int) -> int:
        """The end of the unbroken run of received ranges that begins at or before ``position``."""
        for start, (end, _) in sorted(self._received.items()):
            if start > position:
                break
            position = max(position, end)
        return position

    def _behind(self) -> bool:
        with self._lock:
            return any(self._frontier(each.position) > each.position for each in self._sequential)

    def _catch_up(self) -> None:
        """Update the sequential digests with pieces that came out of order, up to the first gap.

        The thread that closes a gap does this.  If another thread is doing it already, that one looks
        again after it has released the lock.
        """
        while self._sequential and self._behind() and self._hashing.acquire(blocking=False):
            try:
                buffer = memoryview(bytearray(_READ_BACK_BYTES))
                for sequential in self._sequential:
                    with self._lock:
                        frontier = self._frontier(sequential.position)
                    while sequential.position < frontier:
                        wanted = min(len(buffer), frontier - sequential.position)
                        count = self._read_back(buffer[:wanted], sequential.position)
                        sequential.update(buffer[:count])
            finally:
                self._hashing.release()

    def _read_back(self, buffer: memoryview, at: int) -> int:
        try:
            count = os.preadv(self.descriptor, [buffer], at)
        except OSError as error:
            raise disk_error(error, self.path) from error
        if count == 0:
            raise Unavailable(f"{printable(self.path)} was truncated by another process")
        return count

    def _read_back_crcs(self, start: int, end: int) -> dict[str, int]:
        """CRCs of staged bytes; empty when the stage holds fewer."""
        running = {name: running_crc(name) for name in self.crcs}
        crcs = dict.fromkeys(running, 0)
        buffer = memoryview(bytearray(_READ_BACK_BYTES))
        while start < end:
            try:
                count = self._read_back(buffer[: min(len(buffer), end - start)], start)
            except Unavailable:
                return {}
            for name, function in running.items():
                crcs[name] = function(buffer[:count], crcs[name])
            start += count
        return crcs


def _open_staged(path: str) -> tuple[int, int]:
    """The file that an earlier run left at ``path``, and its size."""
    descriptor = os.open(path, _OPEN_FLAGS, 0o666)
    status = os.fstat(descriptor)
    if status.st_nlink == 1:
        return descriptor, status.st_size
    # A link that an interrupted publication made: writing would change the old model.
    os.close(descriptor)
    os.unlink(path)
    return os.open(path, _OPEN_FLAGS | os.O_EXCL, 0o666), 0


def _is_whole(digest: Digest, algorithm: str) -> bool:
    return digest.algorithm == algorithm and not digest.part_sizes_bytes
