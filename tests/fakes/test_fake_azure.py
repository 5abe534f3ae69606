"""Our own Azure is Azure to Microsoft's clients: what lading is shown with it, it could meet."""

import pytest

from fakes.certificates import Authority
from fakes.fake_azure import ACCOUNT, CONTAINER, KEY, SHARE, TENANT, FakeAzure, FakeEntra
from fakes.faulty_http import FaultyServer

NAMES = ["model/a", "model/b/c d+e", "model/b/模型", "model-v2/a", "odd/\x01", "z"]
SIGNED = {"account_name": ACCOUNT, "account_key": KEY}
SCOPE = "https://storage.azure.com/.default"


@pytest.fixture
def azure():
    with FaultyServer() as server:
        azure = FakeAzure(server)
        for name in NAMES:
            azure.put(name, name.encode())
        yield azure


@pytest.fixture
def container(azure):
    from azure.storage.blob import ContainerClient

    with ContainerClient(f"{azure.server.url}/{ACCOUNT}", CONTAINER, credential=SIGNED, retry_total=0) as client:
        yield client


@pytest.fixture
def by_proxy(azure):
    """How the clients of Azure Files come: by the account's name, since an emulator's path does not tell the service."""
    url = f"http://{ACCOUNT}.file.core.windows.net"
    return {"account_url": url, "share_name": SHARE, "credential": SIGNED, "proxies": {"http": azure.server.url}}


def test_the_blob_client_lists_every_blob_over_several_pages(azure, container):
    azure.page_size = 2
    found = list(container.list_blobs(include=["metadata"]))
    assert sorted(blob.name for blob in found) == sorted(NAMES)
    assert {blob.name: blob.size for blob in found} == {name: len(name.encode()) for name in NAMES}
    head = container.get_blob_client("model/a").get_blob_properties()
    about = next(blob for blob in found if blob.name == "model/a")
    assert f'"{about.etag}"' == head.etag
    assert about.content_settings.content_md5 == head.content_settings.content_md5


def test_the_blob_client_lists_below_a_prefix_and_rolls_up_folders(container):
    from azure.storage.blob import BlobPrefix

    assert [blob.name for blob in container.list_blobs(name_starts_with="model/b")] == NAMES[1:3]
    rolled = [item for item in container.walk_blobs(name_starts_with="mod") if isinstance(item, BlobPrefix)]
    assert sorted(item.name for item in rolled) == ["model-v2/", "model/"]


def test_the_blob_client_reads_blobs_and_ranges_of_them(container):
    blob = container.get_blob_client(NAMES[2])
    assert blob.download_blob().readall() == NAMES[2].encode()
    assert container.get_blob_client("model/a").download_blob(offset=2, length=3).readall() == b"del"


def test_the_blob_client_understands_the_errors(azure, container):
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    with pytest.raises(ResourceNotFoundError) as caught:
        container.get_blob_client("no").download_blob()
    assert caught.value.error_code == "BlobNotFound"
    azure.refuse = lambda request: "AuthorizationPermissionMismatch"
    with pytest.raises(HttpResponseError) as refused:
        list(container.list_blobs())
    assert refused.value.error_code == "AuthorizationPermissionMismatch"


def test_a_wrong_key_and_no_key_are_refused_and_a_sas_is_not(azure):
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import ContainerClient, generate_blob_sas

    url = f"{azure.server.url}/{ACCOUNT}"
    sas = generate_blob_sas(ACCOUNT, CONTAINER, "z", account_key=KEY, permission="r", expiry="2030-01-01T00:00:00Z")
    wrong = {"account_name": ACCOUNT, "account_key": "d3Jvbmc="}
    for credential, code in ((wrong, "AuthenticationFailed"), (None, "PublicAccessNotPermitted")):
        with (
            ContainerClient(url, CONTAINER, credential=credential, retry_total=0) as client,
            pytest.raises(HttpResponseError) as caught,
        ):
            client.get_blob_client("z").download_blob()
        assert caught.value.error_code == code
    azure.sas.add(next(pair[4:] for pair in sas.split("&") if pair.startswith("sig=")).replace("%3D", "="))
    azure.sas = {signature.replace("%2B", "+").replace("%2F", "/") for signature in azure.sas}
    with ContainerClient(url, CONTAINER, credential=sas) as client:
        assert client.get_blob_client("z").download_blob().readall() == b"z"


def test_the_file_client_lists_folders_and_files_over_several_pages(azure, by_proxy):
    from azure.storage.fileshare import ShareDirectoryClient, ShareFileClient

    azure.page_size = 1
    azure.folders.add("model/nothing")
    with ShareDirectoryClient(directory_path="model", **by_proxy) as folder:
        found = list(folder.list_directories_and_files(include=["ETag"]))
    assert [(item.name, item.is_directory) for item in found] == [("a", False), ("b", True), ("nothing", True)]
    with ShareFileClient(file_path="model/a", **by_proxy) as file:
        head = file.get_file_properties()
    assert (found[0].size, found[0].etag) == (len("model/a"), head.etag)
    with ShareDirectoryClient(directory_path="odd", **by_proxy) as folder:
        assert [item.name for item in folder.list_directories_and_files()] == ["\x01"]


def test_the_file_client_reads_files_and_ranges_of_them(by_proxy):
    from azure.core.exceptions import ResourceNotFoundError
    from azure.storage.fileshare import ShareDirectoryClient, ShareFileClient

    with ShareFileClient(file_path=NAMES[2], **by_proxy) as file:
        assert file.download_file().readall() == NAMES[2].encode()
    with ShareFileClient(file_path="model/a", **by_proxy) as file:
        assert file.download_file(offset=2, length=3).readall() == b"del"
    with ShareDirectoryClient(directory_path="nothing", **by_proxy) as folder, pytest.raises(ResourceNotFoundError):
        list(folder.list_directories_and_files())


@pytest.fixture
def entra(tmp_path):
    authority = Authority(tmp_path)
    with FaultyServer(authority.server_context("127.0.0.1")) as server:
        entra = FakeEntra(server, FakeAzure(server))
        options = {"authority": server.url, "connection_verify": authority.bundle, "disable_instance_discovery": True}
        yield entra, options


def test_azure_identity_takes_tokens_for_a_secret_and_for_an_assertion(entra, tmp_path):
    from azure.identity import ClientSecretCredential, WorkloadIdentityCredential

    entra, options = entra
    with ClientSecretCredential(TENANT, "client", entra.secret, **options) as credential:
        assert credential.get_token(SCOPE).token == "s3cret-token-1"
    (tmp_path / "token").write_text("an assertion")
    identity = {"tenant_id": TENANT, "client_id": "client", "token_file_path": str(tmp_path / "token")}
    with WorkloadIdentityCredential(**identity, **options) as credential:
        assert credential.get_token(SCOPE).token == "s3cret-token-2"
    assert [(form["grant_type"], form["scope"]) for form in entra.forms] == [("client_credentials", SCOPE)] * 2


def test_azure_identity_takes_tokens_from_the_machine(monkeypatch):
    from azure.identity import ManagedIdentityCredential

    with FaultyServer() as server:
        entra = FakeEntra(server, FakeAzure(server))
        entra.identities = {"", "client"}
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", server.url)
        for client_id in (None, "client"):
            with ManagedIdentityCredential(client_id=client_id) as credential:
                assert credential.get_token(SCOPE).token
    assert [query.get("client_id") for query in entra.queries] == [None, "client"]
    assert entra.queries[0]["api-version"] == "2018-02-01"
