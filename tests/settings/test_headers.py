"""Headers that are configured as JSON: what they may be, for every source that takes them."""

import pytest

from lading.errors import UsageError
from lading.settings.hdfs import read_hdfs
from lading.settings.http import read_headers
from lading.settings.variables import Variables


def headers(name: str, text: str) -> list[tuple[str, str]]:
    """The headers that the variable ``name`` brings."""
    variables = Variables({"https-host": "h", "HDFS_NAMENODE": "http://h:9870", name: text})
    if name == "HDFS_HEADERS":
        return [(key, value.reveal()) for key, value in read_hdfs(variables).headers]
    return read_headers(variables, "h", 443)


NAMES = pytest.mark.parametrize("name", ["h-headers", "headers", "HDFS_HEADERS"])


@NAMES
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{}", []),
        ('{"X-Key": "s3cret", "Accept": "a/b"}', [("X-Key", "s3cret"), ("Accept", "a/b")]),
        ('{"X-Tenant": 7}', [("X-Tenant", "7")]),
    ],
)
def test_headers_are_an_object_of_texts(name, text, found):
    assert headers(name, text) == found


@NAMES
@pytest.mark.parametrize(
    "text",
    [
        # They were sent as Python writes them: None, True, ['s3cret'].
        *('{"X-Key": null}', '{"X-Key": true}', '{"X-Key": ["s3cret"]}', '{"X-Key": {"a": "s3cret"}}'),
        # The first one was not sent.
        '{"X-Key": "s3cret", "X-Key": "s3cret-2"}',
        *('{"X Key": "s3cret"}', '{"X-Key:": "s3cret"}', '{"": "s3cret"}', '{"größe": "s3cret"}'),
        # The server would wait for a body that never comes, or answer with another part of the file.
        *('{"Content-Length": "5"}', '{"transfer-encoding": "chunked"}', '{"Range": "bytes=0-1"}'),
        *("[1]", '"s3cret"', "null", "5", "s3cret", '{"X-Key": "s3cret"'),
    ],
)
def test_what_cannot_be_headers_is_refused_and_not_quoted(name, text):
    with pytest.raises(UsageError) as caught:
        headers(name, text)
    assert "s3cret" not in str(caught.value) + caught.value.hint
    assert name.removeprefix("HDFS_") in str(caught.value)
