"""Which URIs are of Azure, and what they name."""

import pytest

from lading.errors import Unsupported, UsageError
from lading.events import ignore
from lading.model.uri import ModelURI
from lading.session import Session
from lading.settings.settings import Settings
from lading.sources.azure import AzureBlobSource, AzureFilesSource
from lading.sources.http import HttpSource
from lading.sources.schemes import open_source

EMULATOR = "http://127.0.0.1:10000/devstoreaccount1"


def opened(uri: str, **environment: str):
    settings = Settings.load({"LADING_CONFIG": "", **environment})
    return open_source(ModelURI.parse(uri), settings, Session(settings, ignore).http)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("https://acc.blob.core.windows.net/models/llm", AzureBlobSource),
        ("https://ACC.Blob.Core.Windows.Net/models/llm", AzureBlobSource),
        ("https://acc.blob.core.windows.net:443/models", AzureBlobSource),
        ("https://acc.blob.core.windows.net./models/llm", AzureBlobSource),
        ("https://acc.file.core.windows.net.:443/share/llm", AzureFilesSource),
        ("http://acc.blob.core.windows.net/models", AzureBlobSource),
        ("https://acc.z12.blob.storage.azure.net/models/llm", AzureBlobSource),
        ("https://acc.blob.core.chinacloudapi.cn/models/llm", AzureBlobSource),
        ("https://acc.blob.core.usgovcloudapi.net/models/llm", AzureBlobSource),
        ("https://acc-secondary.blob.core.windows.net/models/llm", AzureBlobSource),
        ("https://acc.blob.core.windows.net/models/repo.git", AzureBlobSource),
        ("https://acc.dfs.core.windows.net/models/llm", AzureBlobSource),
        ("https://acc.dfs.core.usgovcloudapi.net/models/llm", AzureBlobSource),
        ("abfss://models@acc.dfs.core.windows.net/llm", AzureBlobSource),
        ("abfs://models@acc.dfs.core.chinacloudapi.cn/llm", AzureBlobSource),
        ("wasbs://models@acc.blob.core.windows.net/llm.git", AzureBlobSource),
        ("wasb://models@acc.blob.core.windows.net", AzureBlobSource),
        ("https://acc.file.core.windows.net/share/llm", AzureFilesSource),
        ("https://acc.z1.file.storage.azure.net/share/llm", AzureFilesSource),
        ("https://acc.file.core.chinacloudapi.cn/share", AzureFilesSource),
        ("https://acc.web.core.windows.net/model.bin", HttpSource),
        ("https://acc.blob.core.windows.net.evil.example/models/llm", HttpSource),
        ("https://blob.core.windows.net/models/llm", HttpSource),
        ("https://evilblob.core.windows.net/models/llm", HttpSource),
    ],
)
def test_a_host_tells_the_service(uri: str, kind: type) -> None:
    assert type(opened(uri)) is kind


@pytest.mark.parametrize(
    ("service", "uri", "kind"),
    [
        (EMULATOR, f"{EMULATOR}/models/llm", AzureBlobSource),
        (f"{EMULATOR}/", f"{EMULATOR}/models", AzureBlobSource),
        (EMULATOR, "http://127.0.0.1:10000/devstoreaccount12/llm", HttpSource),
        (EMULATOR, "https://127.0.0.1:10000/devstoreaccount1/llm", HttpSource),
        (EMULATOR, "http://127.0.0.1:10001/devstoreaccount1/llm", HttpSource),
        (
            "https://acc.blob.local.azurestack.external",
            "https://acc.blob.local.azurestack.external/models/x",
            AzureBlobSource,
        ),
        (
            "https://acc.file.local.azurestack.external",
            "https://acc.file.local.azurestack.external/models/x",
            AzureFilesSource,
        ),
        ("https://acc.blob.core.windows.net", "https://other.example/models/x", HttpSource),
    ],
)
def test_what_is_below_the_configured_service_is_of_it(service: str, uri: str, kind: type) -> None:
    assert type(opened(uri, AZURE_SERVICE_URL=service)) is kind


@pytest.mark.parametrize(
    ("uri", "root", "path", "account"),
    [
        ("https://acc.blob.core.windows.net/models", "/models", "", "acc"),
        ("https://acc.blob.core.windows.net/models/", "/models", "", "acc"),
        ("https://acc.blob.core.windows.net/models/a/b", "/models", "a/b", "acc"),
        ("https://acc.blob.core.windows.net/models/a%20b%2Bc%2525", "/models", "a b+c%25", "acc"),
        ("https://acc.blob.core.windows.net/models/%E6%A8%A1", "/models", "模", "acc"),
        ("https://acc.blob.core.windows.net/$web/a", "/$web", "a", "acc"),
        ("https://acc.z12.blob.storage.azure.net/models/a", "/models", "a", "acc"),
        ("https://acc-secondary.blob.core.windows.net/models/a", "/models", "a", "acc"),
        (f"{EMULATOR}/models/a", "/devstoreaccount1/models", "a", "devstoreaccount1"),
    ],
)
def test_a_uri_names_an_account_a_container_and_a_path(uri: str, root: str, path: str, account: str) -> None:
    source = opened(uri, AZURE_SERVICE_URL=EMULATOR)
    assert (source._root, source._path, source._credentials._account) == (root, path, account)


@pytest.mark.parametrize(
    "uri",
    [
        "https://acc.blob.core.windows.net",
        "https://acc.blob.core.windows.net/",
        "https://acc.blob.core.windows.net//models",
        "https://acc.blob.core.windows.net/m/x",
        "https://acc.blob.core.windows.net/Models/x",
        "https://acc.blob.core.windows.net/mo%2Fdels/x",
        "https://acc.blob.core.windows.net/mod--els/x",
        "https://acc.blob.core.windows.net/models/x#y",
        "https://acc.blob.core.windows.net/models/%ff",
        "https://acc.blob.core.windows.net/models/\udcff",
        "https://user:s3cret@acc.blob.core.windows.net/models/x",
        "https://acc.blob.core.windows.net/models/x?snapshot=s3cret",
        "https://acc.blob.core.windows.net/models/x?sig=s3cret&comp=list",
        "https://acc.blob.core.windows.net/models/x?token=s3cret",
    ],
)
def test_what_names_nothing_is_refused(uri: str) -> None:
    with pytest.raises((UsageError, Unsupported)) as caught:
        opened(uri)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint
