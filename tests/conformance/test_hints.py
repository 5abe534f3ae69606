"""No hint offers what was asked for: where that is there and still is nothing to deliver, through every source."""

import pytest

from conformance.scene import BESIDE, scenes
from conformance.scenes import s3
from lading.errors import NotFound

EMPTY = scenes("EMPTY")


@pytest.mark.parametrize("served", EMPTY.values(), ids=EMPTY)
def test_no_source_and_no_registry_offers_what_was_asked_for(served, server, tmp_path, pull):
    with served(server) as (uris, settings):
        for uri in uris:
            with pytest.raises(NotFound) as caught:
                pull(uri, tmp_path / "model", **settings)
            words = caught.value.hint.replace("?", "").replace(",", "").split()
            assert not {"model", "model/"} & set(words), caught.value.hint
    assert not (tmp_path / "model").exists()


def test_what_is_beside_an_empty_folder_is_offered(server, tmp_path, pull):
    with s3.empty(server) as (uris, settings), pytest.raises(NotFound) as caught:
        pull(uris[1], tmp_path / "model", **settings)
    assert caught.value.hint == f"did you mean {BESIDE}/?"
