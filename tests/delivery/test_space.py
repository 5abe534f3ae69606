"""How much a delivery still needs: what is there of it, or staged, is not needed again."""

import pytest

from fakes.faulty_http import ALWAYS, status
from fakes.real_s3 import s3_anonymous
from fakes.trees import content
from lading.delivery.request import Request
from lading.delivery.resolve import find
from lading.delivery.space import need_of
from lading.errors import LadingError
from lading.settings.limits import Limits
from lading.settings.store import StoreSettings

FILES = {"a.bin": content(3000), "b.bin": content(2000, seed=1), "c.bin": content(1000, seed=2)}


@pytest.fixture
def needed(bucket, new_session, tmp_path):
    for path, data in FILES.items():
        bucket.put(f"m/{path}", data)

    def ask(**settings) -> int:
        session = new_session(**s3_anonymous(bucket.server.url), **settings)
        request = Request("s3://models/m", tmp_path / "model")
        return need_of(find(request, session), request.destination, session.settings).needed_bytes

    return ask


def test_all_of_it_is_needed_where_there_is_nothing(needed):
    assert needed() == 6000


def test_what_the_destination_holds_is_not_needed(needed, bucket, pull, tmp_path):
    pull("s3://models/m", tmp_path / "model", **s3_anonymous(bucket.server.url))
    assert needed() == 0
    bucket.put("m/c.bin", b"another one")
    assert needed() == 11
    (tmp_path / "model/a.bin").unlink()
    assert needed() == 3011


def test_what_was_staged_is_not_needed(needed, bucket, pull, tmp_path):
    bucket.server.misbehave(bucket.path("m/b.bin"), status(403, times=ALWAYS))
    with pytest.raises(LadingError):
        pull("s3://models/m", tmp_path / "model", limits=Limits(workers=1), **s3_anonymous(bucket.server.url))
    left = 6000 - sum(place.stat().st_size for place in (tmp_path / "model/.lading/stage").iterdir())
    assert needed() == left < 6000
    # Another version of it would be fetched anew.
    for path in ("a.bin", "c.bin"):
        bucket.put(f"m/{path}", FILES[path][::-1])
    assert needed() == 6000


def test_what_is_there_needs_no_store(needed, bucket, pull, tmp_path):
    pull("s3://models/m", tmp_path / "model", **s3_anonymous(bucket.server.url))
    assert needed(store=StoreSettings(path=str(tmp_path / "store"))) == 0
    assert not (tmp_path / "store").exists()


def test_what_was_staged_in_the_store_is_not_needed(needed, bucket, pull, tmp_path):
    store = StoreSettings(path=str(tmp_path / "store"), hard_links=True)
    bucket.server.misbehave(bucket.path("m/b.bin"), status(403, times=ALWAYS))
    with pytest.raises(LadingError):
        pull(
            "s3://models/m",
            tmp_path / "model",
            limits=Limits(workers=1),
            store=store,
            **s3_anonymous(bucket.server.url),
        )
    # The others were received all the same.
    assert needed(store=store) == 2000


def test_a_destination_that_is_a_file_holds_nothing(needed, tmp_path):
    (tmp_path / "model").write_bytes(b"")
    assert needed() == 6000
