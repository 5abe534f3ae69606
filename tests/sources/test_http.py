"""One file behind a URL: what it is called, which headers are for its host, and what may not decide."""

import gzip
import json
import zlib
from base64 import b64encode
from hashlib import md5, sha256
from urllib.parse import urlsplit

import pytest

from fakes.faulty_http import Answer, redirect, status
from fakes.trees import content, read_tree, write_tree
from lading.errors import IntegrityError, LadingError, NotAllowed, Unsupported, UsageError
from lading.settings.http import read_headers
from lading.settings.settings import Settings
from lading.settings.variables import Variables
from lading.sources.http import file_name

CONTENT = content(300_000)


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "destination"


# A fake writes each character as the byte of its number.
IN_UTF_8 = "gr\u00fc\u00dfe.bin".encode().decode("latin-1")


@pytest.fixture
def tar(tmp_path):
    import tarfile

    write_tree(tmp_path / "tree", {"a/b": b"in the archive"})
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        archive.add(tmp_path / "tree", arcname="")
    return (tmp_path / "model.tar").read_bytes()


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("", ""),
        ("attachment", ""),
        ("attachment; filename=model.bin", "model.bin"),
        ('attachment; filename="model.bin"', "model.bin"),
        ('attachment;filename="my \\"model\\".bin";size=5', 'my "model".bin'),
        ('ATTACHMENT; FILENAME = "model.bin"', "model.bin"),
        ("attachment; filename=old.bin; filename*=UTF-8''%e6%a8%a1%e5%9e%8b.bin", "\u6a21\u578b.bin"),
        ("attachment; filename*=utf-8'en'new%20one.bin; filename=old.bin", "new one.bin"),
        ("attachment; filename*=iso-8859-1''gr%fc%dfe.bin", "gr\u00fc\u00dfe.bin"),
        ("attachment; filename*=koi8-r''x.bin; filename=old.bin", "old.bin"),
        ("attachment; filename*=UTF-8; filename=old.bin", "old.bin"),
        # What a stranger might write.
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\models\\\\model.bin"', "model.bin"),
        ("attachment; filename*=UTF-8''..%2f..%2fetc%2fpasswd", "passwd"),
        ('attachment; filename=".."', ""),
        ('attachment; filename="/"', ""),
        ('attachment; x="; filename=evil"', ""),
        ('attachment; filename="no end', ""),
        (";" * 10_000, ""),
        ("attachment" + '; x="' * 5000, ""),
    ],
)
def test_a_name_is_read_from_content_disposition(disposition, name):
    assert file_name(disposition) == name


@pytest.mark.parametrize(
    ("target", "disposition", "name"),
    [
        ("/models/model.bin", "", "model.bin"),
        ("/models/model.bin", "attachment; filename=other.bin", "model.bin"),
        ("/models/llama-3.1", "attachment; filename=other.bin", "llama-3.1"),
        ("/download", "", "download"),
        ("/download?id=5", "", "download"),
        ("/download?id=5", "attachment; filename=model.bin", "model.bin"),
        ("/download?token=a.b.c", "", "download"),
        ("/", "attachment; filename=model.bin", "model.bin"),
        ("", "attachment; filename=model.bin", "model.bin"),
        ("/models/?id=5", "inline; filename*=UTF-8''model.bin", "model.bin"),
        ("/models/gr%C3%BC%C3%9Fe.bin", "", "gr\u00fc\u00dfe.bin"),
        # Bytes that are not ASCII, as many programs write them: UTF-8, or Latin-1 by RFC 2616.
        ("/download", f'attachment; filename="{IN_UTF_8}"', "gr\u00fc\u00dfe.bin"),
        ("/download", 'attachment; filename="gr\u00fc\u00dfe.bin"', "gr\u00fc\u00dfe.bin"),
    ],
)
def test_a_file_is_called_as_its_path_says_or_else_its_server(server, destination, pull, target, disposition, name):
    server.put(urlsplit(target).path or "/", CONTENT, headers={"Content-Disposition": disposition})
    pull(server.url + target, destination)
    assert read_tree(destination) == {name: CONTENT}


@pytest.mark.parametrize(
    ("target", "disposition"),
    [
        ("/models/model.tar", ""),
        ("/download?id=5", 'attachment; filename="model.tar"'),
        ("/", 'attachment; filename="model.tar"'),
        ("/download?version=2&file=models/model.tar", ""),
        ("/download?file=models%2Fmodel.TAR", ""),
    ],
)
def test_an_archive_is_known_by_that_name(server, destination, pull, tar, target, disposition):
    server.put(urlsplit(target).path, tar, headers={"Content-Disposition": disposition})
    pull(server.url + target, destination)
    assert read_tree(destination) == {"a/b": b"in the archive"}


@pytest.mark.parametrize(
    "kind",
    ["", "text/html", "application/json", "application/x-tar", "application/zip", "application/octet-stream", "?"],
)
def test_the_content_type_does_not_decide(server, tmp_path, pull, tar, kind):
    headers = {"Content-Type": kind} if kind else {}
    pull(server.put("/model.bin", tar, headers=headers), tmp_path / "file")
    assert read_tree(tmp_path / "file") == {"model.bin": tar}
    pull(server.put("/model.tar", tar, headers=headers), tmp_path / "archive")
    assert read_tree(tmp_path / "archive") == {"a/b": b"in the archive"}


LOGIN = b"<html>please log in</html>"
LISTING = b'<!DOCTYPE HTML>\n<html lang="en"><head><title>Directory listing for /models/'
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    "page",
    [
        LOGIN,
        LISTING,
        b"\xef\xbb\xbf\r\n <!doctype html>",
        b'<?xml version="1.0"?>\n<!-- SSO -->\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">',
        b"<h1>Sign in</h1>",
        LISTING + CONTENT,
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("target", ["/model.bin", "/models", "/model.tar.gz", "/download?id=5"])
def test_a_page_in_the_place_of_a_file_is_refused(server, destination, pull, page, ranges, target):
    server.put(urlsplit(target).path, page, headers=HTML, ranges=ranges)
    with pytest.raises(NotAllowed, match="is a web page") as caught:
        pull(server.url + target, destination)
    assert "login page" in caught.value.hint
    assert not destination.exists()


@pytest.mark.parametrize("coding", ["gzip", ""])
def test_a_redirect_to_a_login_is_refused_and_says_where_it_leads(server, destination, pull, coding):
    page = gzip.compress(LOGIN) if coding else LOGIN
    server.put("/login", page, headers={**HTML, **({"Content-Encoding": coding} if coding else {})})
    server.misbehave("/model.bin", redirect("/login?next=%2Fmodel.bin&token=s3cret"))
    with pytest.raises(
        NotAllowed, match=r"/model\.bin leads to http://.*/login\?next=\*\*\*&token=\*\*\*, which is a web"
    ):
        pull(f"{server.url}/model.bin", destination)
    assert not destination.exists()


def test_the_page_of_an_error_that_passes_is_not_the_file(server, destination, pull):
    url = server.put("/model.bin", CONTENT, headers=HTML)
    server.misbehave(
        "/model.bin",
        status(503, LOGIN, headers=HTML, on=lambda request: request.headers.get("range") == "bytes=0-1023"),
    )
    pull(url, destination)
    assert read_tree(destination) == {"model.bin": CONTENT}


@pytest.mark.parametrize(
    ("name", "begins", "kind"),
    [
        # What says text/html of everything that it does not know, as PHP does.
        ("model.bin", b"\x80\x04\x95", "text/html"),
        ("model.safetensors", b"\x50\x00\x00\x00\x00\x00\x00\x00{", "text/html"),
        ("model.pmml", b'<?xml version="1.0"?>\n<!-- by a tool -->\n<PMML version="4.4">', "text/html"),
        ("vocab.txt", b"<unk>\n<s>\n</s>\n<pad>\n", "text/html"),
        ("empty", b"", "text/html"),
        # A page that is asked for as one, or that nobody calls one.
        ("card.html", LOGIN, "text/html"),
        ("card.HTM", LOGIN, "text/html"),
        ("template.jinja", LOGIN, "text/plain"),
        ("template.jinja", LOGIN, "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("ranges", [True, False])
def test_no_file_is_taken_for_a_page_by_what_its_server_calls_it(server, destination, pull, name, begins, kind, ranges):
    pull(server.put(f"/{name}", begins, headers={"Content-Type": kind}, ranges=ranges), destination)
    assert read_tree(destination) == {name: begins}


@pytest.mark.parametrize("url", ["https://[::1/x", "https://host:99999/x", "http://host:port/x", "https://[::1/x.git"])
def test_what_is_no_url_is_the_users_mistake(destination, pull, url):
    with pytest.raises(UsageError, match="is not a"):
        pull(url, destination)
    assert not destination.exists()


@pytest.mark.parametrize("target", ["/", "", "/models/", "/models/?id=5"])
@pytest.mark.parametrize("disposition", ["", "attachment", 'attachment; filename=".."'])
def test_a_folder_is_not_guessed(server, destination, pull, target, disposition):
    server.put(urlsplit(target).path or "/", b'<a href="model.bin">', headers={"Content-Disposition": disposition})
    with pytest.raises(UsageError, match="no listing of folders"):
        pull(server.url + target, destination)
    assert not destination.exists()


@pytest.mark.parametrize("name", [".lading", ".lading.manifest", "n" * 300, "a%00b"])
def test_a_name_that_cannot_be_is_refused(server, destination, pull, name):
    server.put("/", CONTENT, headers={"Content-Disposition": f"attachment; filename*=UTF-8''{name}"})
    with pytest.raises(IntegrityError):
        pull(f"{server.url}/", destination)
    assert not destination.exists()


HEADERS = json.dumps({"Authorization": "Bearer s3cret", "X-Other": 5})
PAIRS = [("Authorization", "Bearer s3cret"), ("X-Other", "5")]


@pytest.mark.parametrize(
    ("variables", "host", "port", "found"),
    [
        ({}, "h.test", None, []),
        ({"h.test-headers": HEADERS}, "h.test", None, PAIRS),
        ({"h.test-headers": HEADERS}, "h.test", 8443, PAIRS),
        ({"h.test:8443-headers": HEADERS}, "h.test", 8443, PAIRS),
        ({"h.test:8443-headers": HEADERS, "h.test-headers": "{}"}, "h.test", 8443, PAIRS),
        ({"h.test:8443-headers": HEADERS}, "h.test", 9443, []),
        ({"h.test-headers": HEADERS}, "h.test.", None, PAIRS),
        ({"h.test.-headers": HEADERS}, "h.test", None, PAIRS),
        ({"h.test:8443-headers": HEADERS}, "h.test.", 8443, PAIRS),
        ({"https-host": "h.test.:8443", "headers": HEADERS}, "h.test", 8443, PAIRS),
        ({"https-host": "h.test", "headers": HEADERS}, "h.test.", None, PAIRS),
        ({"h.test:8443-headers": HEADERS}, "h.test", None, []),
        ({"h.test-headers": HEADERS}, "a.h.test", None, []),
        ({"h.test-headers": HEADERS}, "test", None, []),
        ({"https-host": "h.test", "headers": HEADERS}, "h.test", None, PAIRS),
        ({"https-host": "H.test:8443", "headers": HEADERS}, "h.test", 8443, PAIRS),
        ({"https-host": "h.test:8443", "headers": HEADERS}, "h.test", None, []),
        ({"https-host": "other", "headers": HEADERS}, "h.test", None, []),
        (
            {"https-host": "h.test", "https-username": "u", "https-password": "p:\u00fc"},
            "h.test",
            None,
            [("Authorization", "Basic dTpwOsO8")],
        ),
    ],
)
def test_headers_are_for_one_host(variables, host, port, found):
    assert read_headers(Variables(variables), host, port) == found


@pytest.mark.parametrize("name", ["headers", "https-username", "https-password"])
def test_headers_for_no_host_are_refused(name):
    with pytest.raises(UsageError, match="without their host"):
        read_headers(Variables({name: HEADERS}), "h.test", None)


def test_storage_json_of_type_https_names_host_and_headers():
    config = {"type": "https", "host": "h.test", "headers": {"X-Token": "s3cret"}}
    variables = Settings.load({"STORAGE_CONFIG": json.dumps(config)}).variables
    assert read_headers(variables, "h.test", None) == [("X-Token", "s3cret")]
    assert read_headers(variables, "other.test", None) == []


def test_a_mounted_secret_of_kserve_is_understood(tmp_path, server, destination, pull):
    write_tree(tmp_path / "secret", {"https-host": b"127.0.0.1\n", "headers": b'{"X-Token": "s3cret"}'})
    (tmp_path / "lading.yaml").write_text(f"credentials: [{{prefix: '{server.url}', folder: {tmp_path}/secret}}]")
    settings = Settings.load({"LADING_CONFIG": str(tmp_path / "lading.yaml")})
    pull(server.put("/model.bin", CONTENT), destination, credentials=settings.credentials)
    assert {request.headers["x-token"] for request in server.requests} == {"s3cret"}


def test_a_user_in_the_uri_comes_before_configured_headers(server, destination, pull):
    uri = server.put("/model.bin", CONTENT).replace("://", "://u:p@")
    pull(uri, destination, variables={"127.0.0.1-headers": HEADERS})
    told = {(request.headers["authorization"], request.headers["x-other"]) for request in server.requests}
    assert told == {("Basic dTpw", "5")}


def encoded(server, coding: str, body: bytes) -> str:
    server.routes["/model.bin"] = lambda request: Answer(200, {"Content-Encoding": coding, "ETag": '"1"'}, body)
    return f"{server.url}/model.bin"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(CONTENT)),
        ("GZIP", gzip.compress(CONTENT)),
        ("x-gzip", gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:])),
        ("deflate", zlib.compress(CONTENT)),
        # Without zlib's wrapper, as some servers send it (RFC 9110, 8.4.1.2).
        ("deflate", zlib.compress(CONTENT, wbits=-15)),
        ("deflate", zlib.compress(CONTENT, 0, wbits=-15)),
        ("aws-chunked,gzip", gzip.compress(CONTENT)),
        ("aws-chunked, X-GZIP", gzip.compress(CONTENT)),
        (" gzip , identity", gzip.compress(CONTENT)),
        (",gzip,", gzip.compress(CONTENT)),
        ("gzip", gzip.compress(CONTENT) + bytes(10_000)),
        ("gzip", gzip.compress(CONTENT[:1000]) + bytes(512) + gzip.compress(CONTENT[1000:]) + bytes(512)),
    ],
)
def test_a_content_encoding_is_decoded(server, destination, pull, coding, body):
    pull(encoded(server, coding, body), destination)
    assert read_tree(destination) == {"model.bin": CONTENT}


WORDS = [
    "aws-chunked",
    "AWS-Chunked",
    "identity",
    "none",
    "binary",
    "utf-8",
    "ISO-8859-1",
    "8bit",
    "base64",
    "",
    ",",
    "null",
]


@pytest.mark.parametrize(
    "word", [*WORDS, "identity, aws-chunked", "aws-chunked,utf-8", "aws-chunked;x", "bzip2", "gzipped"]
)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_coding_that_is_only_a_word_changes_nothing(server, destination, pull, word, ranges):
    headers = {"Content-Encoding": word, "Repr-Digest": f"sha-256=:{b64encode(sha256(CONTENT).digest()).decode()}:"}
    url = server.put("/model.bin", CONTENT, headers=headers, ranges=ranges)
    manifest = pull(url, destination, range_bytes=100_000, verify="strict")
    assert read_tree(destination) == {"model.bin": CONTENT}
    assert manifest.files[0].validator
    assert len(server.requests) == (4 if ranges else 2)


def test_codings_may_stand_in_several_headers(server, destination, pull):
    body = gzip.compress(CONTENT)
    # Two headers, in the one place that there is for one.
    pull(encoded(server, "aws-chunked\r\nContent-Encoding: gzip", body), destination)
    assert read_tree(destination) == {"model.bin": CONTENT}


def test_digests_are_of_what_is_sent_and_not_of_what_is_decoded(server, destination, pull):
    body = gzip.compress(CONTENT)
    headers = {"Content-Encoding": "gzip", "Content-MD5": b64encode(md5(body).digest()).decode()}
    server.routes["/model.bin"] = lambda request: Answer(200, headers, body)
    manifest = pull(f"{server.url}/model.bin", destination)
    assert read_tree(destination) == {"model.bin": CONTENT}
    assert not manifest.files[0].verified


def test_a_packed_tar_that_is_also_called_encoded_becomes_its_tree(server, destination, pull, tar):
    pull(server.put("/model.tar.gz", gzip.compress(tar), headers={"Content-Encoding": "gzip"}), destination)
    assert read_tree(destination) == {"a/b": b"in the archive"}


@pytest.mark.parametrize(
    ("coding", "body", "kind"),
    [
        ("br", CONTENT, Unsupported),
        ("zstd", CONTENT, Unsupported),
        ("aws-chunked, br", CONTENT, Unsupported),
        ("utf-8,ZSTD", CONTENT, Unsupported),
        ("x-compress", CONTENT, Unsupported),
        ("gzip, br", CONTENT, Unsupported),
        ("gzip, gzip", gzip.compress(gzip.compress(CONTENT)), Unsupported),
        ("gzip", CONTENT, IntegrityError),
        ("gzip", gzip.compress(CONTENT) + b"behind it", IntegrityError),
        ("gzip", gzip.compress(CONTENT)[:-1], LadingError),
        ("deflate", b"\xff" + CONTENT, IntegrityError),
        ("deflate", zlib.compress(CONTENT)[:-1], LadingError),
        ("deflate", zlib.compress(CONTENT, wbits=-15)[:-1], LadingError),
        ("gzip", b"", LadingError),
    ],
)
def test_an_encoding_that_cannot_be_undone_is_refused(server, destination, pull, coding, body, kind):
    with pytest.raises(kind):
        pull(encoded(server, coding, body), destination)
    assert not (destination / ".lading.manifest").exists()
    assert not (destination / "model.bin").exists()
