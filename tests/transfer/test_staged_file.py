"""A file on its way in: any order of ranges, any interruption, and the digests are those of the bytes."""

import hashlib
import os
import random
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading.errors import IntegrityError, OriginChanged, Unavailable, UsageError
from lading.model.byte_range import ByteRange
from lading.model.checks import choose_checks
from lading.model.checksums import SequentialHash, new_hash
from lading.model.digest import HEX_DIGITS, Digest
from lading.model.listing import ListedFile
from lading.model.manifest import File
from lading.transfer.journal import Journal, Received, read_journal
from lading.transfer.range_writer import RangeWriter
from lading.transfer.staged_file import StagedFile

DATA = random.Random(7).randbytes(10_000)
# Of parts, git names nothing.
COMPOSITE = sorted(HEX_DIGITS.keys() - {"git-sha1"})


def digest_of(algorithm: str, data: bytes = DATA, parts: tuple[int, ...] = ()) -> Digest:
    """Computed apart from lading: hashlib, zlib, awscrt, blake3."""
    if parts:
        pieces, at = [], 0
        for size in parts:
            pieces.append(bytes.fromhex(digest_of(algorithm, data[at : at + size]).value))
            at += size
        return Digest(algorithm, digest_of(algorithm, b"".join(pieces)).value, parts)
    if algorithm == "git-sha1":
        return Digest(algorithm, hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest())
    if algorithm in hashlib.algorithms_available:
        return Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
    if algorithm == "blake3":
        return Digest(algorithm, blake3(data).hexdigest())
    from awscrt import checksums

    compute = zlib.crc32 if algorithm == "crc32" else getattr(checksums, algorithm)
    return Digest(algorithm, f"{compute(data):0{HEX_DIGITS[algorithm]}x}")


@contextmanager
def staged_file_of(
    folder: Path,
    file: ListedFile | None = None,
    expected: Sequence[Digest] = (),
    origin: str = "o",
    digests_on_resume: bool = True,
) -> Iterator[StagedFile]:
    file = file or ListedFile("f", len(DATA), "v1")
    with closing(Journal(folder / "journal", origin)) as journal:
        staged_file = StagedFile(
            file,
            str(folder / "staged"),
            journal,
            lambda declared: choose_checks(declared, expected, "auto", file.path),
            digests_on_resume=digests_on_resume,
            expected=expected,
        )
        with closing(staged_file):
            yield staged_file


def land(staged_file: StagedFile, byte_range: ByteRange, data: bytes = DATA, piece_bytes: int = 700) -> RangeWriter:
    sink = RangeWriter(staged_file, byte_range, lambda: None, lambda count: None)
    end = len(data) if byte_range.end is None else byte_range.end
    for at in range(byte_range.start, end, piece_bytes):
        sink.write(memoryview(data)[at : min(at + piece_bytes, end)])
    sink.finish()
    return sink


def spans_of(cuts: Sequence[int]) -> list[ByteRange]:
    edges = [0, *sorted(set(cuts)), len(DATA)]
    return [ByteRange(start, end) for start, end in pairwise(edges)]


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(1, len(DATA) - 1), max_size=8),
    st.randoms(use_true_random=False),
    st.lists(st.sampled_from(sorted(HEX_DIGITS)), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(1, len(DATA) - 1), max_size=5),
    st.sampled_from(COMPOSITE),
)
def test_digests_are_right_whatever_the_order_of_the_ranges(
    cuts: list[int], shuffle: random.Random, algorithms: list[str], part_cuts: list[int], composite: str
) -> None:
    edges = [0, *sorted(set(part_cuts)), len(DATA)]
    parts = tuple(end - start for start, end in pairwise(edges))
    expected = [digest_of(name) for name in algorithms] + [digest_of(composite, parts=parts)]
    ranges = spans_of(cuts)
    shuffle.shuffle(ranges)
    with tempfile.TemporaryDirectory() as folder, staged_file_of(Path(folder), expected=expected) as staged_file:
        assert staged_file.recover(len(DATA)) == [ByteRange(0, len(DATA))]
        staged_file.on_digests(())
        for byte_range in ranges:
            land(staged_file, byte_range)
        sealed = staged_file.seal()
        assert sealed.verified == tuple(expected)
        assert sealed.digest == digest_of("crc32")
        assert (Path(folder) / "staged").read_bytes() == DATA


@pytest.mark.parametrize(
    ("algorithm", "composite"),
    [(name, False) for name in sorted(HEX_DIGITS)] + [(name, True) for name in COMPOSITE],
)
def test_one_wrong_byte_is_found_by_every_digest(tmp_path: Path, algorithm: str, composite: bool) -> None:
    wanted = digest_of(algorithm, parts=(4000, 4000, 2000) if composite else ())
    wrong = bytearray(DATA)
    wrong[5000] ^= 1
    with staged_file_of(tmp_path, expected=[wanted]) as staged_file:
        staged_file.on_digests(())
        for byte_range in reversed(spans_of([3000, 6000])):
            land(staged_file, byte_range, bytes(wrong))
        with pytest.raises(IntegrityError, match="is expected"):
            staged_file.seal()


def test_threads_that_land_ranges_at_once_hash_every_byte_once_and_in_order(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(2_000_000)
    wanted = digest_of("sha256", data)
    with staged_file_of(tmp_path, ListedFile("f", len(data), "v"), [wanted]) as staged_file:
        staged_file.on_digests(())
        ranges = [ByteRange(at, min(at + 50_000, len(data))) for at in range(0, len(data), 50_000)]
        random.Random(5).shuffle(ranges)
        shares = [ranges[n::8] for n in range(8)]
        start = threading.Barrier(8)

        def work(share: list[ByteRange]) -> None:
            start.wait()
            for byte_range in share:
                land(staged_file, byte_range, data, 9000)

        threads = [threading.Thread(target=work, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert staged_file.seal().verified == (wanted,)


def test_a_file_with_a_gap_is_never_sealed(tmp_path: Path) -> None:
    with staged_file_of(tmp_path) as staged_file:
        land(staged_file, ByteRange(0, 3000))
        land(staged_file, ByteRange(6000, len(DATA)))
        with pytest.raises((Unavailable, IntegrityError)):
            staged_file.seal()


@pytest.mark.parametrize("until", [0, 9000])
def test_a_file_that_ends_early_is_never_sealed(tmp_path: Path, until: int) -> None:
    with staged_file_of(tmp_path) as staged_file:
        if until:
            land(staged_file, ByteRange(0, until))
        with pytest.raises(Unavailable, match="ends after"):
            staged_file.seal()


def test_a_file_of_unknown_size_ends_where_it_ends(tmp_path: Path) -> None:
    with staged_file_of(tmp_path, ListedFile("f", None, None, ranged=False), [digest_of("sha1")]) as staged_file:
        assert staged_file.recover(100) == [ByteRange(0, None)]
        land(staged_file, ByteRange(0, None))
        sealed = staged_file.seal()
    assert sealed.size_bytes == len(DATA)
    assert sealed.digest == digest_of("crc32")


def test_a_file_of_unknown_size_keeps_nothing_of_an_attempt_that_knew_it(tmp_path: Path) -> None:
    (tmp_path / "staged").write_bytes(DATA + DATA)
    with staged_file_of(tmp_path, ListedFile("f", None, None, ranged=False)) as staged_file:
        assert staged_file.recover(100) == [ByteRange(0, None)]
        land(staged_file, ByteRange(0, None))
        staged_file.seal()
    assert (tmp_path / "staged").read_bytes() == DATA


def test_an_empty_file_is_sealed_with_the_digest_of_nothing(tmp_path: Path) -> None:
    with staged_file_of(tmp_path, ListedFile("f", 0, "v")) as staged_file:
        assert staged_file.recover(100) == []
        assert staged_file.seal().digest == digest_of("crc32", b"")
    assert (tmp_path / "staged").read_bytes() == b""


def test_only_the_first_declaration_counts(tmp_path: Path) -> None:
    with staged_file_of(tmp_path) as staged_file:
        staged_file.on_digests([digest_of("sha1")])
        staged_file.on_digests([digest_of("md5", b"something else")])
        land(staged_file, ByteRange(0, len(DATA)))
        assert staged_file.seal().verified == (digest_of("sha1"),)


def test_nothing_that_the_source_alone_knows_is_in_the_sealed_file(tmp_path: Path) -> None:
    file = ListedFile("f", len(DATA), "v", declared=(digest_of("md5"),), locator="/secret/place")
    with staged_file_of(tmp_path, file) as staged_file:
        land(staged_file, ByteRange(0, len(DATA)))
        sealed = staged_file.seal()
    assert "/secret/place" not in repr(sealed)
    assert sealed.verified == (digest_of("md5"),)


# ---- resume --------------------------------------------------------------------------------


def interrupted(folder: Path, *ranges: ByteRange, file: ListedFile | None = None) -> None:
    with staged_file_of(folder, file) as staged_file:
        staged_file.recover(len(DATA))
        for byte_range in ranges:
            land(staged_file, byte_range)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, len(DATA) - 1), max_size=6), st.data())
def test_a_second_run_fetches_only_what_is_missing_and_the_result_is_the_same(
    cuts: list[int], data: st.DataObject
) -> None:
    ranges = spans_of(cuts)
    received = data.draw(st.lists(st.sampled_from(ranges), unique=True))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        interrupted(folder, *received)
        with staged_file_of(folder, expected=[digest_of("sha256"), digest_of("crc64nvme")]) as staged_file:
            staged_file.on_digests(())
            missing = staged_file.recover(1000)
            have = {at for byte_range in received for at in range(byte_range.start, byte_range.end or 0)}
            assert {at for byte_range in missing for at in range(byte_range.start, byte_range.end or 0)} == set(
                range(len(DATA))
            ) - have
            for byte_range in missing:
                land(staged_file, byte_range)
            assert staged_file.seal().digest == digest_of("crc32")
        assert (folder / "staged").read_bytes() == DATA


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_staged_bytes_that_changed_since_are_fetched_again(flips: list[tuple[int, int]]) -> None:
    ranges = spans_of([2000, 4000, 6000, 8000])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        interrupted(folder, *ranges)
        staged = bytearray((folder / "staged").read_bytes())
        for at, flip in flips:
            staged[at] ^= flip
        changed = {
            n
            for n, byte_range in enumerate(ranges)
            if staged[byte_range.start : byte_range.end] != DATA[byte_range.start : byte_range.end]
        }
        (folder / "staged").write_bytes(staged)
        with staged_file_of(folder) as staged_file:
            staged_file.on_digests(())
            missing = staged_file.recover(2000)
            assert missing == [ranges[n] for n in sorted(changed)]
            for byte_range in missing:
                land(staged_file, byte_range)
            assert staged_file.seal().digest == digest_of("crc32")
        assert (folder / "staged").read_bytes() == DATA


@pytest.mark.parametrize("length", [0, 1, 2000, 2500, 9999])
def test_a_stage_cut_short_by_a_power_cut_is_filled_up(tmp_path: Path, length: int) -> None:
    interrupted(tmp_path, *spans_of([2000, 4000]))
    os.truncate(tmp_path / "staged", length)
    with staged_file_of(tmp_path, expected=[digest_of("sha256")]) as staged_file:
        staged_file.on_digests(())
        for byte_range in staged_file.recover(2000):
            land(staged_file, byte_range)
        staged_file.seal()
    assert (tmp_path / "staged").read_bytes() == DATA


def test_a_link_in_the_stage_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "staged").symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError), staged_file_of(tmp_path):
        pytest.fail("a link was followed")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_a_stage_that_is_longer_than_the_file_is_cut(tmp_path: Path) -> None:
    interrupted(tmp_path, ByteRange(0, 4000))
    with open(tmp_path / "staged", "r+b") as staged:
        staged.seek(len(DATA) + 50)
        staged.write(b"what was here before")
    with staged_file_of(tmp_path) as staged_file:
        staged_file.on_digests(())
        for byte_range in staged_file.recover(len(DATA)):
            land(staged_file, byte_range)
        assert staged_file.seal().size_bytes == len(DATA)
    assert (tmp_path / "staged").read_bytes() == DATA


@pytest.mark.parametrize(
    "now",
    [
        ListedFile("f", len(DATA), "v2"),
        ListedFile("f", len(DATA) - 1, "v1"),
        ListedFile("f", len(DATA), None),
        ListedFile("f", None, "v1"),
    ],
)
def test_another_version_starts_from_nothing(tmp_path: Path, now: ListedFile) -> None:
    interrupted(tmp_path, *spans_of([5000]))
    with staged_file_of(tmp_path, now) as staged_file:
        staged_file.on_digests(())
        [whole] = staged_file.recover(len(DATA))
        assert whole == ByteRange(0, now.size_bytes)
        assert staged_file.received_bytes() == 0


def test_another_origin_starts_from_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path, *spans_of([5000]))
    with staged_file_of(tmp_path, origin="elsewhere") as staged_file:
        staged_file.on_digests(())
        assert staged_file.recover(len(DATA)) == [ByteRange(0, len(DATA))]


def test_a_file_without_ranges_resumes_only_when_it_is_whole(tmp_path: Path) -> None:
    file = ListedFile("f", len(DATA), "v1", ranged=False)
    interrupted(tmp_path, ByteRange(0, 5000))
    with staged_file_of(tmp_path, file) as staged_file:
        staged_file.on_digests(())
        assert staged_file.recover(1000) == [ByteRange(0, len(DATA))]
        land(staged_file, ByteRange(0, len(DATA)))
    with staged_file_of(tmp_path, file) as staged_file:
        staged_file.on_digests(())
        assert staged_file.recover(1000) == []
        assert staged_file.seal().digest == digest_of("crc32")


def test_a_file_without_a_validator_is_not_split_and_not_noted(tmp_path: Path) -> None:
    file = ListedFile("f", len(DATA), None)
    with staged_file_of(tmp_path, file) as staged_file:
        assert staged_file.recover(1000) == [ByteRange(0, len(DATA))]
        land(staged_file, ByteRange(0, len(DATA)))
    with staged_file_of(tmp_path, file) as staged_file:
        assert staged_file.journal.earlier == {}


def test_ranges_of_a_journal_that_overlap_do_not_spoil_the_digest(tmp_path: Path) -> None:
    # Another version of lading, with ranges of another size, may have gone on with the same journal.
    interrupted(tmp_path, *spans_of([5000]))
    journal = Journal(tmp_path / "journal", "o")
    for start, end in ((2000, 7000), (0, 3000), (9000, 10_000)):
        journal.append(Received("f", len(DATA), "v1", start, end, zlib.crc32(DATA[start:end])))
    journal.close()
    with staged_file_of(tmp_path, expected=[digest_of("sha256")]) as staged_file:
        staged_file.on_digests(())
        for byte_range in staged_file.recover(1000):
            land(staged_file, byte_range)
        assert staged_file.seal().digest == digest_of("crc32")
    assert (tmp_path / "staged").read_bytes() == DATA


def test_a_journal_that_lies_about_a_range_costs_its_transfer_only(tmp_path: Path) -> None:
    interrupted(tmp_path, ByteRange(0, 5000))
    journal = Journal(tmp_path / "journal", "o")
    journal.append(Received("f", len(DATA), "v1", 5000, 10_000, 12345))
    journal.close()
    with staged_file_of(tmp_path) as staged_file:
        staged_file.on_digests(())
        assert staged_file.recover(len(DATA)) == [ByteRange(5000, 10_000)]


def test_restarting_forgets_every_byte(tmp_path: Path) -> None:
    with staged_file_of(tmp_path, expected=[digest_of("sha256")]) as staged_file:
        staged_file.on_digests(())
        land(staged_file, ByteRange(0, len(DATA)), bytes(len(DATA)))
        with pytest.raises(IntegrityError):
            staged_file.seal()
        staged_file.restart()
        assert staged_file.received_bytes() == 0
        land(staged_file, ByteRange(0, len(DATA)))
        assert staged_file.seal().verified == (digest_of("sha256"),)


def test_a_link_to_the_old_model_is_replaced_before_the_first_byte(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old model")
    os.link(tmp_path / "old", tmp_path / "staged")
    with staged_file_of(tmp_path) as staged_file:
        staged_file.recover(len(DATA))
        land(staged_file, ByteRange(0, len(DATA)))
    assert (tmp_path / "old").read_bytes() == b"old model"


# ---- ranges that are interrupted ------------------------------------------------------------

NOTE_BYTES = 1500


@pytest.fixture
def _notes_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lading.transfer.range_writer._NOTE_BYTES", NOTE_BYTES)


def noted(folder: Path) -> dict[int, int]:
    """Where the beginnings of ranges that the journal knows start, and how far the last line of each goes."""
    return {received.start: received.end for received in read_journal(folder / "journal", "o")}


def bytes_of(ranges: Iterable[tuple[int, int | None]]) -> set[int]:
    return {at for start, end in ranges for at in range(start, len(DATA) if end is None else end)}


def part(staged_file: StagedFile, byte_range: ByteRange, end: int, piece_bytes: int = 700) -> RangeWriter:
    """A range that came up to ``end`` only."""
    sink = RangeWriter(staged_file, byte_range, lambda: None, lambda count: None)
    for at in range(byte_range.start, end, piece_bytes):
        sink.write(memoryview(DATA)[at : min(at + piece_bytes, end)])
    return sink


@pytest.mark.usefixtures("_notes_often")
def test_a_range_is_noted_every_few_pieces_and_once_at_its_end(tmp_path: Path) -> None:
    with staged_file_of(tmp_path) as staged_file:
        land(staged_file, ByteRange(100, 6000), piece_bytes=500)
    ends = [received.end for received in read_journal(tmp_path / "journal", "o")]
    assert ends == [1600, 3100, 4600, 6000]


@pytest.mark.usefixtures("_notes_often")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_wherever_a_run_is_killed_the_next_fetches_what_is_not_noted(data: st.DataObject) -> None:
    wanted = [digest_of("sha256"), digest_of("crc64nvme")]
    piece_bytes = data.draw(st.integers(1, 900), "piece")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(data.draw(st.integers(1, 4), "runs")):
            before = noted(folder)
            with staged_file_of(folder, expected=wanted) as staged_file:
                staged_file.on_digests(())
                todo = staged_file.recover(4000)
                assert bytes_of(todo) == bytes_of([(0, len(DATA))]) - bytes_of(before.items())
                came = [
                    (byte_range.start, data.draw(st.integers(byte_range.start, byte_range.end or 0), "end"))
                    for byte_range in todo
                ]
                for byte_range, (_, end) in zip(todo, came, strict=True):
                    sink = part(staged_file, byte_range, end, piece_bytes)
                    if end == byte_range.end:
                        sink.finish()
            # Nothing more than that was done when the process was killed.
            lost = bytes_of(came) - bytes_of(noted(folder).items())
            assert len(lost) < len(todo) * (NOTE_BYTES + piece_bytes)
        flips = data.draw(st.lists(st.integers(0, len(DATA) - 1), max_size=2), "damage")
        staged = bytearray((folder / "staged").read_bytes())
        for at in flips:
            staged[at : at + 1] = bytes(each ^ 1 for each in staged[at : at + 1])
        (folder / "staged").write_bytes(staged)
        with staged_file_of(folder, expected=wanted) as staged_file:
            staged_file.on_digests(())
            for byte_range in staged_file.recover(4000):
                land(staged_file, byte_range)
            assert staged_file.seal().digest == digest_of("crc32")
        assert (folder / "staged").read_bytes() == DATA


@pytest.mark.parametrize("end", [1, 699, 700, 5999])
def test_a_range_that_is_given_up_is_noted_to_its_last_byte(tmp_path: Path, end: int) -> None:
    with staged_file_of(tmp_path) as staged_file:
        sink = part(staged_file, ByteRange(0, 6000), end)
        sink.note()
        sink.note()
    assert list(read_journal(tmp_path / "journal", "o")) == [
        Received("f", len(DATA), "v1", 0, end, zlib.crc32(DATA[:end])),
    ]
    with staged_file_of(tmp_path) as staged_file:
        staged_file.on_digests(())
        assert staged_file.recover(len(DATA)) == [ByteRange(end, len(DATA))]


def test_bytes_that_are_not_noted_are_not_believed(tmp_path: Path) -> None:
    with staged_file_of(tmp_path) as staged_file:
        part(staged_file, ByteRange(0, 6000), 3000).note()
        part(staged_file, ByteRange(6000, len(DATA)), 9000)
    with staged_file_of(tmp_path) as staged_file:
        staged_file.on_digests(())
        assert staged_file.recover(len(DATA)) == [ByteRange(3000, len(DATA))]


@pytest.mark.usefixtures("_notes_often")
def test_of_a_file_that_was_fetched_a_second_time_the_second_time_counts(tmp_path: Path) -> None:
    wrong = bytearray(DATA)
    wrong[10] ^= 1
    with staged_file_of(tmp_path, expected=[digest_of("sha256")]) as staged_file:
        staged_file.on_digests(())
        land(staged_file, ByteRange(0, len(DATA)), bytes(wrong))
        with pytest.raises(IntegrityError):
            staged_file.seal()
        staged_file.restart()
        part(staged_file, ByteRange(0, len(DATA)), 4000).note()
    with staged_file_of(tmp_path) as staged_file:
        staged_file.on_digests(())
        assert staged_file.recover(len(DATA)) == [ByteRange(4000, len(DATA))]


@pytest.mark.usefixtures("_notes_often")
@pytest.mark.parametrize(
    "file",
    [ListedFile("f", len(DATA), None), ListedFile("f", len(DATA), "v1", ranged=False), ListedFile("f", None, "v1")],
)
def test_of_what_cannot_be_continued_no_part_is_noted(tmp_path: Path, file: ListedFile) -> None:
    with staged_file_of(tmp_path, file) as staged_file:
        sink = part(staged_file, ByteRange(0, file.size_bytes), 5000)
        sink.note()
        sink.rewind()
        sink.write(memoryview(DATA)[:4000])
        sink.note()
    assert noted(tmp_path) == {}


@pytest.mark.usefixtures("_notes_often")
@pytest.mark.parametrize(
    ("told", "digests_on_resume", "is_noted"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_what_only_the_answer_vouches_for_is_not_taken_over_unverified(
    tmp_path: Path, told: bool, digests_on_resume: bool, is_noted: bool
) -> None:
    with staged_file_of(tmp_path, digests_on_resume=digests_on_resume) as staged_file:
        staged_file.on_digests([digest_of("md5")] if told else [])
        land(staged_file, ByteRange(0, len(DATA)))
    assert bool(noted(tmp_path)) == is_noted


# ---- the sink ------------------------------------------------------------------------------


def test_more_bytes_than_asked_for_are_refused_before_they_are_written(tmp_path: Path) -> None:
    with staged_file_of(tmp_path) as staged_file:
        sink = RangeWriter(staged_file, ByteRange(0, 10), lambda: None, lambda count: None)
        sink.write(memoryview(b"12345"))
        with pytest.raises(Unavailable, match="more bytes than requested"):
            sink.write(memoryview(b"123456"))
        assert sink.at == 5
        assert (tmp_path / "staged").read_bytes() == b"12345"


def test_fewer_bytes_than_asked_for_are_no_range(tmp_path: Path) -> None:
    with staged_file_of(tmp_path) as staged_file:
        sink = RangeWriter(staged_file, ByteRange(100, 200), lambda: None, lambda count: None)
        sink.write(memoryview(DATA)[100:150])
        with pytest.raises(Unavailable, match="sent 50 bytes"):
            sink.finish()
        assert staged_file.received_bytes() == 0
        assert sink.rest == ByteRange(150, 200)


def test_a_second_attempt_goes_on_where_the_first_one_broke(tmp_path: Path) -> None:
    counted: list[int] = []
    with staged_file_of(tmp_path, expected=[digest_of("sha256"), digest_of("crc32c")]) as staged_file:
        staged_file.on_digests(())
        sink = RangeWriter(staged_file, ByteRange(0, len(DATA)), lambda: None, counted.append)
        sink.write(memoryview(DATA)[:4000])
        assert sink.rest == ByteRange(4000, len(DATA))
        sink.write(memoryview(DATA)[4000:])
        sink.finish()
        assert len(staged_file.seal().verified) == 2
    assert sum(counted) == len(DATA)


def test_a_rewound_range_counts_its_bytes_once(tmp_path: Path) -> None:
    counted: list[int] = []
    with staged_file_of(tmp_path, ListedFile("f", len(DATA), None), [digest_of("sha256")]) as staged_file:
        sink = RangeWriter(staged_file, ByteRange(0, len(DATA)), lambda: None, counted.append)
        sink.write(memoryview(bytes(4000)))
        sink.rewind()
        assert sink.at == 0
        sink.write(memoryview(DATA))
        sink.finish()
        staged_file.seal()
    assert sum(counted) == len(DATA)


# ---- versions ------------------------------------------------------------------------------

STRONG, WEAK, OTHER = '"v1"', 'W/"v1"', '"v2"'


@pytest.mark.parametrize(
    ("file", "answers", "goes_on"),
    [
        # Whether the answer is whole, its validator, and whether parts may follow: None where it is refused.
        (ListedFile("f", 9, STRONG), [(False, STRONG), (False, STRONG)], [True, True]),
        (ListedFile("f", 9, STRONG), [(False, STRONG), (False, OTHER)], [True, None]),
        (ListedFile("f", 9, STRONG), [(False, WEAK)], [None]),
        (ListedFile("f", 9, STRONG), [(False, "")], [None]),
        (ListedFile("f", 9, STRONG), [(True, STRONG)], [True]),
        (ListedFile("f", 9, STRONG), [(True, WEAK), (True, ""), (True, OTHER)], [False, False, None]),
        (
            ListedFile("f", 9, WEAK),
            [(True, WEAK), (True, STRONG), (False, WEAK), (False, STRONG)],
            [False, False, None, None],
        ),
        (ListedFile("f", 9, None), [(True, STRONG), (True, OTHER), (True, "")], [False, False, False]),
        (ListedFile("f", 9, STRONG, ranged=False), [(True, STRONG), (True, WEAK), (True, OTHER)], [False, False, None]),
        # Where answers differ from the listing, the first strong one names the version.
        (ListedFile("f", 9, STRONG, answers_differ=True), [(False, OTHER), (False, OTHER)], [True, True]),
        (ListedFile("f", 9, STRONG, answers_differ=True), [(False, OTHER), (False, STRONG)], [True, None]),
        (ListedFile("f", 9, STRONG, answers_differ=True), [(False, 'W/"v2"'), (False, "")], [None, None]),
        (ListedFile("f", 9, STRONG, answers_differ=True), [(True, 'W/"v2"'), (True, "")], [False, False]),
        (ListedFile("f", 9, STRONG, answers_differ=True), [(False, OTHER), (True, WEAK)], [True, None]),
        (
            ListedFile("f", 9, STRONG, answers_differ=True, ranged=False),
            [(True, OTHER), (True, STRONG)],
            [False, False],
        ),
    ],
)
def test_parts_are_put_together_under_one_strong_validator_alone(
    tmp_path: Path, file: ListedFile, answers: list[tuple[bool, str]], goes_on: list[bool | None]
) -> None:
    with staged_file_of(tmp_path, file) as staged_file:
        for (whole, validator), may_go_on in zip(answers, goes_on, strict=True):
            if may_go_on is None:
                with pytest.raises(OriginChanged) as caught:
                    staged_file.answered(validator, whole=whole)
                assert caught.value.answered == validator
            else:
                assert staged_file.answered(validator, whole=whole) is may_go_on


def test_what_an_earlier_run_found_answers_to_be_called_holds_for_the_rest(tmp_path: Path) -> None:
    listed = ListedFile("f", len(DATA), STRONG)
    with staged_file_of(tmp_path, listed._replace(answers_differ=True)) as staged_file:
        sink = RangeWriter(staged_file, ByteRange(0, len(DATA)), lambda: None, lambda count: None)
        sink.version(OTHER)
        sink.write(memoryview(DATA)[:4000])
        sink.note()
    [received] = read_journal(tmp_path / "journal", "o")
    assert (received.listed, received.answered) == (STRONG, OTHER)
    with staged_file_of(tmp_path, listed) as staged_file:
        assert staged_file.recover(len(DATA)) == [ByteRange(4000, len(DATA))]
        # If-Match would ask for what the listing says.
        assert staged_file.file.answers_differ
        with pytest.raises(OriginChanged):
            staged_file.answered(STRONG, whole=False)
        assert staged_file.answered(OTHER, whole=False)


def test_of_what_earlier_runs_noted_only_what_was_called_the_same_is_put_together(tmp_path: Path) -> None:
    interrupted(tmp_path, *spans_of([5000]))
    journal = Journal(tmp_path / "journal", "o")
    for start, validator in ((0, f"v1\n{OTHER}"), (5000, "v1"), (8000, f"v1\n{OTHER}")):
        end = start + 2000
        journal.append(Received("f", len(DATA), validator, start, end, zlib.crc32(DATA[start:end])))
    journal.close()
    with staged_file_of(tmp_path) as staged_file:
        staged_file.on_digests(())
        assert staged_file.recover(len(DATA)) == [ByteRange(2000, 8000)]


def test_an_answer_that_cannot_be_continued_is_not_noted_until_it_is_whole(tmp_path: Path) -> None:
    with staged_file_of(tmp_path, ListedFile("f", len(DATA), STRONG)) as staged_file:
        sink = RangeWriter(staged_file, ByteRange(0, len(DATA)), lambda: None, lambda count: None)
        sink.version(WEAK)
        sink.write(memoryview(DATA)[:9000])
        sink.note()
        assert noted(tmp_path) == {}
        sink.write(memoryview(DATA)[9000:])
        sink.finish()
    assert noted(tmp_path) == {0: len(DATA)}


def test_of_another_answer_its_own_digest_is_checked(tmp_path: Path) -> None:
    with staged_file_of(tmp_path, ListedFile("f", len(DATA), None)) as staged_file:
        sink = RangeWriter(staged_file, ByteRange(0, len(DATA)), lambda: None, lambda count: None)
        sink.on_digests([digest_of("crc32c", b"of an older version")])
        sink.write(memoryview(DATA)[:4000])
        sink.rewind()
        sink.on_digests([digest_of("sha1")])
        sink.write(memoryview(DATA))
        sink.finish()
        assert staged_file.seal().verified == (digest_of("sha1"),)


# ---- digests that are none -----------------------------------------------------------------


def sealed_twice(
    folder: Path, file: ListedFile, declared: Sequence[Digest], expected: Sequence[Digest], again: bytes
) -> File:
    with staged_file_of(folder, file, expected) as staged_file:
        staged_file.on_digests(declared)
        land(staged_file, ByteRange(0, len(DATA)))
        try:
            return staged_file.seal()
        except IntegrityError:
            staged_file.restart()
            land(staged_file, ByteRange(0, len(DATA)), again)
            return staged_file.seal()


NONE = Digest("md5", "9810707c8811be7b187e0d2acabb0cad")
TAGGED = ListedFile("f", len(DATA), f'"{NONE.value}"')
ANOTHER = DATA[:-1] + b"?"


@pytest.mark.parametrize(
    ("file", "declared", "again", "said", "hint"),
    [
        (TAGGED, [NONE], DATA, "each time it is read, but md5:.* by its ETag", "--verify=off"),
        (
            TAGGED._replace(validator="v"),
            [NONE],
            DATA,
            "each time it is read, but .* by what its origin declares",
            "--digest",
        ),
        (TAGGED, [digest_of("crc32c", b"x")], DATA, "each time .* by what its origin declares", "--verify=off"),
        # Other bytes each time: the wire, or the origin's disk.
        (TAGGED, [NONE], ANOTHER, "has md5:[0-9a-f]*, but md5:.* is expected", "damaged or was replaced"),
    ],
)
def test_a_digest_that_the_same_bytes_do_not_have_twice_may_be_none(
    tmp_path: Path, file: ListedFile, declared: list[Digest], again: bytes, said: str, hint: str
) -> None:
    with pytest.raises(IntegrityError, match=said) as caught:
        sealed_twice(tmp_path, file, declared, [], again)
    assert hint in caught.value.hint


def test_a_digest_that_somebody_else_vouches_for_is_not_doubted(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"is expected$") as caught:
        sealed_twice(tmp_path, TAGGED, [], [digest_of("sha256", b"x")], DATA)
    assert "--verify=off" not in caught.value.hint


def test_a_sha256_that_is_right_outweighs_what_the_origin_declares(tmp_path: Path) -> None:
    sealed = sealed_twice(tmp_path, TAGGED, [NONE], [digest_of("sha256")], DATA)
    assert sealed.verified == (digest_of("sha256"),)


# ---- digests in order ----------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.sampled_from(["crc32", "crc32c", "crc64nvme", "sha1", "sha256", "md5"]),
    st.integers(1, 60),
)
def test_a_composite_is_the_digest_of_its_parts_digests_whatever_the_pieces(
    parts: list[int], algorithm: str, piece_bytes: int
) -> None:
    data = DATA[: sum(parts)]
    wanted = digest_of(algorithm, data, tuple(parts))
    running = SequentialHash(wanted, len(data))
    for at in range(0, len(data), piece_bytes):
        running.update(memoryview(data)[at : at + piece_bytes])
    assert running.position == len(data)
    assert running.digest() == wanted


@given(st.sampled_from(sorted(HEX_DIGITS)), st.lists(st.binary(max_size=50), max_size=6))
def test_every_algorithm_is_what_others_compute(algorithm: str, pieces: list[bytes]) -> None:
    running = new_hash(algorithm, sum(map(len, pieces)))
    for piece in pieces:
        running.update(memoryview(piece))
    assert running.hexdigest() == digest_of(algorithm, b"".join(pieces)).value
