"""An origin that names one version by several validators: delivered all the same, and never parts of two versions."""

import gzip
import io
import itertools
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fakes.fake_gcs import FakeGcs
from fakes.faulty_http import ALWAYS, Answer, Fault, FaultyServer, Resource, anything, cut, status
from fakes.real_s3 import s3_anonymous
from fakes.trees import content, read_tree, whole_manifest
from lading.errors import LadingError, OriginChanged
from lading.events import Resumed
from lading.settings.limits import Limits

RANGE_BYTES = 128 * 1024
OLD = content(1_000_000, seed=1)
NEW = content(1_000_000, seed=2)
KEY = "model/model.bin"
ONE_AFTER_THE_OTHER = Limits(stall_s=5.0, connect_s=5.0, attempts=4, workers=1)
MD5_LIKE = '"9810707c8811be7b187e0d2acabb0cad"'


def gets(request) -> bool:
    return request.method == "GET"


def parts(request) -> bool:
    return gets(request) and request.headers.get("range") not in (None, "bytes=0-0")


def called(*tags: str, strict: bool = False) -> Fault:
    """Answers that have these ETags in turn, "" for none; with ``strict``, If-Match is compared with them."""
    turn = itertools.cycle(tags)

    def change(request, answer: Answer) -> Answer:
        tag = next(turn)
        if strict and request.headers.get("if-match", tag) != tag:
            return Answer(412)
        headers = {name: text for name, text in answer.headers.items() if name != "ETag"}
        return replace(answer, headers=headers | ({"ETag": tag} if tag else {}))

    return Fault(change, times=ALWAYS, on=anything)


@pytest.fixture
def gateway(server, bucket):
    """A bucket that lists other ETags than its answers have, and compares If-Match with neither."""
    bucket.conditions = False
    bucket.put(KEY, OLD)
    return bucket


@pytest.fixture
def deliver(gateway, anonymous, destination, pull):
    def call(**given):
        given = {"range_bytes": RANGE_BYTES, "limits": ONE_AFTER_THE_OTHER, **anonymous, **given}
        return pull("s3://models/model", destination.path, **given)

    return call


@pytest.mark.parametrize("strict", [True, False], ids=["if-match-compared", "if-match-ignored"])
@pytest.mark.parametrize("tag", ['"0x8D9953E36AF2607"', MD5_LIKE, "0x8D9953E36AF2607"])
def test_answers_that_agree_but_differ_from_the_listing_are_read_in_parts(
    server, gateway, deliver, destination, tag, strict
):
    server.misbehave(gateway.path(KEY), called(tag, strict=strict))
    manifest = deliver()
    destination.assert_holds({"model.bin": OLD})
    # It is known as what was listed: the next pull finds it unchanged.
    assert manifest.files[0].validator == gateway.objects[KEY].etag
    assert len({request.headers.get("range") for request in server.requests_for(gateway.path(KEY), of=parts)}) == 8
    server.requests.clear()
    deliver()
    assert server.requests_for(gateway.path(KEY)) == []


# What a server, a cache or a balancer makes of the ETag of one and the same version.
@pytest.mark.parametrize(
    "tags",
    [
        ["W/{}"],
        ["w/{}"],
        ["W/{}", "{}"],
        ["{}", "W/{}"],
        ["bare"],
        ["{}", "bare"],
        ['"{}'],
        ['"x-gzip"'],
        ['"x"', '"x-gzip"'],
        ['"a"', '"b"'],
        ['"a"', '"b"', '"c"'],
        ['"a"', '"a"', '"b"'],
        ['W/"a"', 'W/"b"'],
        [""],
        ["{}", ""],
        ['"a"', ""],
        ['""'],
        ["not a tag"],
        [MD5_LIKE, '"b"'],
        [f'"{n}"' for n in range(100)],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("strict", [True, False], ids=["if-match-compared", "if-match-ignored"])
@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, len(OLD)], ids=["parts", "one-answer"])
def test_whatever_answers_are_called_the_object_is_delivered(
    server, gateway, deliver, destination, tags, strict, range_bytes
):
    listed = gateway.objects[KEY].etag
    tags = [listed.strip('"') if tag == "bare" else tag.replace("{}", listed) for tag in tags]
    server.misbehave(gateway.path(KEY), called(*tags, strict=strict))
    deliver(range_bytes=range_bytes, limits=ONE_AFTER_THE_OTHER._replace(workers=4))
    destination.assert_holds({"model.bin": OLD})


@pytest.mark.parametrize(
    "tags", [['"a"', '"b"'], ['"a"', '"b"', '"c"'], ['W/"a"', 'W/"b"'], ['"v1"', '"v1-gzip"'], ['"v1"', ""]]
)
@pytest.mark.parametrize("strict", [True, False], ids=["if-match-compared", "if-match-ignored"])
def test_a_url_of_balanced_nodes_with_etags_of_their_own_is_delivered(server, destination, pull, tags, strict):
    uri = server.put("/model.bin", OLD, conditions=False)
    server.misbehave("/model.bin", called(*tags, strict=strict))
    pull(uri, destination.path, range_bytes=RANGE_BYTES, limits=ONE_AFTER_THE_OTHER)
    destination.assert_holds({"model.bin": OLD})


def test_a_url_that_is_sent_encoded_under_an_etag_of_its_own_is_decoded(server, destination, pull):
    uri = server.put("/model.bin", OLD, etag='"v1"', conditions=False)

    def encode(request, answer: Answer) -> Answer:
        return Answer(200, {"ETag": '"v1-gzip"', "Content-Encoding": "gzip"}, gzip.compress(OLD, 1))

    server.misbehave("/model.bin", Fault(encode, times=ALWAYS))
    pull(uri, destination.path, range_bytes=RANGE_BYTES, limits=ONE_AFTER_THE_OTHER)
    destination.assert_holds({"model.bin": OLD})


@pytest.mark.parametrize("pins", [True, False], ids=["generation-kept", "generation-ignored"])
@pytest.mark.parametrize("told", [["1"], ["1", "2"], [""]], ids=["steady", "changing", "none"])
def test_answers_with_generations_of_their_own_are_no_other_version(server, destination, pull, pins, told):
    gcs = FakeGcs(server)
    gcs.pins = pins
    gcs.put("model/model.bin", OLD)
    turn = itertools.cycle(told)

    def rename(request, answer: Answer) -> Answer:
        headers = {name: text for name, text in answer.headers.items() if name != "X-Goog-Generation"}
        generation = next(turn)
        return replace(answer, headers=headers | ({"X-Goog-Generation": generation} if generation else {}))

    server.misbehave(gcs.media("model/model.bin"), Fault(rename, times=ALWAYS, on=anything))
    pull(
        "gs://models/model",
        destination.path,
        range_bytes=RANGE_BYTES,
        limits=ONE_AFTER_THE_OTHER,
        variables={"STORAGE_EMULATOR_HOST": server.url},
    )
    destination.assert_holds({"model.bin": OLD})


# ---- what is never given up for that


@pytest.mark.parametrize("after", [0, 3, 6])
@pytest.mark.parametrize(
    "tags",
    [(['"g1"'], ['"g2"']), (['"a1"', '"b1"'], ['"a2"', '"b2"']), (['W/"1"'], ['W/"1"']), ([""], [""])],
    ids=["steady", "nodes", "weak", "none"],
)
def test_an_object_replaced_at_such_an_origin_arrives_in_one_version(
    server, gateway, deliver, destination, after, tags
):
    old, new = map(itertools.cycle, tags)

    def answer(request, _) -> Answer:
        # Counted in the requests that the delivery would need without any of this.
        if len(server.requests_for(gateway.path(KEY), of=parts)) > after:
            gateway.put(KEY, NEW)
        now = gateway.objects[KEY].content
        return called(next(new if now == NEW else old)).change(request, gateway.answer(request))

    server.misbehave(gateway.path(KEY), Fault(answer, times=ALWAYS, on=anything))
    deliver()
    destination.assert_holds_one_of({"model.bin": OLD}, {"model.bin": NEW})


def test_an_interrupted_delivery_goes_on_where_it_was(server, gateway, deliver, destination, events):
    server.misbehave(gateway.path(KEY), called('"g1"'), status(403, after=5, times=ALWAYS, on=gets))
    with pytest.raises(LadingError):
        deliver()
    received = destination.received_bytes()
    assert received > 0
    server.behave()
    server.misbehave(gateway.path(KEY), called('"g1"'))
    deliver()
    destination.assert_holds({"model.bin": OLD})
    assert [event.size_bytes for event in events if isinstance(event, Resumed)] == [received]
    assert server.asked_bytes == len(OLD) - received


def test_staged_bytes_are_not_joined_with_answers_under_another_validator(server, gateway, deliver, destination):
    server.misbehave(gateway.path(KEY), called('"g1"'), status(403, after=5, times=ALWAYS, on=gets))
    with pytest.raises(LadingError):
        deliver()
    server.behave()
    # A listing that is older than its answers: as a cache gives it.
    listed = gateway.objects[KEY].etag
    gateway.put(KEY, NEW)
    gateway.objects[KEY].__dict__["etag"] = listed
    server.misbehave(gateway.path(KEY), called('"g2"'))
    deliver()
    destination.assert_holds({"model.bin": NEW})


@pytest.mark.parametrize("tag", ['W/"1"', "", '"1"'])
def test_a_broken_stream_is_not_continued_with_that_of_another_version(server, destination, pull, tag):
    """Also where both versions have one weak validator, or none."""
    uri = server.put("/model.bin", OLD, etag=tag, conditions=False)
    server.misbehave("/model.bin", cut(500_000))
    strong = tag.startswith('"')
    server.replace("/model.bin", NEW, after=0, etag='"2"' if strong else tag, conditions=False, on=_second())
    pull(uri, destination.path, limits=ONE_AFTER_THE_OTHER)
    destination.assert_holds({"model.bin": NEW})


def _second():
    seen = itertools.count()
    return lambda request: request.headers.get("range") != "bytes=0-0" and next(seen) > 0


def test_an_origin_that_never_sends_the_listed_size_contradicts_itself(server, gateway, deliver, destination):
    gateway.put(KEY, OLD, claimed_bytes=len(OLD) + 1)
    with pytest.raises(OriginChanged, match=r"model\.bin .*contradicts itself") as caught:
        deliver()
    assert caught.value.exit_code == 5
    assert "prox" in caught.value.hint
    destination.assert_untouched()


@pytest.mark.parametrize("tag", ['W/"1"', ""])
def test_an_archive_unpacked_as_it_lands_is_of_one_answer_or_validator(
    server, gateway, deliver, destination, tmp_path, tag
):
    old, new = (_tar(tmp_path / "member", data) for data in (OLD, NEW))
    gateway.objects.clear()
    gateway.put("model/model.tar", old)
    place = gateway.path("model/model.tar")
    server.misbehave(place, called(tag), cut(500_000, on=gets))
    server.misbehave(place, server.before(lambda: gateway.put("model/model.tar", new), on=_second()), called(tag))
    deliver(range_bytes=2 * len(OLD))
    destination.assert_holds({"model.bin": NEW})


def _tar(member: Path, data: bytes) -> bytes:
    member.write_bytes(data)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(member, arcname="model.bin")
    return archive.getvalue()


NAMES = st.lists(st.sampled_from(["strong", "other", "weak", "none", "fresh", "bare", "gzip"]), min_size=1, max_size=4)


class Origin:
    """A URL or an object whose versions have any of these names in turn, and are replaced and cut off at any request.

    No strong validator is shared by two versions: who does that can deceive anybody.
    """

    def __init__(self, names: list[str], at: set[int], cuts: set[int]) -> None:
        self.turn, self.count = itertools.cycle(names), itertools.count()
        self.at, self.cuts, self.version = at, cuts, 0

    @property
    def content(self) -> bytes:
        return (OLD, NEW)[self.version % 2]

    def name(self, number: int) -> str:
        one = f"v{self.version}"
        match next(self.turn):
            case "strong":
                return f'"{one}"'
            case "other":
                return f'"node-{one}"'
            case "weak":
                return 'W/"v"'
            case "fresh":
                return f'"{number}"'
            case "bare":
                return one
            case "gzip":
                return f'"{one}-gzip"'
        return ""

    def answer(self, request) -> Answer:
        number = next(self.count)
        self.version += number in self.at
        answer = Resource(self.content, self.name(number), conditions=False).answer(request)
        return replace(answer, end_at=len(answer.body) // 2) if number in self.cuts else answer

    def listing(self) -> Answer:
        tag = self.name(next(self.count)).replace('"', "&quot;")
        item = f"<Contents><Key>{KEY}</Key><ETag>{tag}</ETag><Size>{len(OLD)}</Size></Contents>"
        return Answer(200, {}, f"<ListBucketResult><IsTruncated>false</IsTruncated>{item}</ListBucketResult>".encode())


@pytest.mark.parametrize("kind", ["s3", "http"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(names=["strong", "strong", "none", "fresh"], at={10}, cuts=set(), workers=1)
@given(
    names=NAMES,
    at=st.sets(st.integers(0, 40), max_size=4),
    cuts=st.sets(st.integers(1, 30), max_size=3),
    workers=st.sampled_from([1, 4]),
)
def test_whatever_versions_are_called_what_is_delivered_is_one_of_them(pull, kind, names, at, cuts, workers):
    origin = Origin(names, at, cuts)
    with FaultyServer() as server, tempfile.TemporaryDirectory() as folder:
        server.routes["/models/model/"] = origin.answer
        server.routes["/models"] = lambda request: origin.listing()
        uri = "s3://models/model" if kind == "s3" else f"{server.url}/models/model/model.bin"
        limits = ONE_AFTER_THE_OTHER._replace(workers=workers)
        # A second run goes on with what the first one left.
        for _ in range(2):
            before = read_tree(Path(folder) / "out")
            try:
                pull(uri, Path(folder) / "out", range_bytes=RANGE_BYTES, limits=limits, **s3_anonymous(server.url))
            except OriginChanged:
                assert read_tree(Path(folder) / "out") == before
            else:
                assert read_tree(Path(folder) / "out")["model.bin"] in (OLD, NEW)
                assert whole_manifest(Path(folder) / "out").files[0].size_bytes == len(OLD)
