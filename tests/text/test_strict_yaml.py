"""YAML that people write: what it may hold, and that nothing in it ends more than the reading of it."""

import pytest

from lading.errors import UsageError
from lading.text.strict_yaml import parse_yaml


def test_a_mapping_is_read() -> None:
    assert parse_yaml("a: {b: [1, two]}\n", "f") == {"a": {"b": [1, "two"]}}
    assert parse_yaml("", "f") == {}


@pytest.mark.parametrize(
    "value",
    [
        "2026-02-30",
        "2001-01-01 00:00:00 +99:99",
        "!!int x",
        "!!bool x",
        "!!timestamp x",
        "!!float x",
        "0x_",
        "9" * 5000,
    ],
)
def test_a_value_that_is_none_is_told_with_the_file(value: str) -> None:
    with pytest.raises(UsageError, match=r"the\.yaml") as caught:
        parse_yaml(f"a: {value}", "the.yaml")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, "- " * 100_000 + "x", "a: " + "{a: " * 5000, "? " * 100_000])
def test_a_document_that_is_nested_without_end_is_not_yaml(text: str) -> None:
    with pytest.raises(UsageError, match="is not YAML"):
        parse_yaml(text, "f")
