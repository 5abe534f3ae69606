"""The families of sources: one row each, with the facts that are needed before a family's modules are loaded.

A new source is a file in ``sources/``, a file here if it has settings of its own, and a row in ``FAMILIES``.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Family(NamedTuple):
    """One kind of source.  It names its modules as text, so that a delivery loads only the families that it uses.

    ``schemes`` maps the schemes of its URIs to ``module:name`` of the class or function that opens them.
    ``settings`` is the module that reads its variables; ``STORAGE_KEYS`` of that module maps the keys of a storage
    JSON of the types ``storage_types`` to variables.

    ``dependents`` maps a variable to those that belong to it.  They are dropped when the variable gets a new value
    and they do not: an old session token would make new keys wrong, and a new host must not get the old host's
    token.  ``hosted`` maps the variable of a login's host to the variables of the login: while no host is named,
    the login is sent to any host that a URI names.
    """

    schemes: Mapping[str, str]
    settings: str = ""
    storage_types: tuple[str, ...] = ()
    dependents: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    hosted: Mapping[str, tuple[str, ...]] = MappingProxyType({})


# HF_HOME, XDG_CACHE_HOME and HOME are folders in which a token's file is looked for.
_OF_HUGGING_FACE = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME", "HOME")
_OF_HDFS = tuple(
    f"HDFS_{name}"
    for name in (
        *("DELEGATION_TOKEN", "HEADERS", "KERBEROS_KEYTAB", "KERBEROS_PRINCIPAL", "ROOTPATH", "USER_PROXY"),
        *("TLS_CA", "TLS_CERT", "TLS_KEY", "TLS_SKIP_VERIFY"),
    )
)
_AZURE_IDENTITY = ("AZURE_CLIENT_ID", "AZ_CLIENT_ID", "AZURE_ACCESS_TOKEN")
_AZURE_ACCOUNT = ("AZURE_ACCOUNT_NAME", "AZ_ACCOUNT_NAME")

FAMILIES = (
    Family(dict.fromkeys(("", "file"), "lading.sources.local:LocalSource")),
    Family(
        dict.fromkeys(("git+http", "git+https"), "lading.sources.git:GitSource"),
        settings="lading.settings.git",
        storage_types=("git",),
        dependents={"GIT_PASSWORD": ("GIT_HOST",)},
        hosted={"GIT_HOST": ("GIT_USERNAME", "GIT_PASSWORD")},
    ),
    Family(
        dict.fromkeys(("http", "https"), "lading.sources.http:HttpSource"),
        settings="lading.settings.http",
        storage_types=("https",),
        dependents={"https-host": ("headers", "https-username", "https-password")},
    ),
    Family(
        dict.fromkeys(("oci", "oci+fetch", "oci+native"), "lading.sources.oci:OciSource"),
        settings="lading.settings.oci",
        storage_types=("oci",),
        dependents={"OCI_PASSWORD": ("OCI_HOST",)},
        hosted={"OCI_HOST": ("OCI_USERNAME", "OCI_PASSWORD")},
    ),
    Family(
        {"s3": "lading.sources.s3:S3Source"},
        settings="lading.settings.aws",
        storage_types=("s3",),
        dependents={
            "AWS_ACCESS_KEY_ID": ("AWS_SESSION_TOKEN",),
            "AWS_ENDPOINT_URL": ("AWS_ENDPOINT_URL_S3", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
            "AWS_ENDPOINT_URL_S3": ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",),
        },
    ),
    Family(
        dict.fromkeys(("hdfs", "webhdfs", "swebhdfs"), "lading.sources.hdfs:HdfsSource"),
        settings="lading.settings.hdfs",
        storage_types=("hdfs", "webhdfs"),
        dependents={"HDFS_NAMENODE": _OF_HDFS, "HDFS_SECRET_DIR": ("HDFS_NAMENODE", *_OF_HDFS)},
    ),
    Family({"gs": "lading.sources.gcs:GcsSource"}, settings="lading.settings.google", storage_types=("gs",)),
    Family(
        {"hf": "lading.sources.huggingface:HuggingFaceSource"},
        settings="lading.settings.huggingface",
        storage_types=("hf",),
        dependents={"HF_ENDPOINT": _OF_HUGGING_FACE},
    ),
    Family(
        dict.fromkeys(("modelscope", "ms"), "lading.sources.modelscope:ModelScopeSource"),
        settings="lading.settings.modelscope",
        storage_types=("modelscope",),
        dependents={"MODELSCOPE_ENDPOINT": ("MODELSCOPE_API_TOKEN",)},
    ),
    Family({"mlflow-artifacts": "lading.sources.mlflow:MlflowSource", "runs": "lading.sources.mlflow:open_run"}),
    # Its URIs begin with https: sources.schemes tells them by their hosts.
    Family(
        {},
        settings="lading.settings.azure",
        storage_types=("azure",),
        # An identity or a token wins over a key, a key belongs to one account, and a secret belongs to one identity.
        dependents={
            "AZURE_STORAGE_ACCESS_KEY": ("AZURE_STORAGE_SAS_TOKEN", *_AZURE_IDENTITY, *_AZURE_ACCOUNT),
            "AZURE_STORAGE_SAS_TOKEN": ("AZURE_STORAGE_ACCESS_KEY", *_AZURE_IDENTITY, *_AZURE_ACCOUNT),
            "AZURE_CLIENT_ID": ("AZURE_CLIENT_SECRET", "AZ_CLIENT_SECRET", "AZURE_ACCESS_TOKEN"),
            "AZ_CLIENT_ID": ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_ACCESS_TOKEN"),
            "AZ_CLIENT_SECRET": ("AZURE_CLIENT_SECRET",),
            "AZ_TENANT_ID": ("AZURE_TENANT_ID",),
            "AZURE_ACCESS_TOKEN": ("AZURE_CLIENT_ID", "AZ_CLIENT_ID", "AZURE_ACCESS_EXPIRES_ON_SECONDS"),
        },
    ),
)
SCHEMES = {scheme: opener for family in FAMILIES for scheme, opener in family.schemes.items()}
STORAGE_TYPES = {kind: family.settings for family in FAMILIES for kind in family.storage_types}
HOSTED = {host: names for family in FAMILIES for host, names in family.hosted.items()}
DEPENDENTS = HOSTED | {name: others for family in FAMILIES for name, others in family.dependents.items()}
