"""What servers and networks do to bytes on their way, over HTTP."""

import hashlib
from base64 import b64encode
from email.utils import formatdate
from time import time

import pytest

from fakes.faulty_http import (
    ALWAYS,
    MODIFIED,
    anything,
    cut,
    framed,
    gzipped,
    longer,
    probes,
    range_ignored,
    reads,
    redirect,
    reset,
    stall,
    status,
    surplus,
    wrong_byte,
)
from fakes.trees import content
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.errors import DeadlineExceeded, IntegrityError, Stalled, Unavailable, Unsupported
from lading.events import Progress, Resumed, Retried, ignore
from lading.session import Session
from lading.settings.limits import Limits
from lading.settings.settings import Settings
from lading.settings.store import StoreSettings

PATH = "/model.bin"
RANGE_BYTES = 256 * 1024
CONTENT = content(1_000_000)
DELIVERED = {"model.bin": CONTENT}
SHA256 = hashlib.sha256(CONTENT)
DIGEST = {"Repr-Digest": f"sha-256=:{b64encode(SHA256.digest()).decode()}:"}
MD5 = b64encode(hashlib.md5(CONTENT, usedforsecurity=False).digest()).decode()
SHORT = Limits(stall_s=0.3, connect_s=5.0, attempts=3, workers=4)


def first_bytes(server) -> list[int]:
    """Where each request for the file began, in the order of arrival."""
    return [request.byte_range(len(CONTENT))[0] for request in server.requests if request.headers.get("range")][1:]


def test_a_reset_in_the_middle_is_continued_where_it_happened(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, reset(at=300_000))
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)
    (resumed_at,) = first_bytes(server)
    assert 0 < resumed_at <= 300_000


def test_a_file_arrives_whole_though_every_connection_is_reset_after_a_while(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, reset(at=100_000, times=ALWAYS))
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)
    assert len(server.requests) >= 10


def test_resets_without_a_byte_end_the_delivery_and_leave_the_destination(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, reset(at=0, times=ALWAYS))
    with pytest.raises(Unavailable) as caught:
        pull(uri, destination.path)
    assert caught.value.exit_code == 5
    destination.assert_untouched()


@pytest.mark.parametrize("at", [0, 200_000])
def test_a_stalled_connection_is_replaced(server, destination, pull, at):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, stall(at))
    pull(uri, destination.path, limits=SHORT)
    destination.assert_holds(DELIVERED)


def test_a_server_that_stalls_every_time_ends_the_delivery(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, stall(0, times=ALWAYS))
    with pytest.raises(Stalled) as caught:
        pull(uri, destination.path, limits=SHORT)
    assert caught.value.exit_code == 5
    destination.assert_untouched()
    assert len(server.requests) == 1 + SHORT.attempts


@pytest.mark.parametrize("on", [anything, probes], ids=["reading", "listing"])
def test_a_burst_of_503_is_waited_out_with_growing_patience(server, destination, pull, clock, on):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, status(503, b"busy", times=3, on=on))
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)
    assert len(clock.waits) == 3
    assert all(wait <= 0.25 * 2**count for count, wait in enumerate(clock.waits, 1))


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_server_that_stays_down_ends_the_delivery(server, destination, pull, code):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, status(code, times=ALWAYS))
    with pytest.raises(Unavailable) as caught:
        pull(uri, destination.path)
    assert caught.value.exit_code == 5
    destination.assert_untouched()


def test_retry_after_in_seconds_is_waited(server, destination, pull, clock):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, status(429, headers={"Retry-After": "7"}))
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)
    assert 7 <= max(clock.waits) < 7.8


@pytest.mark.parametrize("store", [False, True], ids=["alone", "by way of a store"])
@pytest.mark.parametrize("on", [probes, reads], ids=["the listing", "the transfer"])
def test_the_seconds_of_a_delivery_count_what_was_waited(server, destination, pull, tmp_path, store, on):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, status(429, headers={"Retry-After": "42"}, on=on))
    manifest = pull(uri, destination.path, store=StoreSettings(path=str(tmp_path / "store") if store else ""))
    assert 42 <= manifest.seconds < 47
    destination.assert_holds(DELIVERED)


def test_retry_after_as_a_date_is_waited(server, destination, pull, clock):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, status(429, headers={"Retry-After": formatdate(time() + 60, usegmt=True)}))
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)
    assert 50 < max(clock.waits) < 67


def test_a_404_is_not_tried_again(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, status(404, times=ALWAYS, on=anything))
    with pytest.raises(Exception, match="404") as caught:
        pull(uri, destination.path)
    assert caught.value.exit_code == 3
    destination.assert_untouched()
    assert len(server.requests) == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "closed"])
def test_a_truncated_body_is_continued(server, destination, pull, framing):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, framed(framing, on=probes), cut(at=400_000))
    if framing != "length":
        server.misbehave(PATH, framed(framing))
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)


def test_a_body_that_is_always_truncated_at_its_start_ends_the_delivery(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, cut(at=0, times=ALWAYS))
    with pytest.raises(Unavailable):
        pull(uri, destination.path)
    destination.assert_untouched()


def test_a_truncated_body_of_unknown_length_is_fetched_again_from_its_start(server, destination, pull):
    uri = server.put(PATH, CONTENT, ranges=False)
    server.misbehave(PATH, framed("chunked"), cut(at=400_000, after=1))
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)


@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, 2 * len(CONTENT)], ids=["ranges", "whole"])
def test_a_body_longer_than_promised_is_not_taken(server, destination, pull, range_bytes):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, longer(b"extra", times=ALWAYS))
    with pytest.raises(Unavailable):
        pull(uri, destination.path, range_bytes=range_bytes)
    destination.assert_untouched()


def test_a_body_longer_than_promised_once_is_asked_for_again(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, longer(b"extra"))
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds(DELIVERED)


def test_bytes_behind_a_body_are_not_taken_for_the_next_answer(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, surplus(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", times=ALWAYS, on=anything))
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds(DELIVERED)


@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, 2 * len(CONTENT)], ids=["ranges", "whole"])
def test_a_wrong_byte_once_is_found_and_fetched_again(server, destination, pull, events, range_bytes):
    uri = server.put(PATH, CONTENT, headers=DIGEST)
    server.misbehave(PATH, wrong_byte(500_000))
    manifest = pull(uri, destination.path, range_bytes=range_bytes)
    destination.assert_holds(DELIVERED)
    assert manifest.files[0].verified[0].value == SHA256.hexdigest()
    assert any(isinstance(event, Retried) and "expected" in event.why for event in events) or range_bytes == RANGE_BYTES


@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, 2 * len(CONTENT)], ids=["ranges", "whole"])
def test_a_wrong_byte_every_time_is_refused(server, destination, pull, range_bytes):
    uri = server.put(PATH, CONTENT, headers=DIGEST)
    server.misbehave(PATH, wrong_byte(500_000, times=ALWAYS))
    with pytest.raises(IntegrityError) as caught:
        pull(uri, destination.path, range_bytes=range_bytes)
    assert caught.value.exit_code == 6
    destination.assert_untouched()


def test_a_wrong_byte_is_found_by_a_digest_of_the_user(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, wrong_byte(999_999, times=ALWAYS))
    with pytest.raises(IntegrityError):
        pull(uri, destination.path, digest=f"sha256:{SHA256.hexdigest()}", verify="off")
    destination.assert_untouched()


def test_a_refused_file_is_delivered_once_the_origin_is_mended(server, destination, pull):
    uri = server.put(PATH, CONTENT, headers=DIGEST)
    server.misbehave(PATH, wrong_byte(500_000, times=ALWAYS))
    with pytest.raises(IntegrityError):
        pull(uri, destination.path)
    server.behave()
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)


@pytest.mark.parametrize("headers", [{}, {"Content-MD5": MD5}], ids=["unvouched", "content-md5"])
def test_a_part_of_a_file_is_kept_unless_only_the_answer_with_the_whole_vouches_for_it(
    server, destination, pull, headers
):
    uri = server.put(PATH, CONTENT, headers=headers)
    server.misbehave(PATH, reset(at=600_000, on=reads), reset(at=0, times=ALWAYS, on=reads, after=1))
    with pytest.raises(Unavailable):
        pull(uri, destination.path)
    received = destination.received_bytes()
    assert bool(received) == (not headers)
    server.behave()
    manifest = pull(uri, destination.path, verify="strict" if headers else "auto")
    destination.assert_holds(DELIVERED)
    assert server.asked_bytes == len(CONTENT) - received
    assert len(manifest.files[0].verified) == len(headers)


def _tells_what_was_here_before_what_comes(events, received: int) -> bool:
    (at,) = (number for number, event in enumerate(events) if isinstance(event, Resumed))
    done = [event.done_bytes for event in events[:at] if isinstance(event, Progress)]
    return events[at] == Resumed(received) and max(done, default=0) <= received


def test_what_was_here_already_is_told_once_and_before_the_rest_comes(server, destination, pull, events):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, reset(at=600_000, on=reads), reset(at=0, times=ALWAYS, on=reads, after=1))
    with pytest.raises(Unavailable):
        pull(uri, destination.path)
    received = destination.received_bytes()
    server.behave()
    events.clear()
    pull(uri, destination.path)
    assert _tells_what_was_here_before_what_comes(events, received)


def test_what_was_here_already_of_many_files_is_told_once_and_before_the_rest_comes(
    server, bucket, destination, pull, events, anonymous
):
    for number in range(20):
        bucket.put(f"model/{number:02}", content(1000, seed=number))
    server.misbehave("/models/model/15", status(503, times=ALWAYS, on=anything))
    one_worker = Limits(stall_s=5.0, connect_s=5.0, workers=1, attempts=1)
    with pytest.raises(Unavailable):
        pull("s3://models/model", destination.path, limits=one_worker, **anonymous)
    received = destination.received_bytes()
    assert received == 15_000
    server.behave()
    events.clear()
    pull("s3://models/model", destination.path, limits=one_worker, **anonymous)
    assert _tells_what_was_here_before_what_comes(events, received)


def test_a_whole_file_is_not_taken_for_a_range_of_it(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, range_ignored(CONTENT, after=1, times=2))
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds(DELIVERED)


def test_a_server_that_forgets_ranges_ends_the_delivery(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.replace(PATH, CONTENT, ranges=False)
    with pytest.raises(Unavailable):
        pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_untouched()


@pytest.mark.parametrize("framing", ["length", "chunked", "closed"])
def test_a_server_without_ranges_is_read_in_one_piece(server, destination, pull, framing):
    uri = server.put(PATH, CONTENT, ranges=False)
    server.misbehave(PATH, framed(framing))
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds(DELIVERED)


def test_a_body_in_gzip_that_nobody_asked_for_is_decoded(server, destination, pull):
    uri = server.put(PATH, CONTENT, ranges=False)
    server.misbehave(PATH, gzipped())
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


def test_a_truncated_body_in_gzip_is_fetched_again(server, destination, pull):
    uri = server.put(PATH, CONTENT, ranges=False)
    server.misbehave(PATH, gzipped(), framed("closed"), cut(at=1000, after=1))
    pull(uri, destination.path)
    destination.assert_holds(DELIVERED)


@pytest.mark.parametrize("about", [{"etag": ""}, {"etag": "", "modified": MODIFIED}], ids=["nothing", "a date"])
def test_a_reset_is_survived_by_a_file_that_has_no_etag(server, destination, pull, about):
    uri = server.put(PATH, CONTENT, **about)
    server.misbehave(PATH, reset(at=100_000, after=1, times=2))
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds(DELIVERED)


def test_an_empty_file_is_delivered(server, destination, pull):
    pull(server.put("/empty.bin", b""), destination.path)
    destination.assert_holds({"empty.bin": b""})


def test_redirects_without_end_end_the_delivery(server, destination, pull):
    uri = server.put(PATH, CONTENT)
    server.misbehave(PATH, redirect(uri))
    with pytest.raises(Unsupported, match="redirects too often"):
        pull(uri, destination.path)
    destination.assert_untouched()


class TickingClock:
    """A second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        self.seconds += 1
        return self.seconds

    def wait(self, stop, seconds: float) -> bool:
        self.seconds += seconds
        return stop.is_set()


def test_the_deadline_ends_a_transfer_that_waits(server, destination, tmp_path):
    server.misbehave("/model.bin", stall(at=1000, times=ALWAYS))
    uri = server.put("/model.bin", CONTENT)
    session = Session(Settings(limits=Limits(deadline_s=30, stall_s=60)), ignore, TickingClock())
    with pytest.raises(DeadlineExceeded) as caught:
        deliver([Request(uri, destination.path)], session)
    session.http.close()
    assert caught.value.exit_code == 5
    destination.assert_untouched()


def test_a_file_under_a_weak_validator_is_read_in_one_piece(server, destination, pull):
    uri = server.put("/model.bin", CONTENT, etag='W/"weak"')
    pull(uri, destination.path, range_bytes=RANGE_BYTES)
    destination.assert_holds(DELIVERED)
    assert [request.headers.get("range") for request in server.requests] == ["bytes=0-0", None]
