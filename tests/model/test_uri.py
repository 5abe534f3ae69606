"""URIs: one law, and no secret in what is printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import UsageError
from lading.model.uri import ModelURI, redact
from lading.text.printable import printable

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
URI_LIKE = st.builds(
    "".join,
    st.lists(st.sampled_from([*"abz:/@?#=&%. +", "s3://", "https://", "://", "//", "..", "ü", "file:"]), min_size=1),
)


@given(TEXTS | URI_LIKE)
def test_what_parses_prints_as_it_was_written(text: str) -> None:
    try:
        uri = ModelURI.parse(text)
    except UsageError:
        assert any(ord(character) < 32 or ord(character) == 127 for character in text)
        return
    assert str(uri) == text
    assert ModelURI.parse(str(uri)) == uri


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://bucket/key", ("s3", "bucket", "/key", None, None)),
        ("s3://bucket", ("s3", "bucket", "", None, None)),
        ("https://u:p@h:1/p?q=1#f", ("https", "u:p@h:1", "/p", "q=1", "f")),
        ("file:///a/b", ("file", "", "/a/b", None, None)),
        ("file:/a/b", ("file", None, "/a/b", None, None)),
        ("h://x?", ("h", "x", "", "", None)),
        ("h://x#", ("h", "x", "", None, "")),
        ("/a/b?c#d", ("", None, "/a/b?c#d", None, None)),
        ("model:v2", ("", None, "model:v2", None, None)),
        ("./a://b", ("", None, "./a://b", None, None)),
        ("1s3://b", ("", None, "1s3://b", None, None)),
        ("s3+x.y-z://b/k", ("s3+x.y-z", "b", "/k", None, None)),
    ],
)
def test_a_uri_is_split_as_rfc_3986_says(text: str, parts: tuple[str | None, ...]) -> None:
    assert tuple(ModelURI.parse(text)) == parts


@pytest.mark.parametrize("text", ["", "s3://b/\n", "\x00", "http://h/\r\nHost: evil", "a\tb", "s3://b/\x1b[2J", "\x7f"])
def test_nothing_and_control_characters_are_refused_and_shown_escaped(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        ModelURI.parse(text)
    assert not any(ord(character) < 32 or ord(character) == 127 for character in str(caught.value))


@pytest.mark.parametrize("text", ["s3://b/\udc80", "HTTPS://\udcff@h/", "model-registry://m\ud800"])
def test_what_is_no_unicode_is_asked_of_no_server(text: str) -> None:
    with pytest.raises(UsageError, match="Unicode"):
        ModelURI.parse(text)


@pytest.mark.parametrize("text", ["caf\udce9", "/caf\udce9", "file:///caf\udce9"])
def test_a_local_file_may_have_a_name_that_is_no_unicode(text: str) -> None:
    assert str(ModelURI.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@host/p", "https://***@host/p"),
        ("https://secret@host/p", "https://***@host/p"),
        ("https://a@b@host/p", "https://***@host/p"),
        ("https://host/p?X-Amz-Signature=secret&versionId=7", "https://host/p?X-Amz-Signature=***&versionId=7"),
        ("https://host/p?secret", "https://host/p?***"),
        ("git+https://u:secret@host/p@v1#subdirectory=a/b", "git+https://***@host/p@v1#subdirectory=a/b"),
        ("git+https://host/p#subdirectory=a&token=secret", "git+https://host/p#***"),
        ("https://host/p?a=b=c&&d", "https://host/p?a=***&***&***"),
        ("https://host/p?REVISION=main", "https://host/p?REVISION=main"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("model-registry://iris@champion", "model-registry://iris@champion"),
        ("abfss://models@acc.dfs.core.windows.net/m", "abfss://models@acc.dfs.core.windows.net/m"),
        ("WASBS://$web@acc.blob.core.windows.net/m", "WASBS://$web@acc.blob.core.windows.net/m"),
        ("abfss://models@acc.dfs.core.windows.net/m?sig=secret", "abfss://models@acc.dfs.core.windows.net/m?sig=***"),
        ("abfs://models:secret@acc.dfs.core.windows.net/m", "abfs://***@acc.dfs.core.windows.net/m"),
        ("wasb://secret@models@acc.blob.core.windows.net/m", "wasb://***@acc.blob.core.windows.net/m"),
        ("https://models@acc.dfs.core.windows.net/m", "https://***@acc.dfs.core.windows.net/m"),
        ("s3a://key:secret@bucket/m", "s3a://***@bucket/m"),
        ("sftp://user@host/m", "sftp://***@host/m"),
        ("/a/local@path?x=y", "/a/local@path?x=y"),
    ],
)
def test_what_is_printed_holds_no_user_information_and_no_unknown_query_value(text: str, shown: str) -> None:
    assert ModelURI.parse(text).redacted() == shown
    assert redact(text) == shown


# No part of these is a letter of what is around them.
SECRETS = st.text("0123456789", min_size=6, max_size=12)


@given(SECRETS, SECRETS, SECRETS, st.sampled_from(["token", "sig", "X-Amz-Security-Token", "versionIdd", ""]))
def test_no_secret_survives_redaction_wherever_it_stands(user: str, password: str, value: str, key: str) -> None:
    shown = redact(f"https://{user}:{password}@host/path?{key}={value}&x={value}#f")
    assert user not in shown
    assert password not in shown
    assert value not in shown


def test_what_cannot_be_parsed_is_not_printed_at_all() -> None:
    assert redact("http://user:secret@host/\n") == "***"
    assert redact("") == "***"


@given(TEXTS)
def test_printable_text_never_steers_a_terminal(text: str) -> None:
    assert not any(
        ord(character) < 32 or 127 <= ord(character) < 160 or character in "\u2028\u2029\u202e\u2066"
        for character in printable(text)
    )


def test_ordinary_text_is_printed_as_it_is() -> None:
    assert printable("größe 模型 a/b.bin") == "größe 模型 a/b.bin"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("https://h/f?file=a", "https://h/f?file=b", False),
        (
            "https://h/f?file=a&X-Amz-Signature=1&X-Amz-Date=2",
            "https://h/f?file=a&X-Amz-Signature=3&X-Amz-Date=4",
            True,
        ),
        ("https://h/f?sv=1&sig=2&se=3", "https://h/f?sv=4&sig=5&se=6", True),
        ("https://h/f?ske=1&scid=2&sip=3&sig=4", "https://h/f?ske=5&scid=6&sip=7&sig=8", True),
        ("https://me:one@h/f", "https://h/f", True),
        ("https://h/f?token=one", "https://h/f?token=two", True),
        ("https://h/f?version=1", "https://h/f?version=2", False),
        ("s3://b/m", "s3://b/n", False),
        ("abfss://a@acc.dfs.core.windows.net/m", "abfss://b@acc.dfs.core.windows.net/m", False),
        ("model-registry://iris@champion", "model-registry://wine@champion", False),
        ("./m", "./n", False),
    ],
)
def test_the_identity_tells_what_is_asked_for_and_not_by_whom(first: str, second: str, same: bool) -> None:
    assert (ModelURI.parse(first).identity() == ModelURI.parse(second).identity()) is same


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("s3a://b/k", "s3://b/k"),
        ("S3N://b/k#x", "s3://b/k#x"),
        ("gcs://b/k", "gs://b/k"),
        ("wasb://c@acc.blob.core.windows.net/m", "https://acc.blob.core.windows.net/c/m"),
        ("wasbs://c@acc.blob.core.windows.net", "https://acc.blob.core.windows.net/c"),
        ("abfs://c@acc.dfs.core.windows.net/m/n", "https://acc.blob.core.windows.net/c/m/n"),
        ("ABFSS://c@Acc.Dfs.Core.Windows.Net/m", "https://Acc.blob.Core.Windows.Net/c/m"),
        ("abfss://c@acc.dfs.core.chinacloudapi.cn/m", "https://acc.blob.core.chinacloudapi.cn/c/m"),
        ("abfss://c@acc.dfs.core.usgovcloudapi.net:443/m", "https://acc.blob.core.usgovcloudapi.net:443/c/m"),
        ("abfss://c@acc.z12.dfs.storage.azure.net/m", "https://acc.z12.blob.storage.azure.net/c/m"),
        ("abfss://$web@acc-secondary.dfs.core.windows.net/m", "https://acc-secondary.blob.core.windows.net/$web/m"),
        # Hadoop's paths are as they are, and not encoded.
        ("abfss://c@acc.dfs.core.windows.net/a b/%41#1", "https://acc.blob.core.windows.net/c/a%20b/%2541%231"),
        ("abfss://c@acc.dfs.core.windows.net/m?sv=1&sig=x", "https://acc.blob.core.windows.net/c/m?sv=1&sig=x"),
        ("https://acc.dfs.core.windows.net/c/a%20b", "https://acc.blob.core.windows.net/c/a%20b"),
        ("https://user:pw@acc.dfs.core.windows.net/c", "https://user:pw@acc.blob.core.windows.net/c"),
        ("https://acc.blob.core.windows.net/c", "https://acc.blob.core.windows.net/c"),
        ("https://acc.dfs.core.windows.net.evil.example/c", "https://acc.dfs.core.windows.net.evil.example/c"),
        ("https://acc.file.core.windows.net/c", "https://acc.file.core.windows.net/c"),
        ("s3://b/k", "s3://b/k"),
        ("./m", "./m"),
    ],
)
def test_a_place_has_one_spelling_that_its_source_reads(text: str, canonical: str) -> None:
    assert str(ModelURI.parse(text).canonical()) == canonical
    assert str(ModelURI.parse(canonical).canonical()) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "abfss://container/path",
        "abfs:/path",
        "wasbs://@acc.blob.core.windows.net/m",
        "abfss://c:s3cret@acc.dfs.core.windows.net/m",
        "abfss://c@evil.example/m",
        "abfss://c@acc.dfs.core.windows.net.evil.example/m",
        "abfss://c@acc.file.core.windows.net/m",
    ],
)
def test_a_name_of_hadoop_s_for_azure_names_a_container_and_an_account(text: str) -> None:
    with pytest.raises(UsageError, match="names no container") as caught:
        ModelURI.parse(text).canonical()
    assert "CONTAINER@ACCOUNT" in caught.value.hint
    assert "s3cret" not in str(caught.value) + caught.value.hint
