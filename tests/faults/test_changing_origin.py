"""An origin that changes while it is read: the new version whole, or an error; never parts of both."""

import itertools

import pytest

from fakes.faulty_http import ALWAYS, LATER, MODIFIED, Fault, status
from fakes.trees import content, write_tree
from lading.errors import OriginChanged
from lading.events import Listed
from lading.settings.limits import Limits

PATH = "/model.bin"
RANGE_BYTES = 128 * 1024
OLD = content(1_000_000, seed=1)
NEW = content(1_000_000, seed=2)
LONGER = content(1_200_000, seed=3)
ONE_AFTER_THE_OTHER = Limits(stall_s=5.0, connect_s=5.0, attempts=4, workers=1)

BEFORE_READING_OR_BETWEEN_RANGES = pytest.mark.parametrize("after", [0, 3], ids=["before-reading", "between-ranges"])


@BEFORE_READING_OR_BETWEEN_RANGES
@pytest.mark.parametrize("new", [NEW, LONGER], ids=["same-size", "longer"])
@pytest.mark.parametrize("conditions", [True, False], ids=["if-match-kept", "if-match-ignored"])
def test_a_file_that_is_replaced_arrives_in_its_new_version(server, destination, pull, after, new, conditions):
    uri = server.put(PATH, OLD, conditions=conditions)
    server.replace(PATH, new, after=after, etag='"v2"', conditions=conditions)
    pull(uri, destination.path, range_bytes=RANGE_BYTES, limits=ONE_AFTER_THE_OTHER)
    destination.assert_holds({"model.bin": new})


@BEFORE_READING_OR_BETWEEN_RANGES
@pytest.mark.parametrize("conditions", [True, False], ids=["condition-kept", "condition-ignored"])
def test_a_file_with_a_date_only_that_is_replaced_arrives_in_its_new_version(
    server, destination, pull, after, conditions
):
    uri = server.put(PATH, OLD, etag="", modified=MODIFIED, conditions=conditions)
    server.replace(PATH, NEW, after=after, etag="", modified=LATER, conditions=conditions)
    pull(uri, destination.path, range_bytes=RANGE_BYTES, limits=ONE_AFTER_THE_OTHER)
    destination.assert_holds({"model.bin": NEW})


def test_a_file_that_changes_with_every_request_is_given_up(server, destination, pull):
    uri = server.put(PATH, OLD)
    versions = itertools.count(2)

    def change(request, _):
        server.put(PATH, OLD, etag=f'"v{next(versions)}"')
        return server.resources[PATH].answer(request)

    server.misbehave(PATH, Fault(change, times=ALWAYS))
    with pytest.raises(OriginChanged) as caught:
        pull(uri, destination.path)
    assert caught.value.exit_code == 5
    destination.assert_untouched()


@BEFORE_READING_OR_BETWEEN_RANGES
@pytest.mark.parametrize("conditions", [True, False], ids=["if-match-kept", "if-match-ignored"])
def test_an_s3_object_that_is_replaced_arrives_in_its_new_version(
    server, bucket, anonymous, destination, pull, after, conditions
):
    bucket.conditions = conditions
    bucket.put("model/b.bin", OLD)

    def swap(request, _):
        bucket.put("model/b.bin", NEW)
        return bucket.answer(request)

    server.misbehave(bucket.path("model/b.bin"), Fault(swap, after=after, on=_gets))
    pull("s3://models/model", destination.path, range_bytes=RANGE_BYTES, limits=ONE_AFTER_THE_OTHER, **anonymous)
    manifest = destination.assert_holds({"b.bin": NEW})
    assert manifest.files[0].validator == bucket.objects["model/b.bin"].etag


def test_files_that_did_not_change_are_not_fetched_again(server, bucket, anonymous, destination, pull):
    bucket.put("model/a.bin", b"small")
    bucket.put("model/b.bin", OLD)

    def swap(request, _):
        bucket.put("model/b.bin", NEW)
        return bucket.answer(request)

    server.misbehave(bucket.path("model/b.bin"), Fault(swap, after=3, on=_gets))
    pull("s3://models/model", destination.path, range_bytes=RANGE_BYTES, limits=ONE_AFTER_THE_OTHER, **anonymous)
    destination.assert_holds({"a.bin": b"small", "b.bin": NEW})
    assert len(server.requests_for(bucket.path("model/a.bin"), of=_gets)) == 1


def _gets(request) -> bool:
    return request.method == "GET"


def test_a_local_file_that_is_replaced_arrives_in_its_new_version(tmp_path, destination, pull):
    folder = write_tree(tmp_path / "origin", {"a.bin": b"a", "b.bin": OLD})
    versions = iter([NEW])

    def swap(event) -> None:
        if isinstance(event, Listed):
            for version in versions:
                write_tree(folder, {"new": version})
                (folder / "new").rename(folder / "b.bin")

    pull(str(folder), destination.path, listener=swap)
    destination.assert_holds({"a.bin": b"a", "b.bin": NEW})


def test_an_interrupted_delivery_of_an_older_version_is_not_continued(server, destination, pull):
    uri = server.put(PATH, OLD)
    server.misbehave(PATH, status(404, after=3, times=ALWAYS))
    with pytest.raises(Exception, match="404"):
        pull(uri, destination.path, range_bytes=RANGE_BYTES, limits=ONE_AFTER_THE_OTHER)
    assert destination.received_bytes() > 0
    server.behave()
    server.put(PATH, NEW, etag='"v2"')
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds({"model.bin": NEW})
    assert server.asked_bytes == len(NEW)
