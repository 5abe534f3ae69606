"""Shared Key signatures are those of Microsoft's own client, whatever is in the request."""

import pytest

from fakes.fake_azure import ACCOUNT, KEY, official_signature
from fakes.faulty_http import Request
from lading.auth.azure_signature import sign
from lading.errors import UsageError
from lading.secret import Secret

OWN = [("x-ms-date", "Mon, 05 Jan 2026 10:00:00 GMT"), ("x-ms-version", "2022-11-02")]


@pytest.mark.parametrize(
    ("method", "path", "query", "headers"),
    [
        ("GET", "/models/model.bin", "", []),
        ("HEAD", "/models/model.bin", "", []),
        ("GET", "/lading/models/model.bin", "", []),
        ("GET", "/models/a%20b%2Bc%25/%E6%A8%A1%E5%9E%8B~%27(1)", "", []),
        ("GET", "/models/model.bin", "", [("Range", "bytes=5-9"), ("If-Match", '"0x8D"')]),
        ("GET", "/models", "comp=list&include=metadata&prefix=a%2Fb%20c%26d%3D%2B&restype=container", []),
        ("GET", "/models", "restype=container&marker=2%21144%21MDAw&comp=list", []),
        ("GET", "/share/dir", "comp=list&include=Etag&restype=directory", [("x-ms-allow-trailing-dot", "true")]),
    ],
)
def test_a_signature_is_that_of_the_official_client(method, path, query, headers) -> None:
    sent = [*OWN, *headers]
    signed = sign(ACCOUNT, Secret(KEY), method=method, path=path, query=query, headers=sent)
    target = f"{path}?{query}" if query else path
    received = {"host": "lading.blob.core.windows.net"} | {name.lower(): value for name, value in sent}
    assert signed == ("Authorization", official_signature(Request(method, target, received)))


@pytest.mark.parametrize("key", ["s3cret!", "s3cre", "größe"])
def test_a_key_that_is_none_is_refused_and_not_shown(key) -> None:
    with pytest.raises(UsageError, match="not base64") as caught:
        sign(ACCOUNT, Secret(key), method="GET", path="/", query="", headers=OWN)
    assert key not in f"{caught.value} {caught.value.hint}"
