"""Whom a connection is with, and what is no URL."""

import threading

import pytest

from lading.errors import UsageError
from lading.model.origin import endpoint_origin, split_url
from lading.model.uri import ModelURI
from lading.network.client import HttpClient
from lading.retry import Retry, Run
from lading.settings.limits import Limits, Network
from lading.settings.settings import Settings
from lading.settings.variables import Variables
from lading.sources.schemes import open_source


def test_an_endpoint_has_an_origin() -> None:
    assert str(endpoint_origin("https://minio:9000/base", "X")) == "https://minio:9000"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://minio.example", "https://minio.example."),
        ("https://minio.example", "https://MINIO.example.:443"),
        ("http://minio.example:80/a", "http://minio.example/b"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example."),
        ("https://[2001:db8::10]", "https://[2001:DB8:0::0010]:443"),
    ],
)
def test_a_login_belongs_to_a_host_however_it_is_written(one: str, other: str) -> None:
    assert split_url(one)[0].bare == split_url(other)[0].bare


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://minio.example", "http://minio.example."),
        ("https://minio.example", "https://minio.example.:9000"),
        ("https://minio.example", "https://minio.example.evil"),
        ("https://minio.example", "https://minio.example.."),
        ("https://[2001:db8::10]", "https://[2001:db8::1]"),
    ],
)
def test_a_login_belongs_to_no_other_host(one: str, other: str) -> None:
    assert split_url(one)[0].bare != split_url(other)[0].bare


@pytest.mark.parametrize(
    ("url", "sent", "certified"),
    [
        ("https://minio.example.:9000", "minio.example.:9000", "minio.example"),
        ("https://minio.example.", "minio.example.", "minio.example"),
        ("https://[fe80::1%25eth0]:9000", "[fe80::1]:9000", "fe80::1"),
        ("https://b\u00fccher.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_the_host_header_is_what_the_url_says_and_a_certificate_knows_no_dot(
    url: str, sent: str, certified: str
) -> None:
    origin, _ = split_url(url)
    assert (origin.authority, origin.name) == (sent, certified)


@pytest.mark.parametrize(
    "endpoint", ["http://[::1", "ftp://host", "https://", "https://host:99999", "https://u:s3cret@"]
)
@pytest.mark.parametrize(
    ("uri", "variable"),
    [
        ("s3://bucket/x", "AWS_ENDPOINT_URL"),
        ("gs://bucket/x", "STORAGE_EMULATOR_HOST"),
        ("hf://owner/model", "HF_ENDPOINT"),
        ("modelscope://owner/model", "MODELSCOPE_ENDPOINT"),
    ],
)
def test_an_endpoint_that_is_no_url_is_told_with_its_variable(uri: str, variable: str, endpoint: str) -> None:
    settings = Settings(variables=Variables({variable: endpoint, "awsAnonymousCredential": "true"}))
    http = HttpClient(Network(), Limits(), Retry(Run(threading.Event())))
    with pytest.raises(UsageError, match="is not an http or https URL") as caught:
        open_source(ModelURI.parse(uri), settings, http)
    assert variable in caught.value.hint
    assert "s3cret" not in str(caught.value)
