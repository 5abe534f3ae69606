"""Whatever a kill, a power cut or a bad disk does to the journal, only whole lines are believed."""

import json
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lading.transfer.journal import Journal, Received, read_journal

ORIGIN = "the origin"

PATHS = st.text(st.characters(exclude_categories=[]), min_size=1, max_size=20)


@st.composite
def received(draw: st.DrawFn) -> Received:
    size = draw(st.integers(1, 2**45))
    start = draw(st.integers(0, size - 1))
    end = draw(st.integers(start + 1, size))
    return Received(draw(PATHS), size, draw(st.text(max_size=30)), start, end, draw(st.integers(0, 2**32 - 1)))


def written(folder: str, notes: list[Received], origin: str = ORIGIN) -> Path:
    path = Path(folder) / "journal"
    journal = Journal(path, origin)
    for note in notes:
        journal.append(note)
    journal.close()
    return path


@settings(deadline=None)
@given(st.lists(received(), max_size=8))
def test_a_journal_is_read_back_as_it_was_written(notes: list[Received]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, notes)
        assert list(read_journal(path, ORIGIN)) == notes
        # A second run takes over what the first one noted last of each range, and adds its own.
        last = {(note.path, note.start): note for note in notes}.values()
        again = Journal(path, ORIGIN)
        assert sorted(note for ranges in again.earlier.values() for note in ranges) == sorted(last)
        again.append(Received("more", 5, "v", 0, 5, 7))
        again.close()
        assert sorted(read_journal(path, ORIGIN)) == sorted([*last, Received("more", 5, "v", 0, 5, 7)])


@settings(deadline=None)
@given(st.lists(received(), min_size=1, max_size=6), st.data())
def test_a_journal_cut_anywhere_yields_the_first_of_its_lines(notes: list[Received], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, notes)
        whole = path.read_bytes()
        length = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:length])
        found = list(read_journal(path, ORIGIN))
        assert found == notes[: len(found)]
        # All lines that are there to the last byte are yielded, and no other.
        assert max(whole[: length + 1].count(b"\n") - 1, 0) - len(found) in (0, 1)
        assert len(found) >= max(whole[:length].count(b"\n") - 1, 0)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(received(), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=20)), max_size=5),
)
def test_a_damaged_journal_yields_the_lines_before_it_and_never_raises(
    notes: list[Received], damage: list[tuple[int, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, notes)
        whole = path.read_bytes()
        broken = bytearray(whole)
        for at, patch in damage:
            at %= len(broken)
            broken[at : at + len(patch)] = patch
        path.write_bytes(broken)
        found = list(read_journal(path, ORIGIN))
        lines = bytes(broken).split(b"\n")[1:]
        for line, note in zip(lines, found, strict=False):
            assert tuple(json.loads(line.decode("utf-8", "surrogatepass"))) == note
            assert 0 <= note.start < note.end <= note.size_bytes
        # The next run opens it, whatever it is now.
        Journal(path, ORIGIN).close()


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(json.dumps({"journal": 1, "origin": ORIGIN}).encode() + b"\n" + b"[" * 100_000)
@example(json.dumps({"journal": 1, "origin": ORIGIN}).encode() + b"\n" + b'["a",' + b"9" * 10_000 + b',"v",0,1,2]')
@example(json.dumps({"journal": 1, "origin": ORIGIN}).encode() + b'\n{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}')
@example(json.dumps({"journal": 1, "origin": ORIGIN}).encode() + b'\n["a", true, "v", false, true, 0]')
@example(json.dumps({"journal": 1, "origin": ORIGIN}).encode() + b'\n"abcdef"')
@example(json.dumps({"journal": 1, "origin": ORIGIN}).encode() + b"\n7")
def test_any_bytes_at_all_are_a_journal_of_nothing(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(content)
        assert list(read_journal(path, ORIGIN)) == []
        Journal(path, ORIGIN).close()


@settings(deadline=None)
@given(st.lists(received(), min_size=1, max_size=3), st.text(max_size=10))
def test_the_journal_of_another_origin_says_nothing(notes: list[Received], origin: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert list(read_journal(written(folder, notes, "x" + origin), origin)) == []
