"""Files over HTTP as nginx serves them: with ranges and without, compressed, behind a password, by another name."""

import gzip
import hashlib
import json
import subprocess

import pytest

from fakes.certificates import Authority
from fakes.nginx import free_port, nginx
from fakes.trees import MIB, content, read_tree, write_tree
from lading.errors import NotAllowed, NotFound, Unsupported, UsageError
from lading.settings.limits import Network

CONTENT = content(5 * MIB)
TEXT = b"compressible " * 100_000

SITE = """
  types {{ }}
  default_type text/plain;
  gzip on;
  gzip_types *;
  gzip_proxied any;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    root {folder}/files;
    location /whole/ {{ alias {folder}/files/; max_ranges 0; }}
    location /no-etag/ {{ alias {folder}/files/; etag off; }}
    location /weak/ {{ alias {folder}/files/; etag off; add_header ETag W/"1"; }}
    location /compressed/ {{ gzip_static always; }}
    location /private/ {{ alias {folder}/files/; auth_basic "x"; auth_basic_user_file {folder}/users; }}
    location /token/ {{ alias {folder}/files/; if ($http_x_token != s3cret) {{ return 403; }} }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
    location /listing/ {{ alias {folder}/files/; autoindex on; }}
    location = /download {{
      add_header Content-Disposition "attachment; filename*=UTF-8''mod%C3%A8le.bin";
      try_files /model.bin =404;
    }}
    location /proxied/ {{ proxy_pass https://127.0.0.1:{port}/; proxy_set_header Accept-Encoding ""; }}
  }}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def url(program, authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    write_tree(folder / "tree", {"a/b": b"in the archive", "c": b"", "big": CONTENT})
    files = {"model.bin": CONTENT, "text": TEXT, "empty.bin": b"", "compressed/text.txt.gz": gzip.compress(TEXT)}
    write_tree(folder / "files", files)
    subprocess.run(["tar", "-C", folder / "tree", "-czf", folder / "files/model.tar.gz", "."], check=True)
    (folder / "users").write_text("ada:{PLAIN}correct horse\n")
    certificate, key = authority.write_client(folder, "127.0.0.1")
    port = free_port()
    site = SITE.format(port=port, folder=folder, certificate=certificate, key=key)
    with nginx(program("nginx"), folder, port, site):
        yield f"https://127.0.0.1:{port}"


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "destination"


@pytest.fixture
def bring(authority, destination, pull):
    def call(uri: str, **settings):
        return pull(uri, destination, range_bytes=MIB, network=Network(ca_files=(authority.bundle,)), **settings)

    return call


@pytest.mark.parametrize("place", ["", "whole/", "no-etag/", "weak/", "moved/", "proxied/"])
def test_a_file_is_the_same_however_it_is_served(url, destination, bring, place):
    bring(f"{url}/{place}model.bin", digest=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    assert read_tree(destination) == {"model.bin": CONTENT}


def test_http_where_only_tls_is_spoken_is_told(url, destination, bring):
    with pytest.raises(Unsupported, match="speaks only TLS") as caught:
        bring(f"{url.replace('https:', 'http:')}/model.bin")
    assert "https://" in caught.value.hint


def test_an_empty_file_is_delivered(url, destination, bring):
    bring(f"{url}/empty.bin")
    assert read_tree(destination) == {"empty.bin": b""}


@pytest.mark.parametrize("path", ["text", "proxied/text"])
def test_a_server_that_would_compress_is_asked_not_to(url, destination, bring, path):
    bring(f"{url}/{path}")
    assert read_tree(destination) == {"text": TEXT}


def test_what_comes_compressed_all_the_same_is_decoded(url, destination, bring):
    bring(f"{url}/compressed/text.txt")
    assert read_tree(destination) == {"text.txt": TEXT}


def test_an_archive_is_unpacked_whatever_its_content_type(url, destination, bring):
    bring(f"{url}/model.tar.gz")
    assert read_tree(destination) == {"a/b": b"in the archive", "c": b"", "big": CONTENT}


def test_a_file_is_called_as_the_server_says_where_the_path_does_not(url, destination, bring):
    bring(f"{url}/download?id=5")
    assert read_tree(destination) == {"mod\u00e8le.bin": CONTENT}


def test_a_user_and_password_and_configured_headers_open_what_is_closed(url, destination, bring):
    for path in ("private", "token"):
        with pytest.raises(NotAllowed):
            bring(f"{url}/{path}/model.bin")
    assert not destination.exists()
    bring(f"{url}/private/model.bin".replace("://", "://ada:correct%20horse@"))
    bring(f"{url}/token/model.bin", variables={"127.0.0.1-headers": json.dumps({"X-Token": "s3cret"})})
    assert read_tree(destination) == {"model.bin": CONTENT}


def test_a_page_of_links_is_not_a_folder(url, destination, bring):
    with pytest.raises(UsageError, match="no listing of folders"):
        bring(f"{url}/listing/")
    with pytest.raises(NotFound):
        bring(f"{url}/none.bin")
    assert not destination.exists()
