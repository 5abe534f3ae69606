"""A channel is resolved to what it stands for now, by sources that can tell."""

import pytest

from fakes.trees import read_tree
from lading.delivery.request import Request
from lading.delivery.resolve import find
from lading.events import Listed
from lading.model.listing import ListedFile, Listing
from lading.model.uri import ModelURI
from lading.sources import schemes


class Channel:
    """A source whose one channel stands for ``current``."""

    credential_kind = "anonymous"
    current = "v1"

    def __init__(self, uri, settings, http) -> None:
        self._uri = uri

    def list(self) -> Listing:
        self.pin = self._uri._replace(path=f"/model@{self.current}")
        return Listing.of([ListedFile("name", len(self.current), self.current)])

    def read(self, file, byte_range, sink) -> None:
        sink.write(memoryview(file.validator.encode())[byte_range.start : byte_range.end])


@pytest.fixture(autouse=True)
def _channels(monkeypatch):
    monkeypatch.setitem(schemes.SCHEMES, "channel", f"{__name__}:Channel")


def test_what_a_channel_stands_for_is_told_and_recorded(pull, events, tmp_path):
    manifest = pull("channel://host/model", tmp_path)
    assert (manifest.requested, manifest.resolved) == ("channel://host/model", "channel://host/model@v1")
    assert [event.uri for event in events if isinstance(event, Listed)] == ["channel://host/model@v1"]


def test_a_channel_that_moved_is_delivered_anew_to_the_same_place(pull, tmp_path, monkeypatch):
    first = pull("channel://host/model", tmp_path)
    monkeypatch.setattr(Channel, "current", "v2")
    second = pull("channel://host/model", tmp_path)
    assert second.resolved == "channel://host/model@v2"
    assert read_tree(tmp_path) == {"name": b"v2"}
    # What did not change between two versions stays: their validators are compared within one origin.
    assert second.origin == first.origin == ModelURI.parse("channel://host/model").identity()


def test_resolving_shows_the_pin_before_a_byte_is_moved(new_session, tmp_path):
    assert find(Request("channel://host/model", tmp_path), new_session()).listed.resolved.endswith("@v1")
