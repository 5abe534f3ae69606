"""Credentials that end while a model is fetched."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from fakes.faulty_http import Answer
from fakes.real_s3 import ACCESS_KEY_ID, SECRET_ACCESS_KEY, s3_settings
from fakes.trees import content
from lading.errors import NotAllowed
from lading.settings.limits import Limits

PATH = "/credentials"
FILES = {f"{number:02}.bin": content(50_000, seed=number) for number in range(20)}
TOKEN = "x-amz-security-token"
ONE_AFTER_THE_OTHER = Limits(stall_s=5.0, connect_s=5.0, attempts=4, workers=1)


class ExpiringTokens:
    """The bucket's view: every token holds for a number of requests, then it has expired."""

    def __init__(self, requests_per_token: int) -> None:
        self.uses: dict[str, int] = {}
        self.requests_per_token = requests_per_token

    def __call__(self, request) -> str | None:
        token = request.headers[TOKEN]
        self.uses[token] = self.uses.get(token, 0) + 1
        return "ExpiredToken" if self.uses[token] > self.requests_per_token else None


class Endpoint:
    """A container's credential endpoint: new keys each time, which say that they end in ``minutes``."""

    def __init__(self, server, minutes: int) -> None:
        self.minutes = minutes
        self.given = 0
        server.routes[PATH] = self.answer

    def answer(self, request) -> Answer:
        self.given += 1
        keys = {
            "AccessKeyId": ACCESS_KEY_ID,
            "SecretAccessKey": SECRET_ACCESS_KEY,
            "Token": f"token-{self.given}",
            "Expiration": (datetime.now(UTC) + timedelta(minutes=self.minutes)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return Answer(200, {}, json.dumps(keys).encode())


@pytest.fixture
def filled(bucket):
    for path, data in FILES.items():
        bucket.put(f"model/{path}", data)
    return bucket


@pytest.mark.parametrize("workers", [1, 8])
def test_keys_that_expire_half_way_are_renewed(server, filled, destination, pull, workers):
    endpoint = Endpoint(server, minutes=60)
    filled.refuse = ExpiringTokens(requests_per_token=15)
    variables = {"AWS_ENDPOINT_URL": server.url, "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url + PATH}
    limits = Limits(stall_s=5.0, connect_s=5.0, attempts=4, workers=workers)
    pull("s3://models/model", destination.path, variables=variables, limits=limits)
    destination.assert_holds(FILES)
    assert endpoint.given == 2


def test_keys_that_are_about_to_end_are_renewed_before_they_are_refused(server, filled, destination, pull, clock):
    endpoint = Endpoint(server, minutes=1)
    tokens = ExpiringTokens(requests_per_token=1)

    def eleven_seconds_later(request) -> str | None:
        clock.seconds += 11
        return tokens(request)

    filled.refuse = eleven_seconds_later
    variables = {"AWS_ENDPOINT_URL": server.url, "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url + PATH}
    pull("s3://models/model", destination.path, variables=variables, limits=ONE_AFTER_THE_OTHER)
    destination.assert_holds(FILES)
    assert max(tokens.uses.values()) == 1
    assert endpoint.given >= len(FILES)


def test_keys_that_are_called_expired_again_and_again_are_refused_and_not_awaited(server, filled, destination, pull):
    endpoint = Endpoint(server, minutes=60)
    filled.refuse = ExpiringTokens(requests_per_token=0)
    variables = {"AWS_ENDPOINT_URL": server.url, "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url + PATH}
    with pytest.raises(NotAllowed, match="ExpiredToken") as caught:
        pull("s3://models/model", destination.path, variables=variables, limits=ONE_AFTER_THE_OTHER)
    assert "check the clocks" in caught.value.hint
    assert endpoint.given == 2
    destination.assert_untouched()


def test_keys_that_are_old_from_the_start_are_renewed_once(server, filled, destination, pull):
    endpoint = Endpoint(server, minutes=60)
    filled.refuse = lambda request: "ExpiredToken" if request.headers[TOKEN] == "token-1" else None
    variables = {"AWS_ENDPOINT_URL": server.url, "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url + PATH}
    pull("s3://models/model", destination.path, variables=variables, limits=ONE_AFTER_THE_OTHER)
    destination.assert_holds(FILES)
    assert endpoint.given == 2


def test_keys_that_expire_unannounced_end_the_delivery_and_new_ones_continue_it(server, filled, destination, pull):
    filled.refuse = ExpiringTokens(requests_per_token=10)

    def deliver(token: str) -> None:
        settings = s3_settings(server.url, AWS_SESSION_TOKEN=token)
        pull("s3://models/model", destination.path, limits=ONE_AFTER_THE_OTHER, **settings)

    with pytest.raises(NotAllowed, match="ExpiredToken") as caught:
        deliver("first")
    assert caught.value.exit_code == 4
    assert "run again" in caught.value.hint
    destination.assert_untouched()
    received = destination.received_bytes()
    assert received > 0
    server.behave()
    filled.refuse = lambda request: None
    deliver("second")
    destination.assert_holds(FILES)
    assert server.asked_bytes == sum(map(len, FILES.values())) - received
