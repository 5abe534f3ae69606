"""AWS and S3: the variables of the AWS SDKs and of KServe."""

from typing import NamedTuple

from lading.credentials import Secret
from lading.settings.variables import Variables, is_true

INSTANCE_METADATA_URL = "http://169.254.169.254"

# KServe's storage-spec secret (type s3): each key and the variable that it stands for.
STORAGE_KEYS = {
    "endpoint_url": "AWS_ENDPOINT_URL",
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "region": "AWS_DEFAULT_REGION",
    "ca_bundle": "AWS_CA_BUNDLE",
    "cabundle_configmap": "AWS_CA_BUNDLE_CONFIGMAP",
    "verify_ssl": "S3_VERIFY_SSL",
    "anonymous": "awsAnonymousCredential",
    "use_virtual_bucket": "S3_USER_VIRTUAL_BUCKET",
    "use_accelerate": "S3_USE_ACCELERATE",
}


class Aws(NamedTuple):
    """Where AWS credentials may come from (the provider chain is in ``lading.aws.credentials``)."""

    access_key_id: str = ""
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    profile: str = "default"
    config_file: str = ""
    credentials_file: str = ""
    role_arn: str = ""
    role_session_name: str = ""
    web_identity_token_file: str = ""
    sts_endpoint: str = ""
    container_url: str = ""
    container_token: Secret | None = None
    container_token_file: str = ""
    metadata_url: str = INSTANCE_METADATA_URL
    metadata_disabled: bool = False


class S3(NamedTuple):
    """How to address S3.  ``virtual_host`` None: by the endpoint (AWS: yes, any other: no)."""

    endpoint: str = ""
    region: str = ""
    virtual_host: bool | None = None
    accelerate: bool = False
    anonymous: bool = False
    verify_tls: bool = True


def read_aws(variables: Variables) -> Aws:
    """Where AWS credentials may come from, by the variables of the AWS SDKs."""
    relative = variables.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    home = variables.get("HOME", "")
    return Aws(
        access_key_id=variables.get("AWS_ACCESS_KEY_ID", ""),
        secret_access_key=variables.secret("AWS_SECRET_ACCESS_KEY"),
        session_token=variables.secret("AWS_SESSION_TOKEN"),
        profile=variables.get("AWS_PROFILE") or variables.get("AWS_DEFAULT_PROFILE") or "default",
        config_file=variables.get("AWS_CONFIG_FILE") or (f"{home}/.aws/config" if home else ""),
        credentials_file=variables.get("AWS_SHARED_CREDENTIALS_FILE") or (f"{home}/.aws/credentials" if home else ""),
        role_arn=variables.get("AWS_ROLE_ARN", ""),
        role_session_name=variables.get("AWS_ROLE_SESSION_NAME", ""),
        web_identity_token_file=variables.get("AWS_WEB_IDENTITY_TOKEN_FILE", ""),
        sts_endpoint=variables.get("AWS_ENDPOINT_URL_STS", ""),
        # The fixed address of the ECS agent:
        # https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
        container_url=f"http://169.254.170.2{relative}"
        if relative
        else variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", ""),
        container_token=variables.secret("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        container_token_file=variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", ""),
        metadata_url=variables.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or INSTANCE_METADATA_URL,
        metadata_disabled=variables.flag("AWS_EC2_METADATA_DISABLED"),
    )


def read_s3(variables: Variables) -> S3:
    """How to address S3, by the variables of KServe and of the AWS SDKs."""
    endpoint = (
        variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL") or variables.get("S3_ENDPOINT", "")
    )
    if endpoint and "://" not in endpoint:
        secure = variables.flag("S3_USE_HTTPS", default=True)
        endpoint = f"{'https' if secure else 'http'}://{endpoint}"
    # KServe's variable has the R by mistake; both spellings are understood.
    virtual = variables.get("S3_USER_VIRTUAL_BUCKET") or variables.get("S3_USE_VIRTUAL_BUCKET")
    return S3(
        endpoint=endpoint.rstrip("/"),
        region=variables.get("AWS_DEFAULT_REGION") or variables.get("AWS_REGION", ""),
        virtual_host=True if virtual and is_true(virtual, "S3_USER_VIRTUAL_BUCKET") else None,
        accelerate=variables.flag("S3_USE_ACCELERATE"),
        anonymous=variables.flag("awsAnonymousCredential"),
        verify_tls=variables.flag("S3_VERIFY_SSL", default=True),
    )
