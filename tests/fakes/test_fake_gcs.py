"""Our own Cloud Storage and our own Google are real to google-cloud-storage and google-auth, the official clients."""

import gzip

import pytest

from fakes.fake_gcs import FakeGcs
from fakes.fake_google import ACCOUNT, FakeGoogle
from fakes.faulty_http import ALWAYS, ANYWHERE, FaultyServer, anything, wrong_byte

NAMES = ["model/a", "model/b/c d+e", "model/b/\u6a21\u578b", "model-v2/a", "z"]
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"


@pytest.fixture
def gcs(server):
    gcs = FakeGcs(server)
    for name in NAMES:
        gcs.put(name, name.encode())
    return gcs


@pytest.fixture
def bucket(gcs):
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    options = {"api_endpoint": gcs.server.url}
    return storage.Client("project", AnonymousCredentials(), client_options=options).bucket("models")


def test_the_client_lists_every_name_over_several_pages(gcs, bucket):
    gcs.page_names = 2
    found = list(bucket.list_blobs())
    assert [blob.name for blob in found] == sorted(NAMES)
    assert [blob.size for blob in found] == [len(name.encode()) for name in sorted(NAMES)]
    assert [str(blob.generation) for blob in found] == [gcs.objects[name].generation for name in sorted(NAMES)]


def test_the_client_lists_below_a_prefix_and_rolls_up_folders(bucket):
    assert [blob.name for blob in bucket.list_blobs(prefix="model/b")] == ["model/b/c d+e", "model/b/\u6a21\u578b"]
    rolled = bucket.list_blobs(prefix="mod", delimiter="/")
    assert list(rolled) == []
    assert sorted(rolled.prefixes) == ["model-v2/", "model/"]


@pytest.mark.parametrize("checksum", ["crc32c", "md5"])
def test_the_client_reads_objects_and_verifies_them(server, bucket, checksum):
    from google.cloud.storage.exceptions import DataCorruption

    assert bucket.blob(NAMES[2]).download_as_bytes(checksum=checksum) == NAMES[2].encode()
    assert bucket.get_blob("model/a").download_as_bytes(start=2, end=4) == b"del"
    server.misbehave(ANYWHERE, wrong_byte(0, times=ALWAYS, on=anything))
    with pytest.raises(DataCorruption):
        bucket.blob("z").download_as_bytes(checksum=checksum)


def test_the_client_reads_one_generation_or_nothing(gcs, bucket):
    from google.api_core.exceptions import NotFound

    old = int(gcs.objects["z"].generation)
    gcs.put("z", b"new")
    with pytest.raises(NotFound):
        bucket.blob("z", generation=old).download_as_bytes()
    gcs.versions = True
    assert bucket.blob("z", generation=old).download_as_bytes() == b"z"
    assert bucket.blob("z").download_as_bytes() == b"new"


def test_the_client_decodes_an_object_in_gzip_and_reads_it_raw(gcs, bucket):
    stored = gzip.compress(b"text")
    gcs.put("z", stored, encoding="gzip")
    blob = bucket.get_blob("z")
    assert (blob.content_encoding, blob.download_as_bytes(), blob.download_as_bytes(raw_download=True)) == (
        "gzip",
        b"text",
        stored,
    )


def test_the_client_sees_that_a_composite_object_has_no_md5(gcs, bucket):
    gcs.put("z", b"z", composite=True)
    blob = bucket.get_blob("z")
    assert (blob.md5_hash, bool(blob.crc32c)) == (None, True)


def test_the_client_understands_the_errors(gcs, bucket):
    from google.api_core.exceptions import Forbidden

    assert bucket.get_blob("no") is None
    gcs.refuse = lambda request: (403, "forbidden")
    with pytest.raises(Forbidden):
        list(bucket.list_blobs())


def _key(google_, folder):
    from google.oauth2 import service_account

    return service_account.Credentials.from_service_account_info(google_.document("service_account"), scopes=[SCOPE])


def _refresh(google_, folder):
    from google.oauth2 import credentials as oauth2

    found = google_.document("authorized_user")
    known = {name: found[name] for name in ("refresh_token", "token_uri", "client_id", "client_secret")}
    return oauth2.Credentials(None, **known)


def _exchange(google_, folder, **fields):
    from google.auth import identity_pool

    (folder / "subject").write_text("se-cret-subject")
    source = {"file": str(folder / "subject")}
    document = google_.document("external_account", credential_source=source, **fields)
    return identity_pool.Credentials.from_info(document, scopes=[SCOPE])


def _impersonation(google_, folder):
    return _exchange(google_, folder, service_account_impersonation_url=google_.impersonation_url)


@pytest.mark.parametrize("credentials_of", [_key, _refresh, _exchange, _impersonation])
def test_google_auth_gets_a_token_for_every_kind_of_credentials(server, tmp_path, credentials_of):
    from google.auth.transport.requests import Request

    google_ = FakeGoogle(server)
    credentials = credentials_of(google_, tmp_path)
    credentials.refresh(Request())
    assert google_.granted[credentials.token]["kind"] == credentials_of.__name__.strip("_")


def test_google_auth_gets_a_token_from_the_metadata_server():
    from google.auth.compute_engine import Credentials, _metadata
    from google.auth.transport.requests import Request

    with FaultyServer() as server, pytest.MonkeyPatch.context() as patch:
        google_ = FakeGoogle(server)
        # Read from the environment when the module is imported.
        patch.setattr(_metadata, "_GCE_METADATA_HOST", google_.metadata_host)
        credentials = Credentials()
        credentials.refresh(Request())
        assert google_.granted[credentials.token] == {"kind": "metadata"}
        assert credentials.service_account_email == ACCOUNT
