"""Azurite, Microsoft's own emulator of Blob Storage (3.37): signatures, SAS, tokens, listings, MD5, conditions."""

import json
import re
import shutil
import subprocess
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path

import pytest
import trustme
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ContentSettings,
    ResourceTypes,
    StandardBlobTier,
    generate_account_sas,
    generate_blob_sas,
    generate_container_sas,
)

from fakes.fake_azure import NOWHERE
from fakes.trees import MIB, content, facts, paths, read_tree, told, whole_manifest, write_contract_tree
from lading.errors import NotAllowed, NotFound
from lading.events import Event, Listed
from lading.model.digest import Digest
from lading.settings.limits import Limits, Network

ACCOUNT = "devstoreaccount1"
# Well known: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER = "models"
EXPIRY = "2100-01-01T00:00:00Z"
DATA = content(3 * MIB)
RANGE_BYTES = MIB
MODEL = {
    "model/a": b"a",
    "model/b/c d+e%41": b"c",
    "model/empty": b"",
    "model/gr\u00fc\u00dfe-\u6a21": b"u",
    "model-v2/a": b"v2",
}


@contextmanager
def azurite(program: str, folder: Path, *options: str) -> Iterator[str]:
    """The service URL of an Azurite that keeps everything below ``folder``."""
    command = [program, "--blobPort", "0", "--disableTelemetry", "--silent", "--location", str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
    try:
        assert process.stdout is not None
        said = (re.search(r"listens on (https?://127\.0\.0\.1:\d+)", line) for line in process.stdout)
        yield f"{next(match for match in said if match)[1]}/{ACCOUNT}"
    finally:
        process.terminate()
        process.communicate()


def client(url: str, **options) -> BlobServiceClient:
    """The official client, in a version of the protocol that this Azurite knows."""
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    return BlobServiceClient(url, credential=credential, api_version="2026-06-06", **options)


@pytest.fixture(scope="module")
def service(program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("azurite")
    with azurite(program("azurite-blob"), folder) as url:
        with client(url) as filler:
            container = filler.create_container(CONTAINER)
            for name, data in MODEL.items():
                container.upload_blob(name, data)
        yield url
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def container(service):
    with client(service) as filler:
        yield filler.get_container_client(CONTAINER)


@pytest.fixture
def settings(service):
    def make(**variables: str) -> dict[str, object]:
        about = {"AZURE_SERVICE_URL": service, "AZURE_POD_IDENTITY_AUTHORITY_HOST": NOWHERE}
        return {"variables": about | variables}

    return make


@pytest.fixture
def signed(settings):
    return settings(AZURE_STORAGE_ACCESS_KEY=KEY)


def test_the_same_tree_gives_the_same_manifest(service, tmp_path, signed, pull):
    tree = write_contract_tree(tmp_path / "tree")
    for place in (tree / "small").glob("*/*[1-9].json"):
        # A tenth of them will do: Azurite takes a minute for all.
        place.unlink()
    with client(service, max_single_put_size=8 * MIB, max_block_size=8 * MIB) as filler:
        container = filler.create_container("tree")

        def put(path: str) -> None:
            with (tree / path).open("rb") as file:
                container.upload_blob(path, file)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(put, paths(tree)))
        container.upload_blob("deep/", b"")
        container.upload_blob("deep/er", b"", metadata={"hdi_isfolder": "true"})
    expected = facts(tree)
    shutil.rmtree(tree)
    limits = Limits(stall_s=20.0, connect_s=5.0, attempts=4, workers=4)
    manifest = pull(f"{service}/tree", tmp_path / "out", limits=limits, **signed)
    assert told(manifest) == expected
    assert told(whole_manifest(tmp_path / "out")) == expected
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_ends_at_a_path_boundary_and_empty_blobs_stay(service, signed, tmp_path, pull, slash):
    pull(f"{service}/{CONTAINER}/model{slash}", tmp_path / "out", **signed)
    found = {name.removeprefix("model/"): data for name, data in MODEL.items() if name.startswith("model/")}
    assert read_tree(tmp_path / "out") == found


@pytest.mark.parametrize(
    ("path", "name"), [("b/c%20d+e%2541", "c d+e%41"), ("gr%C3%BC%C3%9Fe-%E6%A8%A1", "gr\u00fc\u00dfe-\u6a21")]
)
def test_a_single_blob_lands_under_its_base_name(service, signed, tmp_path, pull, path, name):
    pull(f"{service}/{CONTAINER}/model/{path}", tmp_path / "out", **signed)
    assert list(read_tree(tmp_path / "out")) == [name]


@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, len(DATA)], ids=["ranges", "whole"])
def test_the_md5_that_the_client_told_verifies_the_file(service, container, signed, tmp_path, pull, range_bytes):
    digest = md5(DATA)
    about = ContentSettings(content_md5=bytearray(digest.digest()), content_encoding="gzip")
    container.upload_blob("big/model.bin", DATA, content_settings=about, overwrite=True)
    uri = f"{service}/{CONTAINER}/big"
    manifest = pull(uri, tmp_path / "out", range_bytes=range_bytes, verify="strict", **signed)
    assert manifest.files[0].verified == (Digest("md5", digest.hexdigest()),)
    assert read_tree(tmp_path / "out") == {"model.bin": DATA}


def test_a_blob_that_changes_while_it_is_read_is_read_anew(service, container, signed, tmp_path, pull):
    container.upload_blob("moving/model.bin", DATA, overwrite=True)
    new = content(len(DATA), seed=5)
    left = [new]

    def listener(event: Event) -> None:
        # After the listing, and before the first byte.
        if isinstance(event, Listed) and left:
            container.upload_blob("moving/model.bin", left.pop(), overwrite=True)

    pull(f"{service}/{CONTAINER}/moving", tmp_path / "out", range_bytes=RANGE_BYTES, listener=listener, **signed)
    assert read_tree(tmp_path / "out") == {"model.bin": new}
    assert not left


def test_a_sas_for_the_account_the_container_or_one_blob_is_enough(service, settings, tmp_path, pull):
    signatures = {
        "account": generate_account_sas(
            ACCOUNT,
            KEY,
            ResourceTypes(container=True, object=True),
            AccountSasPermissions(read=True, list=True),
            EXPIRY,
        ),
        "container": generate_container_sas(ACCOUNT, CONTAINER, KEY, permission="rl", expiry=EXPIRY),
    }
    for name, sas in signatures.items():
        pull(f"{service}/{CONTAINER}/model?{sas}", tmp_path / name, **settings())
        assert len(read_tree(tmp_path / name)) == 4
    pull(
        f"{service}/{CONTAINER}/model", tmp_path / "given", **settings(AZURE_STORAGE_SAS_TOKEN=signatures["container"])
    )
    assert len(read_tree(tmp_path / "given")) == 4
    one = generate_blob_sas(ACCOUNT, CONTAINER, "model/a", account_key=KEY, permission="r", expiry=EXPIRY)
    pull(f"{service}/{CONTAINER}/model/a?{one}", tmp_path / "one", **settings())
    assert read_tree(tmp_path / "one") == {"a": b"a"}


def test_a_sas_whose_time_is_over_is_not_allowed(service, settings, tmp_path, pull):
    sas = generate_container_sas(ACCOUNT, CONTAINER, KEY, permission="rl", expiry="2020-01-01T00:00:00Z")
    # Azure's own code for it is AuthenticationFailed.
    with pytest.raises(NotAllowed, match="AuthorizationFailure") as caught:
        pull(f"{service}/{CONTAINER}/model?{sas}", tmp_path / "out", **settings())
    assert "SAS" in caught.value.hint
    assert re.search("sig=(?!\\*)", f"{caught.value}") is None


@pytest.mark.parametrize(("access", "files"), [("container", 1), ("blob", 0)])
def test_what_everybody_may_read_needs_no_credentials(service, settings, tmp_path, pull, access, files):
    with client(service) as filler:
        container = filler.create_container(f"public-{access}", public_access=access)
        container.upload_blob("model/a", b"a")
    pull(f"{service}/public-{access}/model/a", tmp_path / "one", **settings())
    assert read_tree(tmp_path / "one") == {"a": b"a"}
    if files:
        pull(f"{service}/public-{access}/model", tmp_path / "all", **settings())
        assert read_tree(tmp_path / "all") == {"a": b"a"}
    else:
        with pytest.raises((NotAllowed, NotFound)):
            pull(f"{service}/public-{access}/model", tmp_path / "all", **settings())


@pytest.mark.parametrize("key", [b64encode(b"wrong").decode(), ""])
def test_a_wrong_key_and_no_key_are_not_allowed(service, settings, tmp_path, pull, key):
    with pytest.raises((NotAllowed, NotFound)) as caught:
        pull(f"{service}/{CONTAINER}/model", tmp_path / "out", **settings(AZURE_STORAGE_ACCESS_KEY=key))
    assert caught.value.exit_code in (3, 4)
    assert not (tmp_path / "out").exists()


def test_names_that_are_near_are_told_where_nothing_is_found(service, signed, tmp_path, pull):
    with pytest.raises(NotFound) as caught:
        pull(f"{service}/{CONTAINER}/modl", tmp_path / "out", **signed)
    assert "model/" in caught.value.hint
    with pytest.raises(NotFound, match="ContainerNotFound"):
        pull(f"{service}/nothing/model", tmp_path / "out", **signed)


def test_an_archived_blob_says_so(service, container, signed, tmp_path, pull):
    blob = container.upload_blob("archived/a", b"a", overwrite=True)
    blob.set_standard_blob_tier(StandardBlobTier.ARCHIVE)
    with pytest.raises(NotAllowed, match="BlobArchived") as caught:
        pull(f"{service}/{CONTAINER}/archived", tmp_path / "out", **signed)
    assert "rehydrate" in caught.value.hint


def token(**about: object) -> str:
    """A token as Entra makes them, without its signature, which Azurite does not check."""
    claims = {"aud": "https://storage.azure.com", "iss": "https://sts.windows.net/x/", "ver": "1.0"}
    claims |= {"iat": int(time.time()) - 60, "nbf": int(time.time()) - 60, "exp": int(time.time()) + 3600} | about
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, b"signature"))


def test_a_bearer_token_reads_a_model(program, tmp_path, pull):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    (tmp_path / "azurite").mkdir()
    options = ("--oauth", "basic", "--cert", str(tmp_path / "cert.pem"), "--key", str(tmp_path / "key.pem"))
    with azurite(program("azurite-blob"), tmp_path / "azurite", *options) as url:
        with client(url, connection_verify=str(tmp_path / "ca.pem")) as filler:
            filler.create_container(CONTAINER).upload_blob("model/a", b"a")
        variables = {"AZURE_SERVICE_URL": url, "AZURE_POD_IDENTITY_AUTHORITY_HOST": NOWHERE}
        network = Network(ca_files=(str(tmp_path / "ca.pem"),))
        given = variables | {"AZURE_ACCESS_TOKEN": token()}
        pull(f"{url}/{CONTAINER}/model", tmp_path / "out", network=network, variables=given)
        assert read_tree(tmp_path / "out") == {"a": b"a"}
        for wrong in (token(aud="https://other.example"), token(exp=1)):
            given = variables | {"AZURE_ACCESS_TOKEN": wrong}
            with pytest.raises(NotAllowed):
                pull(f"{url}/{CONTAINER}/model", tmp_path / "none", network=network, variables=given)
