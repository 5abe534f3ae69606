import pytest

from lading.text.json_xml import read_json, read_xml


def test_a_document_is_read() -> None:
    assert read_json('{"a": [1, 2.5, null, "é"]}') == {"a": [1, 2.5, None, "é"]}
    assert read_xml(b"<a><b>c</b></a>").findtext("b") == "c"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 200_000,
        b"[" * 50_000 + b"]" * 50_000,
        b'["\\ud800"]',
        b"[NaN]",
        b"[Infinity]",
        b"[1e999]",
        b"9" * 5000,
    ],
)
def test_what_is_no_json_is_one_kind_of_error(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(text)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<a>",
        b"\xff",
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        b'<?xml version="1.0" encoding="hex"?><a/>',
        b'<?xml version="1.0" encoding="shift_jis"?><a/>',
    ],
)
def test_what_is_no_xml_is_one_kind_of_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_xml(body)
