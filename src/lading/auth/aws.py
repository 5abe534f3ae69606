"""The chain of AWS credential providers, in the order of the SDKs.

https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html: environment, web
identity (IRSA), shared files and profile, container endpoint (ECS, EKS pod identity), instance
metadata (IMDSv2).  The first that is configured answers; if it fails, its error is the answer,
since another identity could read other things.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

from lading.auth.authorizer import RefreshingCredential
from lading.auth.aws_endpoints import sts_url
from lading.errors import NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.model.origin import endpoint_origin
from lading.network.answer import status_error
from lading.network.client import HttpClient
from lading.secret import AwsKeys, Secret, unix_time
from lading.settings.aws import Aws, profile_endpoints
from lading.system.disk import read_secret_file
from lading.text.json_xml import read_json, read_xml
from lading.text.printable import printable

_LIMIT_BYTES = 256 * 1024
_FILES = "AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name these files, with sections such as [default]"


class AwsCredentials(RefreshingCredential[AwsKeys]):
    """Keys for requests, fetched once and renewed before they expire.  Safe from any thread."""

    def __init__(self, settings: Aws, http: HttpClient, region: str) -> None:
        super().__init__(http.retry.run.clock.now, first_may_be_old=True)
        self._settings = settings
        self._http = http
        self._profile = _read_profile(settings)
        self.region = region or self._profile.get("region", "")
        shared = profile_endpoints(self._profile)
        self.endpoints = settings.endpoints.or_else(shared._replace(s3="", sts="") if settings.ignores_urls else shared)

    def _fetch(self) -> AwsKeys | None:
        settings = self._settings
        if settings.access_key_id and settings.secret_access_key:
            return AwsKeys(settings.access_key_id, settings.secret_access_key, settings.session_token, "environment")
        if settings.access_key_id or settings.secret_access_key:
            raise UsageError(
                "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set", hint="set both, or neither"
            )
        if settings.role_arn and settings.web_identity_token_file:
            return self._web_identity(settings.role_arn, settings.web_identity_token_file, settings.role_session_name)
        if (keys := self._from_profile()) is not None:
            return keys
        if settings.container_url:
            return self._container(settings.container_url)
        if not settings.metadata_disabled:
            return self._instance_metadata()
        return None

    def _web_identity(self, role_arn: str, token_file: str, session_name: str) -> AwsKeys:
        endpoint = sts_url(self.endpoints, self.region or "us-east-1")
        endpoint_origin(endpoint, "AWS_ENDPOINT_URL_STS and AWS_ENDPOINT_URL").refuse_in_clear(
            "the web identity's token"
        )
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role_arn,
            "RoleSessionName": session_name or "lading",
            # The kubelet rotates this file: it is read at every renewal.
            "WebIdentityToken": read_secret_file(token_file),
        }
        head, body = self._http.fetch(
            "POST",
            endpoint,
            [("Content-Type", "application/x-www-form-urlencoded")],
            body=urlencode(form, quote_via=quote_plus).encode(),
            what="the web identity at STS",
            limit_bytes=_LIMIT_BYTES,
            redirects=0,
        )
        if head.status != 200:
            code = xml_text(body, "Code")
            raise NotAllowed(
                f"STS refuses the web identity for {printable(role_arn)} ({head.status} {printable(code)})".rstrip(),
                hint="check the role's trust policy and the service account's annotation",
            )
        return AwsKeys(
            xml_text(body, "AccessKeyId"),
            Secret(xml_text(body, "SecretAccessKey")),
            Secret(xml_text(body, "SessionToken")),
            "web identity",
            unix_time(xml_text(body, "Expiration")),
        )

    def _from_profile(self) -> AwsKeys | None:
        profile, name = self._profile, self._settings.profile
        if "role_arn" in profile and "source_profile" in profile:
            # Keys beside them are those of somebody else.
            raise _not_done(name, "source_profile")
        if "aws_access_key_id" in profile and "aws_secret_access_key" in profile:
            token = profile.get("aws_session_token")
            return AwsKeys(
                profile["aws_access_key_id"],
                Secret(profile["aws_secret_access_key"]),
                Secret(token) if token else None,
                f"profile {name}",
            )
        if "role_arn" in profile and "web_identity_token_file" in profile:
            return self._web_identity(
                profile["role_arn"], profile["web_identity_token_file"], profile.get("role_session_name", "")
            )
        for key in ("credential_process", "sso_session", "sso_start_url", "source_profile", "credential_source"):
            if key in profile:
                raise _not_done(name, key)
        return None

    def _container(self, url: str) -> AwsKeys:
        settings = self._settings
        variable = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
        endpoint_origin(url, variable).refuse_in_clear("the container's AWS credentials", f"check {variable}")
        token = settings.container_token.reveal() if settings.container_token else ""
        if settings.container_token_file:
            token = read_secret_file(settings.container_token_file)
        headers = [("Authorization", token)] if token else []
        local = self._http.direct(connect_s=2.0, stall_s=10.0, retry=self._http.retry)
        head, body = local.fetch(
            "GET", url, headers, what="the container's credentials", limit_bytes=_LIMIT_BYTES, redirects=0
        )
        if head.status != 200:
            raise status_error(head, "the container's credential endpoint", quoted=False)
        return _keys_from_json(body, "container")

    def _instance_metadata(self) -> AwsKeys | None:
        """IMDSv2: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html."""
        base = f"{self._settings.metadata_url.rstrip('/')}/latest"
        # Most machines are no instance and nothing answers there: that must cost a moment only.
        quick = self._http.direct(connect_s=1.0, stall_s=2.0, retry=self._http.retry._replace(attempts=1))
        try:
            head, token = quick.fetch(
                "PUT",
                f"{base}/api/token",
                [("X-aws-ec2-metadata-token-ttl-seconds", "21600")],
                limit_bytes=4096,
                redirects=0,
            )
            if head.status != 200:
                return None
            headers = [("X-aws-ec2-metadata-token", token.decode("ascii"))]
            roles = f"{base}/meta-data/iam/security-credentials/"
            head, role = quick.fetch("GET", roles, headers, limit_bytes=4096, redirects=0)
            if head.status != 200:
                return None
            name = role.decode("ascii").splitlines()[0].strip()
            head, body = quick.fetch("GET", roles + name, headers, limit_bytes=_LIMIT_BYTES, redirects=0)
        except (Unavailable, NotFound, UnicodeDecodeError, IndexError):
            return None
        if head.status != 200:
            raise status_error(head, "the instance's metadata service", quoted=False)
        return _keys_from_json(body, "instance metadata")


def _not_done(profile: str, key: str) -> Unsupported:
    return Unsupported(
        f"profile {printable(profile)} uses {key}, which lading does not support",
        hint="export the keys, for example by: aws configure export-credentials --format env",
    )


def xml_text(body: bytes, name: str) -> str:
    """The text of the first element called ``name``, in any namespace; "" if there is none."""
    try:
        root = read_xml(body)
    except ValueError:
        return ""
    found = next((element for element in root.iter() if element.tag.rpartition("}")[2] == name), None)
    return (found.text or "") if found is not None else ""


def _keys_from_json(body: bytes, kind: str) -> AwsKeys:
    try:
        data: dict[str, Any] = read_json(body)
        texts = [data["AccessKeyId"], data["SecretAccessKey"], data.get("Token") or ""]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError
        key_id, secret, token = texts
        return AwsKeys(
            key_id,
            Secret(secret),
            Secret(token) if token else None,
            kind,
            unix_time(data["Expiration"]) if data.get("Expiration") else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unsupported(f"the {kind} credentials do not have the form that AWS documents") from error


def _read_profile(settings: Aws) -> dict[str, str]:
    """The profile's values: the credentials file wins over the config file, as in the SDKs."""
    name = settings.profile
    values = _section(settings.config_file, "profile", name) | _section(settings.credentials_file, name)
    if name == "default":
        values = _section(settings.config_file, name) | values
    if not values and name != "default":
        raise NotFound(f"there is no AWS profile {printable(name)}", hint="check AWS_PROFILE")
    if services := values.get("services"):
        # https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
        found = _section(settings.config_file, "services", services)
        if not found:
            raise NotFound(f"there is no section services {printable(services)} of the AWS profile {printable(name)}")
        values |= found
    return values


def _section(path: str, *words: str) -> dict[str, str]:
    """The values of the section that is called so; those of a service, which stand below its name, by ``service.key``."""
    if not path:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except UnicodeDecodeError as error:
        raise UsageError(f"{printable(path)} is not an AWS configuration file", hint=_FILES) from error
    # Here, and not above: most machines have no such file.
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # The parser's message quotes the line, which may be a secret.
        raise UsageError(f"{printable(path)} is not an AWS configuration file", hint=_FILES) from error
    items = {key: value for name in parser.sections() if _is_called(name, words) for key, value in parser.items(name)}
    nested = {
        f"{key}.{line.partition('=')[0].strip()}": line.partition("=")[2].strip()
        for key, value in items.items()
        if value.startswith("\n")
        for line in value.splitlines()
    }
    return items | nested


def _is_called(section: str, words: Sequence[str]) -> bool:
    """Whether a section has this name; one of several words is read as by a shell: ``[profile "my own"]``."""
    if len(words) == 1:
        return section == words[0]
    import shlex

    try:
        return shlex.split(section) == [*words]
    except ValueError:
        return False
