"""Does a folder still hold what was delivered to it?"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import lading
from lading.destination.audit import audit, require_clean
from lading.errors import IntegrityError, NotFound
from lading.events import Progress
from lading.model.paths import FILE_NAME
from lading.settings.settings import Settings


@pytest.fixture
def delivered(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    for name in ("a", "d/b", "d/c", "empty"):
        (source / name).write_bytes(name.encode() * (name != "empty"))
    lading.pull(str(source), tmp_path / "model", settings=Settings())
    return tmp_path / "model"


def test_a_fresh_delivery_is_clean(delivered: Path) -> None:
    result = audit(delivered)
    assert result.is_clean
    require_clean(delivered, result)
    assert len(result.manifest.files) == 4


@pytest.mark.parametrize(
    ("change", "missing", "extra", "changed"),
    [
        (lambda at: (at / "a").unlink(), ("a",), (), ()),
        (lambda at: (at / "a").write_bytes(b"A"), (), (), ("a",)),
        (lambda at: (at / "a").write_bytes(b"aa"), (), (), ("a",)),
        (lambda at: (at / "empty").write_bytes(b"x"), (), (), ("empty",)),
        (lambda at: (at / "d/x").write_bytes(b"x"), (), ("d/x",), ()),
        (lambda at: (at / "link").symlink_to("a"), (), ("link",), ()),
        (lambda at: (at / "link").symlink_to("d"), (), ("link",), ()),
        (lambda at: (at / "a").rename(at / "z"), ("a",), ("z",), ()),
        (lambda at: ((at / "a").unlink(), (at / "a").mkdir()), (), (), ("a",)),
        (lambda at: ((at / "a").unlink(), os.mkfifo(at / "a")), (), (), ("a",)),
        (lambda at: ((at / "empty").unlink(), os.mkfifo(at / "empty")), (), (), ("empty",)),
        (lambda at: ((at / "a").rename(at.parent / "a"), (at / "a").symlink_to("../a")), (), (), ("a",)),
        (
            lambda at: ((at / "d/b").unlink(), (at / "d/c").unlink(), (at / "d").rmdir(), (at / "d").touch()),
            ("d/b", "d/c"),
            ("d",),
            (),
        ),
        (lambda at: (at / "empty folder").mkdir(), (), (), ()),
        (lambda at: (at / ".lading").mkdir(), (), (), ()),
    ],
)
@pytest.mark.timeout(20)
def test_every_difference_is_named(
    delivered: Path,
    change: Callable[[Path], object],
    missing: tuple[str, ...],
    extra: tuple[str, ...],
    changed: tuple[str, ...],
) -> None:
    change(delivered)
    result = audit(delivered)
    assert (result.missing, result.extra, result.changed) == (missing, extra, changed)
    assert result.is_clean is not bool(missing or extra or changed)
    if not result.is_clean:
        with pytest.raises(IntegrityError) as caught:
            require_clean(delivered, result)
        for path in (*missing, *extra, *changed):
            assert path in str(caught.value)


def test_hashing_tells_how_far_it_is(delivered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lading.destination.audit._TELL_EVERY_S", 0.0)
    heard: list[Progress] = []
    assert audit(delivered, heard.append).is_clean  # type: ignore[arg-type]
    assert [(event.done_bytes, event.done_files) for event in heard] == [(1, 0), (4, 1), (7, 2)]
    assert {(event.total_bytes, event.total_files) for event in heard} == {(7, 4)}


def test_a_folder_without_a_manifest_was_not_delivered(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"has no \.lading\.manifest"):
        audit(tmp_path)


def test_a_manifest_that_was_edited_is_refused(delivered: Path) -> None:
    text = (delivered / FILE_NAME).read_text()
    (delivered / FILE_NAME).write_text(text.replace('"size": 1,', '"size": 2,', 1))
    with pytest.raises(IntegrityError, match="its own digest"):
        audit(delivered)
