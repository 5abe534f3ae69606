"""AWS and S3: the variables of the AWS SDKs and of KServe."""

from collections.abc import Mapping
from typing import NamedTuple

from lading.secret import Secret
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
    "request_payer": "AWS_REQUEST_PAYER",
}


class Endpoints(NamedTuple):
    """Endpoints of S3 and STS, and options that choose AWS's own; None and "" where nothing is configured.

    ``global_sts`` asks STS by its global name, in the regions that have one.
    """

    s3: str = ""
    sts: str = ""
    fips: bool | None = None
    dual_stack: bool | None = None
    accelerate: bool | None = None
    global_sts: bool | None = None

    def or_else(self, other: "Endpoints") -> "Endpoints":
        """These endpoints, completed from ``other`` where nothing is configured."""
        lacking = {name: said for name, said in other._asdict().items() if getattr(self, name) in (None, "")}
        return self._replace(**lacking)


class Aws(NamedTuple):
    """Sources of AWS credentials (``lading.auth.aws`` has the provider chain), and the endpoints.

    ``ignores_urls`` says that endpoint URLs of the shared files are ignored, as those of the variables have been.
    """

    access_key_id: str = ""
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    profile: str = "default"
    config_file: str = ""
    credentials_file: str = ""
    role_arn: str = ""
    role_session_name: str = ""
    web_identity_token_file: str = ""
    endpoints: Endpoints = Endpoints()
    ignores_urls: bool = False
    container_url: str = ""
    container_token: Secret | None = None
    container_token_file: str = ""
    metadata_url: str = INSTANCE_METADATA_URL
    metadata_disabled: bool = False


class S3(NamedTuple):
    """How to address S3.  ``virtual_host`` None: as the endpoint needs it (AWS: yes, any other: no)."""

    region: str = ""
    virtual_host: bool | None = None
    request_payer: bool = False
    anonymous: bool = False
    verify_tls: bool = True


def read_aws(variables: Variables) -> Aws:
    """Read the sources of AWS credentials from the variables of the AWS SDKs."""
    relative = variables.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    home = variables.get("HOME", "")
    return Aws(
        access_key_id=variables.exact("AWS_ACCESS_KEY_ID"),
        secret_access_key=variables.secret("AWS_SECRET_ACCESS_KEY"),
        session_token=variables.secret("AWS_SESSION_TOKEN"),
        profile=variables.get("AWS_PROFILE") or variables.get("AWS_DEFAULT_PROFILE") or "default",
        config_file=variables.get("AWS_CONFIG_FILE") or (f"{home}/.aws/config" if home else ""),
        credentials_file=variables.get("AWS_SHARED_CREDENTIALS_FILE") or (f"{home}/.aws/credentials" if home else ""),
        role_arn=variables.get("AWS_ROLE_ARN", ""),
        role_session_name=variables.get("AWS_ROLE_SESSION_NAME", ""),
        web_identity_token_file=variables.get("AWS_WEB_IDENTITY_TOKEN_FILE", ""),
        endpoints=_endpoints(variables),
        ignores_urls=_ignores_urls(variables),
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
    """Read how to address S3 from the variables of KServe and of the AWS SDKs."""
    # KServe's variable has the R by mistake; both spellings are understood.
    virtual = variables.get("S3_USER_VIRTUAL_BUCKET") or variables.get("S3_USE_VIRTUAL_BUCKET")
    payer = variables.get("AWS_REQUEST_PAYER", "").strip().lower()
    return S3(
        region=variables.exact("AWS_DEFAULT_REGION", "AWS_REGION"),
        virtual_host=True if virtual and is_true(virtual, "S3_USER_VIRTUAL_BUCKET") else None,
        # "requester" is the value that other programs use, such as GDAL; a flag is understood, too.
        request_payer=payer == "requester" or (bool(payer) and is_true(payer, "AWS_REQUEST_PAYER")),
        anonymous=variables.flag("awsAnonymousCredential"),
        verify_tls=variables.flag("S3_VERIFY_SSL", default=True),
    )


def profile_endpoints(profile: Mapping[str, str]) -> Endpoints:
    """The endpoints that a profile of the shared files names."""
    both = profile.get("endpoint_url", "")
    return Endpoints(
        s3=(profile.get("s3.endpoint_url") or both).rstrip("/"),
        sts=(profile.get("sts.endpoint_url") or both).rstrip("/"),
        fips=_said(profile, "use_fips_endpoint"),
        dual_stack=_said(profile, "use_dualstack_endpoint"),
        global_sts=_is_legacy(profile.get("sts_regional_endpoints", "")),
    )


def _endpoints(variables: Variables) -> Endpoints:
    s3, sts = (variables.exact(f"AWS_ENDPOINT_URL_{service}", "AWS_ENDPOINT_URL") for service in ("S3", "STS"))
    if _ignores_urls(variables):
        s3 = sts = ""
    return Endpoints(
        s3=_as_url(s3 or variables.exact("S3_ENDPOINT"), variables),
        sts=_as_url(sts, variables),
        fips=_said(variables, "AWS_USE_FIPS_ENDPOINT"),
        dual_stack=_said(variables, "AWS_USE_DUALSTACK_ENDPOINT"),
        accelerate=_said(variables, "S3_USE_ACCELERATE"),
        global_sts=_is_legacy(variables.get("AWS_STS_REGIONAL_ENDPOINTS", "")),
    )


def _ignores_urls(variables: Variables) -> bool:
    return variables.flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")


def _as_url(endpoint: str, variables: Variables) -> str:
    if endpoint and "://" not in endpoint:
        secure = variables.flag("S3_USE_HTTPS", default=True)
        endpoint = f"{'https' if secure else 'http'}://{endpoint}"
    return endpoint.rstrip("/")


def _said(values: Mapping[str, str], name: str) -> bool | None:
    return is_true(values[name], name) if values.get(name) else None


def _is_legacy(text: str) -> bool | None:
    return text.strip().lower() == "legacy" if text else None
