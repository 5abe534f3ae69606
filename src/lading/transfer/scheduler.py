"""The scheduler over files and ranges, with the threads that fetch them.

Workers take ranges of files that are already begun before they begin another file, so that few
files are open at a time.  What is wrong with one file ends only that one; any other error stops everyone.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, takewhile
from pathlib import Path

from lading.errors import (
    DeadlineExceeded,
    IntegrityError,
    Interrupted,
    LadingError,
    NotRelayed,
    OriginChanged,
    Unavailable,
    Unsupported,
)
from lading.events import Event, FewThreads, FileFailed, RelayRefuted, Retried, Unverified
from lading.model.byte_range import ByteRange
from lading.model.checks import choose_checks
from lading.model.checksums import combined_crc
from lading.model.digest import Digest
from lading.model.listing import Layer, ListedFile, Relay
from lading.model.manifest import Manifest
from lading.model.uri import redact
from lading.network.throttle import Throttle
from lading.session import Session
from lading.system.cgroup import thread_limits
from lading.system.disk import disk_error
from lading.system.threads import no_thread, start_thread
from lading.text.printable import printable
from lading.transfer.concurrency import FILE_WORK_BYTES, Governor
from lading.transfer.count import Count
from lading.transfer.failures import OF_ONE_FILE, Failures
from lading.transfer.growing_file import GrowingFile
from lading.transfer.job import Job, Unpacker
from lading.transfer.range_writer import RangeWriter
from lading.transfer.relay import may_go_on, relay_rule
from lading.transfer.staged_file import OWN_CRC, StagedFile
from lading.transfer.task_queue import Tasks

_LOOK_EVERY_S = 0.05
# All threads together, since SIGTERM must end the process well within 5 s.
_STOP_TIMEOUT_S = 2.0
_INTERRUPT_AGAIN_S = 0.2
# So often a relay is asked again after a pause that the origin wanted, before the origin itself is asked.
_MOST_PAUSES = 2
# Configuration, tokenizer, index: what a server opens before it maps the weights.
_READ_FIRST = (".json", ".txt", ".yaml", ".model")


def transfer(jobs: Sequence[Job], session: Session) -> list[Manifest]:
    """Fetch every file of every job into its stage; returns the sealed manifests, in the jobs' order.

    On any error no thread of the transfer is left that could still write to a stage.
    """
    Transfer(jobs, session).run()
    for job in jobs:
        unverified = [file.path for file in job.sealed if not file.verified]
        if unverified:
            session.listener(Unverified(len(unverified), min(unverified), job.listed.resolved if len(jobs) > 1 else ""))
    return [job.listed.sealed(job.sealed) for job in jobs]


def _order(range_bytes: int, file: ListedFile) -> tuple[bool, bool, Layer, str]:
    """The sort key of files: descriptions first, then other small files, then large ones."""
    large, described = (file.size_bytes or 0) > range_bytes, file.path.endswith(_READ_FIRST)
    return large, not described, file.layer or Layer(), file.path


@contextmanager
def _about(job: Job, file: ListedFile) -> Iterator[None]:
    """Add to an ``OriginChanged`` which file has another version."""
    try:
        yield
    except OriginChanged as error:
        error.origin, error.path, error.listed = job.listed.origin, file.path, file.validator or ""
        raise


class Transfer:
    """One run of the scheduler: its queues and its workers."""

    def __init__(self, jobs: Sequence[Job], session: Session) -> None:
        run, bounds = session.run, session.bounds
        self._jobs = jobs
        self._run = run
        # The retries of control calls wait on the same event: a failure ends those, too.
        self._stop = run.stop
        self._retry = session.retry._replace(run=run._replace(listener=self._retried))
        self._bounds = bounds
        self._governor = Governor(bounds, run.clock.now())
        self._throttle = Throttle(session.settings.limits.max_rate_bytes_s, run)
        self._listener = session.listener
        self._interrupt = session.http.interrupt
        self._give_way = session.give_way
        # What a server reads first comes first, then what is small: it would end a transfer badly.
        in_turn = partial(sorted, key=partial(_order, bounds.range_bytes))
        begin = [map(partial(partial, self._fetch_file, job), in_turn(job.listed.files)) for job in jobs]
        self._count = Count(jobs, run, session.listener)
        self._tasks = Tasks(chain(*begin), self._count.total_files)
        self._readers: list[threading.Thread] = []
        self._reads_late = False
        self._error: BaseException | None = None
        self._failures = Failures()
        self._folders: set[str] = set()
        self._staged_files: set[StagedFile] = set()

    def run(self) -> None:
        """Work until every file has been received; raises errors after the last thread has ended."""
        workers: list[threading.Thread] = []
        until_s: float | None = None
        packed = [partial(self._read, job, job.unpacker) for job in self._jobs if job.unpacker is not None]
        unread = iter(packed)
        for _ in packed:
            self._tasks.add_work()
            read = partial(self._guarded, partial(self._read_each, unread))
            self._readers.append(threading.Thread(target=read, name="lading-unpack", daemon=True))
        try:
            with self._tasks.changed:
                self._start(workers)
                while self._tasks.left and self._error is None:
                    self._employ(workers)
                    self._tasks.changed.wait(_LOOK_EVERY_S)
                    self._listener(self._count.progress())
                    self._watch_deadline()
                    for job in self._jobs:
                        job.journal.flush()
        except (Interrupted, KeyboardInterrupt):
            # The process ends now: a thread that is stuck in the file system may be left behind.
            until_s = time.monotonic() + _STOP_TIMEOUT_S
            raise
        finally:
            self._stop.set()
            self._tasks.stop()
            alive = [thread for thread in chain(workers, self._readers) if not self._ended(thread, until_s)]
            # The number of a descriptor that is closed under a thread may be another file's when it writes.
            for staged in () if alive else self._staged_files:
                staged.close()
            if until_s is None:
                # The origin may have changed only: then another transfer follows.
                self._stop.clear()
        if self._error is not None:
            raise self._error
        if self._failures:
            raise self._failures.error()
        self._listener(self._count.progress())

    def _start(self, workers: list[threading.Thread]) -> None:
        """Begin with one worker, and with the readers as far as there are threads for them.

        One reader is enough to read all archives, more slowly; without any, a worker reads each archive after it was
        received.  Call with the lock held.
        """
        if self._tasks.left and not self._hire(workers):
            raise no_thread("to fetch with")
        self._reads_late = not list(takewhile(start_thread, self._readers))

    def _read_each(self, unread: Iterator[Callable[[], None]]) -> None:
        """Read the archives of one model after another, until no model is left."""
        while (read := next(unread, None)) is not None:
            read()

    def _ended(self, thread: threading.Thread, until_s: float | None) -> bool:
        """Wait for a thread to end, until ``until_s`` at the latest."""
        # One that a signal kept from being started is not alive, and cannot be joined.
        while thread.is_alive() and (until_s is None or time.monotonic() < until_s):
            # Again and again: a worker may have been between two connections.
            self._interrupt()
            thread.join(_INTERRUPT_AGAIN_S)
        return not thread.is_alive()

    def _employ(self, workers: list[threading.Thread]) -> None:
        """Start as many workers as the governor allows, and no more than there can be tasks."""
        work_bytes = self._count.fetched_bytes + self._count.done_files * FILE_WORK_BYTES
        before = self._governor.limit
        self._governor.observe(self._run.clock.now(), time.process_time(), work_bytes)
        most = min(self._governor.limit, self._count.total_files + self._count.total_bytes // self._bounds.range_bytes)
        while len(workers) < most:
            if not self._hire(workers):
                self._governor.cap(len(workers), self._run.clock.now())
                self._listener(FewThreads(len(workers), thread_limits()))
                break
        if self._governor.limit > before:
            self._tasks.changed.notify_all()

    def _hire(self, workers: list[threading.Thread]) -> bool:
        """One more worker, if there is a thread for it."""
        number = len(workers)
        worker = threading.Thread(target=self._work, args=(number,), name=f"lading-transfer-{number}", daemon=True)
        # Before it starts: a signal that comes between the two must find it.
        workers.append(worker)
        if not start_thread(worker):
            workers.pop()
            return False
        return True

    def _work(self, number: int) -> None:
        def may_work() -> bool:
            return number < self._governor.limit

        while (task := self._tasks.take(may_work)) is not None:
            self._guarded(task)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            with self._tasks.changed:
                if self._error is None:
                    self._error = error
                self._stop.set()
            self._tasks.stop()

    def _fetch_file(self, job: Job, file: ListedFile) -> None:
        self._alone(job, file, partial(self._begin_file, job, file))

    def _alone(self, job: Job, file: ListedFile, fetch: Callable[[], None]) -> None:
        """Let what is wrong with this file end nothing but this file."""
        try:
            if self._give_way:
                self._give_way()
            fetch()
        except OF_ONE_FILE as error:
            self._give_up(job, file, error)
        except (Interrupted, Unavailable):
            # Another range of it was given up, and when nothing else was left to do, this one was broken off.
            if (job, file.path) not in self._failures:
                raise

    def _give_up(self, job: Job, file: ListedFile, error: LadingError) -> None:
        """Go on without a file, so that one run names all that are wrong; raises where that is no use."""
        if job.unpacker is not None:
            # Who reads the layers would wait for this one.
            raise error
        with self._tasks.changed:
            if (job, file.path) in self._failures:
                return
            if not self._failures.add(job, file.path, error, self._count.done_files):
                raise self._failures.error()
        if self._count.total_files > 1:
            # Of the only file, the error alone is told.
            self._listener(FileFailed(printable(file.path), error.message))
        self._tasks.finish()

    def _begin_file(self, job: Job, file: ListedFile) -> None:
        choose = partial(self._choose, job, file)
        # What is delivered as the tree in it is kept as the files of that tree.
        blob_algorithm = "" if file.layer else job.blob_algorithm
        expected = job.expected.get(file.path, ())
        digests_on_resume = bool(job.verify == "off" or job.ask_digests or file.declared or expected)
        path = self._staged_path(job, file)
        staged = StagedFile(
            file,
            path,
            job.journal,
            choose,
            blob_algorithm=blob_algorithm,
            digests_on_resume=digests_on_resume,
            expected=expected,
            signed=job.listed.signature is not None,
        )
        self._staged_files.add(staged)
        resumes, rule = file.path in job.journal.earlier, relay_rule(job.relay_by, file)
        whole = not staged.splits or file.size_bytes is None or file.size_bytes <= self._bounds.range_bytes
        if job.ask_digests is not None and (resumes or not whole or rule is not None):
            # An answer with a part of the file does not tell the digest of the whole.
            ask = partial(job.ask_digests, file)
            with _about(job, file):
                staged.on_digests(self._retry.call(ask, what=f"the digest of {printable(file.path)}"))
        if file.size_bytes == 0 and not file.declared:
            # There is one empty file only: the listed size is all that can be verified.
            staged.on_digests((combined_crc(OWN_CRC, ()),))
        if resumes or not whole:
            staged.on_digests(())
        if rule is not None:
            staged.relay_by(rule)
        # For dfdaemon and its scheduler each request is work, and one is as fast as several.
        most_bytes = (file.size_bytes or 0) if staged.file.relay else self._bounds.range_bytes
        ranges = staged.recover(most_bytes)
        # What peers give is read only after it has been verified: it may have to be fetched again.
        if file.layer is not None and staged.splits and file.size_bytes and staged.file.relay is None:
            with self._tasks.changed:
                if not self._reads_late:
                    staged.growing = self._let_read(job, staged, file.size_bytes)
        if resumes:
            self._count.recovered(staged.received_bytes())
        self._fetch(job, staged, ranges)

    def _fetch(self, job: Job, staged: StagedFile, ranges: Sequence[ByteRange]) -> None:
        if not ranges:
            self._seal(job, staged)
            return
        staged.outstanding = len(ranges)
        # Of several layers those that wait to be read land meanwhile: only a single one must not run ahead.
        if staged.growing is not None and len(job.layers) == 1:
            self._tasks.hold_ranges(
                staged.growing,
                ((byte_range, partial(self._fetch_range, job, staged, byte_range)) for byte_range in ranges),
            )
            return
        first, *others = ranges
        if others:
            self._tasks.add_ranges(partial(self._fetch_range, job, staged, byte_range) for byte_range in others)
        self._read_range(job, staged, first)

    def _let_read(self, job: Job, staged: StagedFile, size_bytes: int) -> GrowingFile:
        """Make a layer readable while it is received."""
        growing = GrowingFile(
            staged.path,
            size_bytes,
            self._tasks.changed,
            self._check,
            staged.hashed_bytes,
            most_readers=max(1, int(self._bounds.cpus)),
        )
        for start, end in staged.received_ranges():
            growing.arrived(start, end)
        with self._tasks.changed:
            job.growing_files[staged.file.path] = growing
            self._tasks.changed.notify_all()
        return growing

    def _read(self, job: Job, unpacker: Unpacker) -> None:
        """Unpack the layers in their order, each while or after it is received."""
        for file in job.layers:
            with self._growing(job, file) as growing:
                unpacker.add(file, growing)
        job.unpacked = unpacker.finish()
        self._tasks.finish()

    def _growing(self, job: Job, file: ListedFile) -> GrowingFile:
        with self._tasks.changed:
            while file.path not in job.growing_files:
                self._check()
                self._tasks.changed.wait(_LOOK_EVERY_S)
        return job.growing_files[file.path]

    def _fetch_range(self, job: Job, staged: StagedFile, byte_range: ByteRange) -> None:
        if (job, staged.file.path) not in self._failures:
            self._alone(job, staged.file, partial(self._read_range, job, staged, byte_range))

    def _read_range(self, job: Job, staged: StagedFile, byte_range: ByteRange) -> None:
        sink = RangeWriter(staged, byte_range, self._check, self._on_bytes)
        asked_at: int | None = None
        pauses = 0

        def attempt() -> None:
            nonlocal asked_at, pauses
            if sink.at > byte_range.start and not sink.goes_on:
                sink.rewind()
            if staged.file.content is not None:
                sink.write(memoryview(staged.file.content)[sink.at :])
            elif sink.at != sink.byte_range.end:
                staged.left_relay |= asked_at is not None and not may_go_on(sink.at - asked_at)
                asked_at = sink.at
                try:
                    self._ask(job, staged, sink)
                except Unavailable as error:
                    # Past a relay whose origin asks for a pause, each node would read the whole model.
                    if error.retry_after_s and pauses < _MOST_PAUSES:
                        asked_at, pauses = None, pauses + 1
                    raise
            sink.finish()

        try:
            with _about(job, staged.file):
                self._retry.call(attempt, what=printable(staged.file.path), progress=lambda: sink.at)
        finally:
            sink.note()
        with self._tasks.changed:
            staged.outstanding -= 1
            last = staged.outstanding == 0
        if last:
            self._seal(job, staged)

    def _ask(self, job: Job, staged: StagedFile, sink: RangeWriter) -> None:
        """Read the rest of a range from the file's relay, or else from its origin."""
        file = staged.file
        if file.relay is not None:
            if not staged.left_relay and self._has_relayed(job, staged, sink, file.relay):
                return
            self._leave_relay(job, staged, sink)
            file = file._replace(relay=None)
        job.source.read(file, sink.rest, sink)

    def _has_relayed(self, job: Job, staged: StagedFile, sink: RangeWriter, relay: Relay) -> bool:
        """Whether the relay gave the rest of a range; not if the origin must be asked, for this one and all others."""
        sink.by_relay = True
        try:
            job.source.read(staged.file, sink.rest, sink)
        except NotRelayed:
            return False
        except (IntegrityError, OriginChanged, Unsupported) as error:
            # It is the relay that says so, of a name that stands for the listed bytes.
            self._listener(RelayRefuted(redact(relay.url), printable(staged.file.path), error.message))
            return False
        finally:
            sink.by_relay = False
        return True

    def _leave_relay(self, job: Job, staged: StagedFile, sink: RangeWriter) -> None:
        """Let the rest of a file come from its origin: as ranges, by several workers, which the relay was asked for at once."""
        staged.left_relay = True
        others = sink.cut(self._bounds.range_bytes)
        with self._tasks.changed:
            staged.outstanding += len(others)
        self._tasks.add_ranges(partial(self._fetch_range, job, staged, byte_range) for byte_range in others)

    def _seal(self, job: Job, staged: StagedFile) -> None:
        try:
            sealed = staged.seal()
        except IntegrityError as error:
            self._fetch_again(job, staged, error)
            return
        if staged.file.layer is not None and staged.growing is None:
            with self._tasks.changed:
                self._let_read(job, staged, sealed.size_bytes)
                if self._reads_late and job.unpacker is not None and len(job.growing_files) == len(job.layers):
                    self._tasks.add_ranges([partial(self._read, job, job.unpacker)])
        self._staged_files.discard(staged)
        staged.close()
        job.sealed.append(sealed)
        self._tasks.finish()

    def _fetch_again(self, job: Job, staged: StagedFile, error: IntegrityError) -> None:
        """Fetch a file with a wrong digest from the start: from its origin, if it came by a relay."""
        name = printable(staged.file.path)
        if staged.file.relay is not None:
            self._listener(RelayRefuted(redact(staged.file.relay.url), name, error.message))
            staged.file = staged.file._replace(relay=None)
        elif staged.refetched or staged.growing is not None:
            # Once, the wire may have damaged it.  Twice, it is the origin.
            Path(staged.path).unlink(missing_ok=True)
            if len(self._jobs) > 1:
                # Several may have a file of this name.
                raise error.rephrased(message=f"{job.listed.resolved}: {error.message}") from error
            raise error
        else:
            self._listener(Retried(name, error.message, 0.0))
            staged.refetched = True
        self._count.add(-staged.received_bytes())
        staged.restart()
        self._fetch(job, staged, staged.recover(self._bounds.range_bytes))

    def _choose(self, job: Job, file: ListedFile, declared: Sequence[Digest]) -> tuple[Digest, ...]:
        expected, by_peers = job.expected.get(file.path, ()), relay_rule(job.relay_by, file) is not None
        return choose_checks(declared, expected, job.verify, printable(file.path), by_peers=by_peers)

    def _staged_path(self, job: Job, file: ListedFile) -> str:
        # Strings, not paths, in what is done for every file: a Path costs as much as to open it.
        path = f"{job.stage}/{file.path}"
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as error:
                raise disk_error(error, folder) from error
            self._folders.add(folder)
        return path

    def _check(self) -> None:
        if self._stop.is_set():
            raise Interrupted("stopped")

    def _retried(self, event: Event) -> None:
        self._governor.trouble(self._run.clock.now())
        self._listener(event)

    def _on_bytes(self, size_bytes: int) -> None:
        self._count.add(size_bytes)
        if size_bytes > 0:
            self._throttle.spend(size_bytes)

    def _watch_deadline(self) -> None:
        if not self._run.has_time():
            raise DeadlineExceeded(
                f"the time allowed is over after {self._count.done_bytes} of {self._count.total_bytes} bytes",
                hint="run again to resume, or raise the deadline",
            )
