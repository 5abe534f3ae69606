"""A listing that was cut is continued or refused, never delivered as whole: through every source that lists in pages."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from conformance.scene import PARTS, Listed, scenes
from conformance.scenes import hdfs, huggingface, s3
from fakes.fake_s3 import S3Object
from fakes.faulty_http import ALWAYS, Answer, Fault, FaultyServer, Request
from fakes.trees import read_tree
from lading.errors import IntegrityError, LadingError, Unsupported

PAGED = scenes("PAGES")


@pytest.fixture(params=PAGED.values(), ids=PAGED)
def listed(request, server) -> Iterator[Listed]:
    with request.param(server) as listed:
        yield listed


def deliver(listed, pull, tmp_path):
    """What is delivered; of a delivery that fails, nothing may be."""
    try:
        pull(listed.uri, tmp_path / "model", **listed.settings)
    except LadingError:
        assert not (tmp_path / "model").exists()
        raise
    return read_tree(tmp_path / "model")


def served(server: FaultyServer, listed: Listed, change: Callable[[Request, Answer, int], Answer]) -> None:
    """Have each page changed by ``change``, which is told its number."""
    numbers = iter(range(1000))
    fault = Fault(lambda request, answer: change(request, answer, next(numbers)), times=ALWAYS, on=listed.lists)
    server.misbehave(listed.path, fault)


def rewritten(answer: Answer, pattern: str, text: str) -> Answer:
    """The answer with what matches the pattern replaced, which it must hold."""
    body, count = re.subn(pattern, text, bytes(answer.body).decode())
    assert count
    return replace(answer, body=body.encode())


def test_every_page_is_delivered(listed, pull, tmp_path):
    assert set(deliver(listed, pull, tmp_path)) >= set(PARTS)


@pytest.mark.parametrize("after", [1, 2])
def test_the_first_page_told_again_is_an_error(listed, server, pull, tmp_path, after):
    first: list[Answer] = []

    def again(request, answer, number):
        first.append(answer)
        return first[0] if number == after else answer

    served(server, listed, again)
    with pytest.raises(IntegrityError):
        deliver(listed, pull, tmp_path)


def test_a_page_that_breaks_off_in_the_middle_of_its_document_is_an_error(listed, server, pull, tmp_path):
    served(server, listed, lambda _, answer, number: replace(answer, body=bytes(answer.body)[: -4 if number else None]))
    with pytest.raises((IntegrityError, Unsupported)):
        deliver(listed, pull, tmp_path)


def test_an_empty_document_in_the_place_of_a_page_is_an_error(listed, server, pull, tmp_path):
    served(server, listed, lambda _, answer, number: replace(answer, body=b"") if number else answer)
    with pytest.raises((IntegrityError, Unsupported)):
        deliver(listed, pull, tmp_path)


def test_a_refusal_in_the_place_of_a_later_page_is_an_error(listed, server, pull, tmp_path):
    served(server, listed, lambda _, answer, number: Answer(404, {}, b"") if number else answer)
    with pytest.raises(LadingError):
        deliver(listed, pull, tmp_path)


# ---- S3: the answer of version 1, and whatever else does not say whether it has ended


@contextmanager
def s3_in_other_words(server, write, most=1):
    """The bucket, whose listing ``write`` puts into words: (keys, what follows, query) -> XML."""
    with s3.pages(server) as listed:
        keys = sorted(f"model/{path}" for path in PARTS)

        def answer(request):
            if not listed.lists(request):
                return listed.page(request)
            query = dict(pair.split("=") for pair in request.query.replace("%2F", "/").split("&"))
            return Answer(200, {}, write(keys, most, query).encode())

        server.routes["/models"] = answer
        yield listed


def contents(keys):
    etag = S3Object(b"part").etag.strip('"')
    return "".join(f"<Contents><Key>{key}</Key><ETag>{etag}</ETag><Size>4</Size></Contents>" for key in keys)


def cut_after(parameter, *, marker="", extra=""):
    """The listing of a server that goes on behind the key in ``parameter``."""

    def write(keys, most, query):
        left = [key for key in keys if key > query.get(parameter, "")]
        page, more = left[:most], len(left) > most
        following = f"<{marker}>{page[-1]}</{marker}>" if marker and more else ""
        told = extra.format(page=len(page), all=len(keys), left=len(left))
        return f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{told}{following}{contents(page)}</ListBucketResult>"

    return write


@pytest.mark.parametrize(
    "write",
    [
        cut_after("marker"),
        cut_after("marker", marker="NextMarker", extra="<Marker/>"),
        cut_after("start-after"),
        cut_after("start-after", extra="<KeyCount>{page}</KeyCount>"),
        cut_after("start-after", extra="<KeyCount>{all}</KeyCount>"),
        cut_after("continuation-token", marker="NextContinuationToken"),
    ],
    ids=["version-1", "version-1-with-a-marker", "no-token", "no-token-a-count", "a-count-of-all", "tokens"],
)
@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_bucket_goes_on_by_whatever_its_pages_give(server, pull, tmp_path, write, most):
    with s3_in_other_words(server, write, most) as listed:
        assert deliver(listed, pull, tmp_path).keys() >= PARTS.keys()


@pytest.mark.parametrize(
    "ends",
    [
        "",
        "<IsTruncated/>",
        "<IsTruncated>no</IsTruncated>",
        "<IsTruncated>0</IsTruncated>",
        "<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
        "<IsTruncated>false</IsTruncated><KeyCount>3</KeyCount>",
        "<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount>",
        "<IsTruncated>false</IsTruncated><KeyCount>x</KeyCount>",
        "<IsTruncated>false</IsTruncated><CommonPrefixes><Prefix>model/deep/</Prefix></CommonPrefixes>",
        "<IsTruncated>true</IsTruncated>",
        "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
        "<IsTruncated>true</IsTruncated><NextMarker>model/part-0</NextMarker>",
    ],
)
def test_a_page_that_does_not_say_whether_it_is_the_last_is_refused(server, pull, tmp_path, ends):
    write = lambda keys, most, query: f"<ListBucketResult>{ends}{contents(keys[:2])}</ListBucketResult>"  # noqa: E731
    with s3_in_other_words(server, write) as listed, pytest.raises((IntegrityError, Unsupported)):
        deliver(listed, pull, tmp_path)


def test_a_page_without_order_is_not_gone_on_with_behind_its_last_key(server, pull, tmp_path):
    cut = "<IsTruncated>true</IsTruncated>"
    write = lambda keys, most, query: f"<ListBucketResult>{cut}{contents([keys[2], keys[0]])}</ListBucketResult>"  # noqa: E731
    with (
        s3_in_other_words(server, write) as listed,
        pytest.raises(IntegrityError, match="does not say how it goes on"),
    ):
        deliver(listed, pull, tmp_path)


def test_a_page_with_no_key_that_says_there_are_more_is_refused(server, pull, tmp_path):
    write = lambda *_: "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"  # noqa: E731
    with s3_in_other_words(server, write) as listed, pytest.raises(IntegrityError, match="how it goes on"):
        deliver(listed, pull, tmp_path)


@pytest.mark.parametrize("word", ["True", " false ", "FALSE"])
def test_a_truth_is_known_in_any_case(server, pull, tmp_path, word):
    def write(keys, most, query):
        page = keys if "alse" in word.lower() else [key for key in keys if key > query.get("marker", "")]
        ends = word if page is keys or len(page) > 1 else "False"
        page = page if page is keys else page[:1]
        return f"<ListBucketResult><IsTruncated>{ends}</IsTruncated>{contents(page)}</ListBucketResult>"

    with s3_in_other_words(server, write) as listed:
        assert deliver(listed, pull, tmp_path).keys() >= PARTS.keys()


# ---- what the others call an end


@pytest.mark.parametrize("service", ["azure-blob", "azure-files"])
def test_only_an_empty_marker_is_the_end_of_an_azure_listing(server, pull, tmp_path, service):
    with PAGED[service](server) as listed:
        served(server, listed, lambda _, answer, __: rewritten(answer, "<NextMarker>.*</NextMarker>", ""))
        with pytest.raises(IntegrityError, match="does not say whether it has ended"):
            deliver(listed, pull, tmp_path)


@pytest.mark.parametrize("link", ['<{0}>; rel="next', "{0}; rel=next", "<>; rel=next", "<http://h/no-query>; rel=next"])
def test_a_link_that_cannot_be_followed_is_no_end(server, pull, tmp_path, link):
    with huggingface.pages(server) as listed:
        url = f"{server.url}{listed.path}?cursor=MQ"
        served(server, listed, lambda _, answer, __: answer.with_headers(Link=link.format(url)))
        with pytest.raises(IntegrityError):
            deliver(listed, pull, tmp_path)


@pytest.mark.parametrize("link", ["<{0}>;rel=next", '</x>; rel=preload; title="a, b", <{0}>; foo; rel="last next"'])
def test_a_link_in_any_form_is_followed(server, pull, tmp_path, link):
    with huggingface.pages(server) as listed:

        def put(request, answer, number):
            given = answer.headers.get("Link", "")
            return answer.with_headers(Link=link.format(given[1 : given.index(">")])) if given else answer

        served(server, listed, put)
        assert deliver(listed, pull, tmp_path).keys() >= PARTS.keys()


def test_what_is_not_below_the_folder_that_was_asked_for_is_an_error(server, pull, tmp_path):
    with huggingface.pages(server) as listed:
        answer = listed.page(Request("GET", f"{listed.path}?recursive=true&expand=false", {}))
        server.misbehave(f"{listed.path}/part", Fault(lambda *_: answer, times=ALWAYS))
        with pytest.raises(IntegrityError, match="not below 'part'"):
            deliver(replace(listed, uri="hf://owner/name@main/part"), pull, tmp_path)


@pytest.mark.parametrize("code", ["EntryNotFound", ""])
def test_a_later_page_that_is_not_there_is_no_end_of_a_repository(server, pull, tmp_path, code):
    with huggingface.pages(server) as listed:
        gone = Answer(404, {"X-Error-Code": code} if code else {}, b"{}")
        served(server, listed, lambda _, answer, number: gone if number else answer)
        with pytest.raises(LadingError):
            deliver(listed, pull, tmp_path)


@pytest.mark.parametrize("left", ["-1", "null", "true", '"1"', "1.5", "{}"])
def test_a_folder_in_hdfs_whose_pages_have_another_form_is_asked_for_as_a_whole(server, pull, tmp_path, left):
    with hdfs.pages(server) as listed:
        told = f'"remainingEntries": {left}'
        served(server, listed, lambda _, answer, __: rewritten(answer, r'"remainingEntries": \d+', told))
        assert deliver(listed, pull, tmp_path).keys() >= PARTS.keys()


def test_more_that_is_left_behind_an_empty_page_is_an_error(server, pull, tmp_path):
    with hdfs.pages(server) as listed:
        listing = {"partialListing": {"FileStatuses": {"FileStatus": []}}, "remainingEntries": 2}
        empty = Answer(200, {}, json.dumps({"DirectoryListing": listing}).encode())
        served(server, listed, lambda _, answer, number: empty if number else answer)
        with pytest.raises(IntegrityError, match="does not end"):
            deliver(listed, pull, tmp_path)
