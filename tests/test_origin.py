"""Whom a connection is with, and what is no URL."""

import threading

import pytest

from lading.errors import UsageError
from lading.http_client import HttpClient
from lading.origin import endpoint_origin
from lading.retry import Retry
from lading.settings import Limits, Network, Settings
from lading.settings.variables import Variables
from lading.sources import open_source
from lading.uri import ModelURI


def test_an_endpoint_has_an_origin() -> None:
    assert str(endpoint_origin("https://minio:9000/base", "X")) == "https://minio:9000"


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
    http = HttpClient(Network(), Limits(), Retry(threading.Event()))
    with pytest.raises(UsageError, match="is not an http or https URL") as caught:
        open_source(ModelURI.parse(uri), settings, http)
    assert variable in caught.value.hint
    assert "s3cret" not in str(caught.value)
