"""By a rule of trust, what the Hub's own scanners say of a file counts, before a byte of it is fetched."""

import pytest

from fakes.fake_hub import FakeHub, Repository
from fakes.trees import read_tree
from lading.errors import Untrusted
from lading.events import NotTrusted
from lading.model.uri import ModelURI
from lading.settings.trust import Formats, TrustRule
from lading.settings.variables import Variables

FILES = {"config.json": b"{}", "model.pkl": b"not looked at", "weights/a.bin": b"bytes"}


class Place:
    """A repository of the Hub, and a delivery of it by a rule."""

    def __init__(self, hub: FakeHub, model: Repository, pull, folder) -> None:
        self.hub, self.model, self.dest, self._pull = hub, model, folder / "dest", pull
        self.warnings: list[str] = []

    def pull(self, *, hub_scan: str = "refuse", mode: str = "enforce", uri: str = "hf://owner/model", **given) -> dict:
        rule = TrustRule(ModelURI.parse("hf://"), mode=mode, formats=Formats("allow", "allow", hub_scan))
        variables = Variables({"HF_ENDPOINT": self.hub.server.url})
        self._pull(uri, self.dest, trust=(rule,), variables=variables, listener=self._hear, **given)
        return read_tree(self.dest)

    def _hear(self, event) -> None:
        if isinstance(event, NotTrusted):
            self.warnings.append(event.why)

    @property
    def listings(self) -> list[str]:
        """The queries of the requests for the listing."""
        return [request.query for request in self.hub.server.requests if "/tree/" in request.path]


@pytest.fixture
def place(server, pull, tmp_path) -> Place:
    hub = FakeHub(server)
    model = hub.repository("owner/model")
    model.commit(FILES)
    return Place(hub, model, pull, tmp_path)


def test_what_the_hub_calls_safe_is_delivered_for_the_same_requests(place):
    assert place.pull() == FILES
    expanded = len(place.hub.server.requests)
    place.hub.server.requests.clear()
    place.dest = place.dest.with_name("other")
    assert place.pull(hub_scan="ignore") == FILES
    assert (len(place.hub.server.requests), place.warnings) == (expanded, [])
    assert place.listings == ["recursive=true&expand=false"]


@pytest.mark.parametrize("word", ["unsafe", "suspicious", "caution", "of tomorrow", "\x1b[31m"])
def test_what_its_scanners_warn_of_is_refused_before_a_byte_is_fetched(place, word):
    place.model.scans["model.pkl"] = word
    with pytest.raises(Untrusted, match=r"refused: the Hub's scanners warn of model\.pkl \(") as refused:
        place.pull()
    assert "\x1b" not in refused.value.message
    assert not place.dest.exists()
    assert not [request for request in place.hub.server.requests if "/resolve/" in request.path]


@pytest.mark.parametrize("asked", [{"hub_scan": "warn"}, {"mode": "warn"}])
def test_a_rule_that_warns_tells_and_delivers(place, asked):
    place.model.scans |= {"model.pkl": "unsafe", "config.json": "queued"}
    assert place.pull(**asked) == FILES
    assert place.warnings == [
        "the Hub's scanners have no verdict on config.json (queued)",
        "the Hub's scanners warn of model.pkl (unsafe)",
    ]


def test_only_files_that_are_delivered_count(place):
    place.model.scans["model.pkl"] = "unsafe"
    assert place.pull(ignore=("*.pkl",)).keys() == FILES.keys() - {"model.pkl"}
    place.dest = place.dest.with_name("other")
    assert place.pull(uri="hf://owner/model/weights") == {"a.bin": b"bytes"}


def test_a_file_on_any_page_of_the_listing_is_judged(place):
    place.model.scans["weights/a.bin"] = "unsafe"
    place.hub.expanded_entries = 1
    with pytest.raises(Untrusted, match=r"weights/a\.bin"):
        place.pull()
    assert len(place.listings) == len(FILES) + 1


@pytest.mark.parametrize("lacks", ["tree", "blobs"])
def test_a_mirror_that_knows_no_scanners_is_told(place, lacks):
    place.hub.tree = False
    setattr(place.hub, lacks, False)
    assert place.pull() == FILES
    [warning] = place.warnings
    assert warning.startswith("the Hub's scanners have no verdict on config.json (unscanned); ")


def test_a_verdict_that_changes_is_noticed_by_the_next_delivery(place):
    place.pull()
    place.model.scans["model.pkl"] = "unsafe"
    with pytest.raises(Untrusted):
        place.pull()
    assert read_tree(place.dest) == FILES
