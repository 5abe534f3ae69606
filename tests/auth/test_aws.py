"""Every provider of AWS credentials, against fakes that the official SDK believes too."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.fake_sts import in_seconds, sts
from fakes.faulty_http import Answer, FaultyServer, Request
from lading.auth.aws import AwsCredentials, xml_text
from lading.errors import LadingError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.network.client import HttpClient
from lading.network.wire import Head
from lading.retry import Retry, Run
from lading.secret import AwsKeys, Secret
from lading.settings.aws import read_aws
from lading.settings.limits import Limits, Network
from lading.settings.variables import Variables

Route = Callable[[Request], Answer]


@pytest.fixture
def fake() -> Iterator[Callable[[Route], FaultyServer]]:
    """Start a service that answers as it is told."""
    with ExitStack() as stack:

        def start(answer: Route) -> FaultyServer:
            server = stack.enter_context(FaultyServer())
            server.routes["/"] = answer
            return server

        yield start


@pytest.fixture
def http(clock) -> Iterator[HttpClient]:
    retry = Retry(Run(threading.Event(), clock), attempts=2)
    client = HttpClient(Network(), Limits(connect_s=5.0, stall_s=5.0), retry)
    yield client
    client.close()


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    """The official SDK with this environment and no other."""

    def session(**env: str):
        import os

        import botocore.session

        for name in list(os.environ):
            if name.startswith("AWS_") or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        files = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
        for name, value in {"AWS_EC2_METADATA_DISABLED": "true", **files, **env}.items():
            monkeypatch.setenv(name, value)
        return botocore.session.Session()

    return session


def credentials(http: HttpClient, region: str = "", **env: str) -> AwsCredentials:
    aws = read_aws(Variables({"AWS_EC2_METADATA_DISABLED": "true", **env}))
    return AwsCredentials(aws, http, region)


def revealed(keys: AwsKeys | None) -> tuple[str, str, str | None] | None:
    if keys is None:
        return None
    token = keys.session_token.reveal() if keys.session_token else None
    return keys.access_key_id, keys.secret_access_key.reveal(), token


def theirs(session) -> tuple[str, str, str | None]:
    frozen = session.get_credentials().get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


# ---- environment and files -----------------------------------------------------------------


def test_nothing_configured_means_no_keys(http: HttpClient) -> None:
    assert credentials(http).get() is None


def test_keys_of_the_environment_come_first(http: HttpClient, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("[default]\naws_access_key_id = F\naws_secret_access_key = F\n")
    env = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "S", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "c")}
    keys = credentials(http, **env).get()
    assert revealed(keys) == ("A", "S", None)
    assert keys is not None
    assert keys.kind == "environment"
    assert revealed(credentials(http, **env, AWS_SESSION_TOKEN="T").get()) == ("A", "S", "T")


@pytest.mark.parametrize("lone", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_a_pair_of_keys_is_a_usage_error(http: HttpClient, lone: str) -> None:
    with pytest.raises(UsageError, match="only one of"):
        credentials(http, **{lone: "x"}).get()


CONFIG = """
[default]
region = eu-west-1
aws_access_key_id = config
aws_secret_access_key = config%(percent)s
s3 =
  addressing_style = path

[profile other]
region = eu-west-2
aws_access_key_id = other-config
aws_secret_access_key = other-config
"""
OTHER = "region = eu-west-2\naws_access_key_id = o\naws_secret_access_key = s=\n"
CREDENTIALS = """
[default]
aws_access_key_id = file
aws_secret_access_key = file
aws_session_token = token

[third]
aws_access_key_id = third
aws_secret_access_key = third
"""


@pytest.mark.parametrize(
    ("config", "shared", "profile", "found", "region"),
    [
        (CONFIG, CREDENTIALS, "", ("file", "file", "token"), "eu-west-1"),
        (CONFIG, "", "", ("config", "config%(percent)s", None), "eu-west-1"),
        (CONFIG, CREDENTIALS, "other", ("other-config", "other-config", None), "eu-west-2"),
        (CONFIG, CREDENTIALS, "third", ("third", "third", None), ""),
        ("", CREDENTIALS, "", ("file", "file", "token"), ""),
        # Names as a shell reads them.
        ('[profile "other"]\n' + OTHER, "", "other", ("o", "s=", None), "eu-west-2"),
        ("[profile   'other']\n" + OTHER, "", "other", ("o", "s=", None), "eu-west-2"),
        ('[profile "my own"]\n' + OTHER, "", "my own", ("o", "s=", None), "eu-west-2"),
        ("[profile default]\n" + OTHER, "", "", ("o", "s=", None), "eu-west-2"),
        ("[profile x'y]\nregion = r\n[profile other]\n" + OTHER, "", "other", ("o", "s=", None), "eu-west-2"),
        ("[profile other]\n" + OTHER, "[other]\nregion = eu-west-3\n", "other", ("o", "s=", None), "eu-west-3"),
    ],
)
def test_profiles_are_read_as_the_official_sdk_reads_them(
    http: HttpClient,
    sdk: Callable,
    tmp_path: Path,
    config: str,
    shared: str,
    profile: str,
    found: tuple[str, str, str | None],
    region: str,
) -> None:
    (tmp_path / "config").write_text(config)
    (tmp_path / "shared").write_text(shared)
    env = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "shared")}
    if profile:
        env["AWS_PROFILE"] = profile
    ours = credentials(http, **env)
    assert revealed(ours.get()) == found
    assert ours.region == region
    session = sdk(**env)
    assert theirs(session) == found
    assert (session.get_config_variable("region") or "") == region


def test_the_region_that_is_configured_wins_over_the_profiles(http: HttpClient, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(CONFIG)
    assert credentials(http, "us-west-2", AWS_CONFIG_FILE=str(tmp_path / "config")).region == "us-west-2"


def test_an_editors_byte_order_mark_is_no_part_of_a_file(http: HttpClient, tmp_path: Path) -> None:
    (tmp_path / "shared").write_bytes(
        b"\xef\xbb\xbf[default]\r\naws_access_key_id = A\r\naws_secret_access_key = S\r\n"
    )
    ours = credentials(http, AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "shared"))
    assert revealed(ours.get()) == ("A", "S", None)


def test_a_profile_that_is_not_there_is_not_found(http: HttpClient) -> None:
    with pytest.raises(NotFound, match="no AWS profile lost"):
        credentials(http, AWS_PROFILE="lost")


@pytest.mark.parametrize(
    "key", ["credential_process", "sso_session", "sso_start_url", "source_profile", "credential_source"]
)
def test_what_a_profile_may_ask_for_and_lading_does_not_do_is_told(http: HttpClient, tmp_path: Path, key: str) -> None:
    (tmp_path / "config").write_text(f"[default]\n{key} = s3cret\n")
    with pytest.raises(Unsupported, match=key) as caught:
        credentials(http, AWS_CONFIG_FILE=str(tmp_path / "config")).get()
    assert "s3cret" not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    "text",
    [
        "s3cret without a section",
        "[default\ns3cret=1",
        "[default]\ns3cret",
        "[a]\n[a]\ns3cret=1",
        "[a]\ns3cret=1\ns3cret=2",
    ],
)
def test_a_damaged_file_is_refused_without_being_quoted(http: HttpClient, tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(UsageError) as caught:
        credentials(http, AWS_CONFIG_FILE=str(tmp_path / "config"))
    assert "s3cret" not in str(caught.value)


def test_files_that_are_not_there_or_no_files_count_as_empty(http: HttpClient, tmp_path: Path) -> None:
    env = {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": "/dev/null/x"}
    assert credentials(http, **env).get() is None


# ---- web identity --------------------------------------------------------------------------


def irsa(tmp_path: Path, url: str, token: str = "tok") -> dict[str, str]:
    (tmp_path / "token").write_text(token + "\n")
    return {
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/x",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ENDPOINT_URL_STS": url,
        "AWS_DEFAULT_REGION": "eu-west-1",
    }


def test_a_web_identity_is_exchanged_for_keys_as_the_official_sdk_does_it(
    http: HttpClient,
    sdk: Callable,
    fake: Callable[[Route], FaultyServer],
    tmp_path: Path,
) -> None:
    env = irsa(tmp_path, fake(sts()).url)
    keys = credentials(http, **env).get()
    assert revealed(keys) == ("AK1", "SK of tok", "ST of arn:aws:iam::1:role/x")
    assert keys is not None
    assert keys.kind == "web identity"
    env = irsa(tmp_path, fake(sts()).url)
    session = sdk(**env)
    assert theirs(session)[0] == "AK1"
    assert theirs(session)[2] == "ST of arn:aws:iam::1:role/x"


def test_a_role_of_a_profile_with_a_token_file_works_too(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("tok")
    (tmp_path / "config").write_text(
        f"[default]\nrole_arn = arn:x\nweb_identity_token_file = {tmp_path}/token\nrole_session_name = me\n"
    )
    env = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_ENDPOINT_URL_STS": fake(sts()).url}
    assert revealed(credentials(http, **env).get()) == ("AK1", "SK of tok", "ST of arn:x")


def test_a_refusal_of_sts_names_the_role_and_not_the_token(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path
) -> None:
    with pytest.raises(NotAllowed, match="AccessDenied") as caught:
        credentials(http, **irsa(tmp_path, fake(sts()).url, "bad s3cret")).get()
    assert "arn:aws:iam::1:role/x" in str(caught.value)
    assert "s3cret" not in f"{caught.value}{caught.value.hint}"


def test_sts_that_is_busy_is_asked_again(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path
) -> None:
    service = fake(sts(status=503))
    with pytest.raises(Unavailable):
        credentials(http, **irsa(tmp_path, service.url)).get()
    assert len(service.requests) == 2


def test_a_token_file_that_is_missing_is_named(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path
) -> None:
    env = irsa(tmp_path, fake(sts()).url)
    (tmp_path / "token").unlink()
    with pytest.raises(LadingError, match="token"):
        credentials(http, **env).get()


def test_keys_are_fetched_once_and_renewed_shortly_before_they_end_with_the_token_of_then(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path, clock
) -> None:
    long, short = fake(sts(3600)), fake(sts(250))
    holder = credentials(http, **irsa(tmp_path, long.url))
    assert holder.get() is holder.get()
    assert len(long.requests) == 1
    holder = credentials(http, **irsa(tmp_path, short.url))
    assert revealed(holder.get())[:2] == ("AK1", "SK of tok")
    # The kubelet rotates the file.
    (tmp_path / "token").write_text("tok2")
    assert revealed(holder.get())[:2] == ("AK1", "SK of tok")
    clock.seconds += 11
    assert revealed(holder.get())[:2] == ("AK2", "SK of tok2")


def test_keys_that_still_hold_are_used_while_no_others_can_be_had(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path, clock
) -> None:
    gives, down = sts(250), False
    service = fake(lambda request: Answer(503) if down else gives(request))
    holder = credentials(http, **irsa(tmp_path, service.url))
    keys = holder.get()
    down = True
    clock.seconds += 11
    assert holder.get() is keys
    assert len(service.requests) > 1
    clock.seconds += 300
    with pytest.raises(Unavailable):
        holder.get()


def test_keys_that_a_server_called_expired_are_fetched_anew_once(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path
) -> None:
    service = fake(sts(3600))
    holder = credentials(http, **irsa(tmp_path, service.url))
    refused = holder.get()
    assert holder.refused(refused, Head(403, {}))
    # A second thread that was refused with the same keys does not renew again.
    renewed = holder.get()
    assert renewed is not refused
    assert holder.refused(refused, Head(403, {}))
    assert holder.get() is renewed
    assert len(service.requests) == 2


def test_keys_that_follow_refused_ones_are_renewed_only_if_a_server_took_them(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path
) -> None:
    holder = credentials(http, **irsa(tmp_path, fake(sts(3600)).url))
    first = holder.get()
    # The service may have kept it for long.
    assert holder.refused(first, Head(403, {}))
    second = holder.get()
    assert not holder.refused(second, Head(403, {}))
    # That an old one was taken, in a request that took long, says nothing of it.
    holder.accepted(first)
    assert not holder.refused(second, Head(403, {}))
    holder.accepted(second)
    assert holder.refused(second, Head(403, {}))
    assert holder.get() is not second


def test_keys_without_an_end_cannot_be_renewed(http: HttpClient) -> None:
    holder = credentials(http, AWS_ACCESS_KEY_ID="A", AWS_SECRET_ACCESS_KEY="S")
    assert not holder.refused(holder.get(), Head(403, {}))
    assert not holder.refused(None, Head(403, {}))


def test_threads_that_ask_at_once_cause_one_request(
    http: HttpClient, fake: Callable[[Route], FaultyServer], tmp_path: Path
) -> None:
    service = fake(sts())
    holder = credentials(http, **irsa(tmp_path, service.url))
    found: list[AwsKeys | None] = []
    threads = [threading.Thread(target=lambda: found.append(holder.get())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.requests) == 1
    assert len(set(map(id, found))) == 1


# ---- container -----------------------------------------------------------------------------


def container(expected_token: str = "") -> Route:
    def answer(request: Request) -> Answer:
        asked = request.method, request.target, request.headers.get("authorization", "")
        if asked != ("GET", "/v2/credentials?id=7", expected_token):
            return Answer(403, body=b"{}")
        keys = {
            "AccessKeyId": "CA",
            "SecretAccessKey": "CS",
            "Token": "CT",
            "Expiration": in_seconds(3600),
            "RoleArn": "x",
        }
        return Answer(body=json.dumps(keys).encode())

    return answer


@pytest.mark.parametrize("by_file", [False, True])
def test_a_container_endpoint_gives_keys_as_the_official_sdk_asks_for_them(
    http: HttpClient,
    fake: Callable[[Route], FaultyServer],
    tmp_path: Path,
    by_file: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from botocore.credentials import ContainerProvider

    service = fake(container("the-token"))
    env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{service.url}/v2/credentials?id=7"}
    if by_file:
        (tmp_path / "token").write_text("the-token")
        env["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] = str(tmp_path / "token")
    else:
        env["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = "the-token"
    keys = credentials(http, **env).get()
    assert revealed(keys) == ("CA", "CS", "CT")
    assert keys is not None
    assert keys.kind == "container"
    loaded = ContainerProvider(environ=env).load()
    assert (loaded.access_key, loaded.secret_key, loaded.token) == ("CA", "CS", "CT")


def test_a_container_endpoint_that_refuses_is_not_allowed(
    http: HttpClient, fake: Callable[[Route], FaultyServer]
) -> None:
    url = fake(container("the-token")).url
    with pytest.raises(NotAllowed):
        credentials(http, AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{url}/v2/credentials?id=7").get()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.com/x", "unencrypted"),
        ("HTTP://example.com/x", "unencrypted"),
        ("http://8.8.8.8/", "unencrypted"),
        ("http:///x", "not an http or https URL"),
        ("file:///x", "not an http or https URL"),
    ],
)
def test_a_token_never_travels_in_the_clear_to_a_strange_host(http: HttpClient, url: str, says: str) -> None:
    env = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "s3cret"}
    with pytest.raises(UsageError, match=says) as caught:
        credentials(http, **env).get()
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in caught.value.hint
    assert "s3cret" not in str(caught.value)


def test_a_token_with_a_line_break_does_not_become_a_second_header(
    http: HttpClient, fake: Callable[[Route], FaultyServer]
) -> None:
    service = fake(container())
    env = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{service.url}/v2/credentials?id=7",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "s3cret\r\nX-Evil: 1",
    }
    with pytest.raises(LadingError, match="line break") as caught:
        credentials(http, **env).get()
    assert service.requests == []
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        "[]",
        "{}",
        "5",
        '{"AccessKeyId": "s3cret"}',
        '{"AccessKeyId": "A", "SecretAccessKey": "s3cret", "Expiration": "later"}',
        '{"AccessKeyId": "A", "SecretAccessKey": ["s3cret"]}',
        '{"AccessKeyId": "A", "SecretAccessKey": "s3cret", "Token": {"s3cret": 1}}',
        "[" * 100_000,
    ],
)
def test_an_answer_that_is_not_what_aws_documents_is_refused_without_being_quoted(
    http: HttpClient, fake: Callable[[Route], FaultyServer], text: str
) -> None:
    service = fake(lambda request: Answer(body=text.encode()))
    with pytest.raises(LadingError) as caught:
        credentials(http, AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{service.url}/x").get()
    assert "s3cret" not in f"{caught.value}{caught.value.hint}"


# ---- instance ------------------------------------------------------------------------------


def imds(*, token_status: int = 200, role: str = "node-role") -> Route:
    def answer(request: Request) -> Answer:
        if (request.method, request.path) == ("PUT", "/latest/api/token"):
            assert 1 <= int(request.headers["x-aws-ec2-metadata-token-ttl-seconds"]) <= 21600
            return Answer(token_status, body=b"session-token")
        if request.headers.get("x-aws-ec2-metadata-token") != "session-token":
            return Answer(401)
        if request.path == "/latest/meta-data/iam/security-credentials/":
            return Answer(body=role.encode()) if role else Answer(404)
        if request.path == f"/latest/meta-data/iam/security-credentials/{role}":
            keys = {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "LastUpdated": in_seconds(0),
                "AccessKeyId": "IA",
                "SecretAccessKey": "IS",
                "Token": "IT",
                "Expiration": in_seconds(3600),
            }
            return Answer(body=json.dumps(keys).encode())
        return Answer(404)

    return answer


def instance(http: HttpClient, url: str) -> AwsCredentials:
    return credentials(http, AWS_EC2_METADATA_DISABLED="false", AWS_EC2_METADATA_SERVICE_ENDPOINT=url)


def test_the_instances_metadata_give_keys_as_the_official_sdk_asks_for_them(
    http: HttpClient, fake: Callable[[Route], FaultyServer]
) -> None:
    from botocore.credentials import InstanceMetadataFetcher

    service = fake(imds())
    keys = instance(http, service.url + "/").get()
    assert revealed(keys) == ("IA", "IS", "IT")
    assert keys is not None
    assert keys.kind == "instance metadata"
    found = InstanceMetadataFetcher(base_url=service.url + "/", env={}).retrieve_iam_role_credentials()
    assert (found["access_key"], found["secret_key"], found["token"]) == ("IA", "IS", "IT")


@pytest.mark.parametrize("options", [{"token_status": 403}, {"token_status": 404}, {"role": ""}])
def test_an_instance_without_a_role_gives_no_keys(
    http: HttpClient, fake: Callable[[Route], FaultyServer], options: dict[str, object]
) -> None:
    assert instance(http, fake(imds(**options)).url).get() is None


def test_a_machine_that_is_no_instance_costs_one_attempt(
    http: HttpClient, fake: Callable[[Route], FaultyServer]
) -> None:
    service = fake(lambda request: Answer(503))
    assert instance(http, service.url).get() is None
    assert len(service.requests) == 1


def test_an_instance_whose_metadata_are_gone_at_renewal_does_not_become_anonymous(
    http: HttpClient, fake: Callable[[Route], FaultyServer]
) -> None:
    gives = imds()
    service = fake(lambda request: Answer(503) if gone else gives(request))
    gone = False
    holder = instance(http, service.url)
    keys = holder.get()
    gone = True
    assert holder.refused(keys, Head(403, {}))
    with pytest.raises(Unavailable, match="instance metadata"):
        holder.get()
    gone = False
    assert revealed(holder.get()) == ("IA", "IS", "IT")


def test_a_disabled_metadata_service_is_not_asked(http: HttpClient, fake: Callable[[Route], FaultyServer]) -> None:
    service = fake(imds())
    assert credentials(http, AWS_EC2_METADATA_SERVICE_ENDPOINT=service.url).get() is None
    assert service.requests == []


def test_services_of_this_machine_are_not_asked_through_a_proxy(clock, fake: Callable[[Route], FaultyServer]) -> None:
    service, proxy = fake(imds()), fake(lambda request: Answer(500))
    retry = Retry(Run(threading.Event(), clock), attempts=1)
    client = HttpClient(Network(http_proxy=proxy.url), Limits(), retry)
    try:
        assert revealed(instance(client, service.url).get()) == ("IA", "IS", "IT")
        assert proxy.requests == []
    finally:
        client.close()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<a><Code>X</Code></a>", "X"),
        (b'<a xmlns="urn:x"><b><Code>X</Code></b></a>', "X"),
        (b"<a/>", ""),
        (b"<a><Code/></a>", ""),
        (b"not xml", ""),
        (b"", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_text_of_xml_is_found_in_any_namespace(body: bytes, text: str) -> None:
    assert xml_text(body, "Code") == text


def test_a_secret_prints_as_stars_and_compares_by_value() -> None:
    secret = Secret("s3cret")
    assert f"{secret} {secret!r} {[secret]} %s" % secret == "*** *** [***] ***"
    assert secret == Secret("s3cret")
    assert secret != Secret("other")
    assert secret != "s3cret"
    assert len({secret, Secret("s3cret")}) == 1
