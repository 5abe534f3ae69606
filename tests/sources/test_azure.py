"""What Azure's listings and answers mean, for Blob Storage and for Azure Files."""

import hashlib
import itertools
from base64 import b64encode

import pytest

from fakes.certificates import Authority
from fakes.destination import Destination
from fakes.fake_azure import (
    ACCOUNT,
    CONTAINER,
    KEY,
    NOWHERE,
    SHARE,
    FakeAzure,
    FakeEntra,
    azure_settings,
    error,
    tunnel,
)
from fakes.faulty_http import ALWAYS, Answer, Fault, FaultyServer, anything, status, wrong_byte
from fakes.trees import content, read_tree, whole_manifest
from lading.deliver import deliver
from lading.delivery.request import Request
from lading.errors import IntegrityError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.events import Unverified
from lading.model.digest import Digest
from lading.model.uri import ModelURI
from lading.settings.credentials import CredentialRule
from lading.settings.limits import Limits, Network
from lading.settings.value import Value, ValuesByName

BLOB = f"http://{ACCOUNT}.blob.core.windows.net/{CONTAINER}"
FILES = f"http://{ACCOUNT}.file.core.windows.net/{SHARE}"
BOTH = pytest.mark.parametrize("base", [BLOB, FILES], ids=["blob", "files"])
DATA = content(1_000_000)
RANGE_BYTES = 300_000
MODEL = {"model/a": b"a", "model/b/c d+e%": b"c", "model/empty": b"", "model-v2/a": b"v2", "model.bin": b"bin"}


@pytest.fixture
def azure(server):
    azure = FakeAzure(server)
    for name, data in MODEL.items():
        azure.put(name, data)
    return azure


@pytest.fixture
def signed(server):
    return azure_settings(server)


@pytest.fixture
def unsigned(server):
    return azure_settings(server, AZURE_STORAGE_ACCESS_KEY="")


@BOTH
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_prefix_ends_at_a_path_boundary_and_empty_files_stay(azure, signed, tmp_path, pull, base, slash):
    pull(f"{base}/model{slash}", tmp_path / "out", **signed)
    whole_manifest(tmp_path / "out")
    assert read_tree(tmp_path / "out") == {"a": b"a", "b/c d+e%": b"c", "empty": b""}


@BOTH
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_whole_container_or_share_is_delivered(azure, signed, tmp_path, pull, base, slash):
    pull(f"{base}{slash}", tmp_path / "out", **signed)
    assert read_tree(tmp_path / "out") == MODEL


@BOTH
@pytest.mark.parametrize(
    ("name", "lands"), [("model/b/c%20d+e%25", "c d+e%"), ("model.bin", "model.bin"), ("model/empty", "empty")]
)
def test_a_single_file_lands_under_its_base_name(azure, signed, tmp_path, pull, base, name, lands):
    pull(f"{base}/{name}", tmp_path / "out", **signed)
    assert list(read_tree(tmp_path / "out")) == [lands]


def test_folders_of_azure_files_are_followed_however_deep(azure, signed, tmp_path, pull):
    deep = "/".join(f"level{number}" for number in range(40))
    azure.put(f"deep/{deep}/leaf", b"leaf")
    azure.folders.add("deep/nothing/in/here")
    pull(f"{FILES}/deep", tmp_path / "out", **signed)
    assert read_tree(tmp_path / "out") == {f"{deep}/leaf": b"leaf"}


def test_blobs_that_stand_for_folders_are_no_files(azure, signed, tmp_path, pull):
    azure.put("model/", b"")
    azure.put("model/b", b"", metadata={"hdi_isfolder": "true"})
    azure.put("model/of-hadoop", b"", metadata={"Hdi_isfolder": "True"})
    azure.put("model/of-the-hierarchy", b"", resource_type="directory")
    azure.put("model/slash/", b"marker")
    azure.put("model/tagged", b"x", metadata={"hdi_isfolder": "false", "other": "true"})
    pull(f"{BLOB}/model", tmp_path / "out", **signed)
    assert sorted(read_tree(tmp_path / "out")) == ["a", "b/c d+e%", "empty", "tagged"]
    with pytest.raises(NotFound):
        pull(f"{BLOB}/model/of-hadoop", tmp_path / "none", **signed)


@BOTH
def test_names_that_xml_cannot_hold_come_encoded(azure, signed, tmp_path, pull, base):
    azure.put("odd/\ufffe%41.json", b"odd")
    pull(f"{base}/odd", tmp_path / "out", **signed)
    assert read_tree(tmp_path / "out") == {"\ufffe%41.json": b"odd"}


@BOTH
@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, len(DATA)], ids=["ranges", "whole"])
def test_the_stored_md5_verifies_the_file(azure, signed, tmp_path, pull, base, range_bytes):
    azure.put("big/model.bin", DATA, headers={"Content-Encoding": "gzip"})
    manifest = pull(f"{base}/big", tmp_path / "out", range_bytes=range_bytes, verify="strict", **signed)
    assert manifest.files[0].verified == (Digest("md5", hashlib.md5(DATA).hexdigest()),)
    assert read_tree(tmp_path / "out") == {"model.bin": DATA}


@BOTH
@pytest.mark.parametrize("range_bytes", [RANGE_BYTES, len(DATA)], ids=["ranges", "whole"])
def test_bytes_that_do_not_match_the_stored_md5_are_refused(azure, server, signed, tmp_path, pull, base, range_bytes):
    azure.put("big/model.bin", DATA)
    server.misbehave("/models/big/model.bin", wrong_byte(len(DATA) - 1, times=ALWAYS))
    with pytest.raises(IntegrityError):
        pull(f"{base}/big", tmp_path / "out", range_bytes=range_bytes, **signed)
    assert read_tree(tmp_path / "out") == {}


@BOTH
def test_a_file_whose_md5_nobody_told_is_named_and_refused_when_strict(azure, signed, tmp_path, pull, base, events):
    azure.put("big/model.bin", DATA, told=False)
    with pytest.raises(Unsupported):
        pull(f"{base}/big", tmp_path / "out", verify="strict", **signed)
    pull(f"{base}/big", tmp_path / "out", **signed)
    assert any(isinstance(event, Unverified) and event.example == "model.bin" for event in events)


@BOTH
def test_a_listing_of_many_pages_is_read_to_its_end(azure, signed, tmp_path, pull, base):
    azure.page_size = 3
    for number in range(10):
        azure.put(f"many/{number}", b"%d" % number)
        azure.put(f"many/{number}-/x", b"x")
    pull(f"{base}/many", tmp_path / "out", **signed)
    assert len(read_tree(tmp_path / "out")) == 20


@BOTH
@pytest.mark.parametrize(("asked", "near"), [("modl", "model-v2/"), ("model/c", "there is a, b/, empty")])
def test_names_that_are_near_are_told_where_nothing_is_found(azure, signed, tmp_path, pull, base, asked, near):
    with pytest.raises(NotFound) as caught:
        pull(f"{base}/{asked}", tmp_path / "out", **signed)
    assert caught.value.exit_code == 3
    assert near in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_container_that_does_not_exist_is_not_found(azure, signed, tmp_path, pull):
    with pytest.raises(NotFound, match="ContainerNotFound") as caught:
        pull(f"http://{ACCOUNT}.blob.core.windows.net/another/model", tmp_path / "out", **signed)
    assert "names" in caught.value.hint


def test_what_leaves_the_destination_is_refused(azure, signed, tmp_path, pull):
    azure.blobs["model/../../etc/passwd"] = azure.blobs["model/a"]
    with pytest.raises(IntegrityError, match=r"'\.\.' segment"):
        pull(f"{BLOB}/model", tmp_path / "out", **signed)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "/etc"])
@pytest.mark.parametrize("kind", ["File", "Directory"])
def test_a_share_that_lists_what_is_no_name_is_refused(server, azure, signed, tmp_path, pull, name, kind):
    entry = f"<{kind}><Name>{name}</Name><Properties><Content-Length>1</Content-Length></Properties></{kind}>"
    page = f"<EnumerationResults><Entries>{entry}</Entries><NextMarker/></EnumerationResults>".encode()
    server.misbehave("/models/model", status(200, page, times=ALWAYS, on=anything))
    with pytest.raises(IntegrityError):
        pull(f"{FILES}/model", tmp_path / "out", **signed)
    assert not (tmp_path / "out").exists()


def test_a_share_without_end_is_refused(server, azure, signed, tmp_path, pull):
    page = (
        b"<EnumerationResults><Entries><Directory><Name>again</Name></Directory></Entries>"
        b"<NextMarker/></EnumerationResults>"
    )
    server.routes = {"/": lambda request: Answer(200, {}, page)}
    with pytest.raises(IntegrityError, match="lists the invalid name"):
        pull(f"{FILES}/model", tmp_path / "out", **signed)


@BOTH
@pytest.mark.parametrize(
    "text", [b"<html/>", b"{}", b"", b"<EnumerationResults><Blobs><Blob>", b"<EnumerationResults/>", b"<Entries/>"]
)
def test_a_server_that_is_not_azure_ends_the_delivery(server, azure, signed, tmp_path, pull, base, text):
    server.routes = {"/": lambda request: Answer(200, {}, text)}
    with pytest.raises(Unsupported) as caught:
        pull(f"{base}/model", tmp_path / "out", **signed)
    assert caught.value.exit_code == 8


@BOTH
@pytest.mark.parametrize(
    ("size", "etag"), [("", "0"), ("-1", "0"), ("x", "0"), ("²", "0"), ("9" * 5000, "0"), ("1", "0&#13;&#10;X-Evil: 1")]
)
def test_a_size_or_an_etag_that_is_none_ends_the_delivery(server, azure, signed, tmp_path, pull, base, size, etag):
    about = f"<Content-Length>{size}</Content-Length><Etag>{etag}</Etag>"
    about = f"<Name>model/a</Name><Properties>{about}</Properties>"
    page = f"<EnumerationResults><Blobs><Blob>{about}</Blob></Blobs><NextMarker/></EnumerationResults>"
    if base == FILES:
        page = page.replace("Blobs", "Entries").replace("Blob", "File").replace("model/", "")
    server.routes = {"/": lambda request: Answer(200, {}, page.encode())}
    with pytest.raises(Unsupported):
        pull(f"{base}/model", tmp_path / "out", **signed)


@pytest.mark.parametrize("base", [BLOB, FILES], ids=["blob", "files"])
def test_a_listing_without_end_ends_the_delivery(server, azure, signed, tmp_path, pull, base):
    page = b"<EnumerationResults><Blobs/><Entries/><NextMarker>again</NextMarker></EnumerationResults>"
    server.routes = {"/": lambda request: Answer(200, {}, page)}
    with pytest.raises(IntegrityError, match="does not end"):
        pull(f"{base}/model", tmp_path / "out", **signed)


@BOTH
def test_a_file_that_changes_after_it_was_listed_is_listed_anew(server, azure, signed, tmp_path, pull, base):
    azure.put("big/model.bin", DATA)
    new = content(len(DATA), seed=7)
    server.misbehave(
        "/models/big/model.bin", Fault(lambda *_: azure.put("big/model.bin", new) or error("ConditionNotMet"))
    )
    pull(f"{base}/big", tmp_path / "out", range_bytes=RANGE_BYTES, **signed)
    assert read_tree(tmp_path / "out") == {"model.bin": new}


def test_a_file_of_azure_files_is_known_by_the_etag_of_the_answer(server, azure, signed, tmp_path, pull):
    new = content(3 * RANGE_BYTES, seed=7)
    azure.put("model/big", content(3 * RANGE_BYTES, seed=6))
    server.misbehave("/models/model/big", server.before(lambda: azure.put("model/big", new), after=1, on=_gets))
    pull(f"{FILES}/model", tmp_path / "out", range_bytes=RANGE_BYTES, **signed)
    assert read_tree(tmp_path / "out")["big"] == new
    assert not any("if-match" in request.headers for request in server.requests)


@BOTH
@pytest.mark.parametrize("tags", [['"0xOTHER"'], ["0xOTHER"], ['"0xA"', '"0xB"'], ["W/{}"], [""]], ids=" ".join)
def test_etags_of_a_gateway_that_answers_and_listing_do_not_share_are_no_other_version(
    server, azure, signed, tmp_path, pull, base, tags
):
    data = content(3 * RANGE_BYTES, seed=6)
    azure.put("model/big", data)
    turn = itertools.cycle(tags)

    def rename(request, answer):
        return answer.with_headers(ETag=next(turn).replace("{}", answer.headers.get("ETag", '"x"')))

    server.misbehave("/models/model/big", Fault(rename, times=ALWAYS, on=_gets))
    pull(f"{base}/model", tmp_path / "out", range_bytes=RANGE_BYTES, **signed)
    assert read_tree(tmp_path / "out")["big"] == data


def _gets(request) -> bool:
    return request.method == "GET"


@BOTH
def test_a_wrong_key_is_not_allowed(server, azure, tmp_path, pull, base):
    settings = azure_settings(server, AZURE_STORAGE_ACCESS_KEY=b64encode(b"another").decode())
    with pytest.raises(NotAllowed, match="AuthenticationFailed") as caught:
        pull(f"{base}/model", tmp_path / "out", **settings)
    assert "key" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("AuthorizationFailure", NotAllowed, "network"),
        ("AuthorizationPermissionMismatch", NotAllowed, "Storage Blob Data Reader"),
        ("BlobArchived", NotAllowed, "rehydrate"),
    ],
)
def test_a_refusal_says_what_to_try(azure, signed, tmp_path, pull, code, kind, says):
    azure.refuse = lambda request: code if request.path.endswith("/a") or code != "BlobArchived" else None
    with pytest.raises(kind, match=code) as caught:
        pull(f"{BLOB}/model", tmp_path / "out", **signed)
    assert says in caught.value.hint
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


@BOTH
def test_a_busy_server_and_a_file_that_somebody_has_open_are_waited_for(azure, signed, tmp_path, pull, base):
    left = {"listing": ["ServerBusy", "SharingViolation"], "reading": ["ServerBusy", "SharingViolation"]}

    def refuse(request) -> str | None:
        codes = left["listing" if "comp=list" in request.query else "reading"]
        return codes.pop() if codes else None

    azure.refuse = refuse
    pull(f"{base}/model", tmp_path / "out", **signed)
    assert len(read_tree(tmp_path / "out")) == 3
    assert left == {"listing": [], "reading": []}


def test_what_everybody_may_read_is_read_without_credentials(azure, unsigned, tmp_path, pull):
    azure.public = "container"
    pull(f"{BLOB}/model", tmp_path / "out", **unsigned)
    assert len(read_tree(tmp_path / "out")) == 3
    assert not any("authorization" in request.headers for request in azure.server.requests)


def test_where_nobody_may_list_one_blob_can_be_read(azure, unsigned, tmp_path, pull):
    azure.public = "blobs"
    manifest = pull(f"{BLOB}/model/a", tmp_path / "out", verify="strict", **unsigned)
    assert read_tree(tmp_path / "out") == {"a": b"a"}
    assert manifest.files[0].verified == (Digest("md5", hashlib.md5(b"a").hexdigest()),)
    with pytest.raises(NotFound):
        pull(f"{BLOB}/model", tmp_path / "none", **unsigned)


@BOTH
def test_no_credentials_is_what_is_said_where_some_are_needed(azure, unsigned, tmp_path, pull, base):
    with pytest.raises(NotAllowed, match="PublicAccessNotPermitted") as caught:
        pull(f"{base}/model", tmp_path / "out", **unsigned)
    assert "no Azure credentials" in caught.value.hint


@BOTH
def test_a_sas_in_the_uri_wins_over_all_that_is_configured(azure, signed, tmp_path, pull, base):
    azure.sas.add("s3cret+=")
    manifest = pull(f"{base}/model?sv=2022-11-02&sr=c&sig=s3cret%2B%3D", tmp_path / "out", **signed)
    assert len(read_tree(tmp_path / "out")) == 3
    assert not any("authorization" in request.headers for request in azure.server.requests)
    assert "s3cret" not in manifest.dumps()


def test_a_sas_for_one_blob_reads_it(azure, unsigned, tmp_path, pull):
    azure.blob_sas.add("s3cret")
    pull(f"{BLOB}/model/a?sv=2022-11-02&sr=b&sig=s3cret", tmp_path / "out", **unsigned)
    assert read_tree(tmp_path / "out") == {"a": b"a"}
    with pytest.raises(NotAllowed):
        pull(f"{BLOB}/model/none?sv=2022-11-02&sr=b&sig=s3cret", tmp_path / "none", **unsigned)


def test_a_sas_that_was_made_anew_is_the_same_model(azure, unsigned, tmp_path, pull, server):
    azure.sas |= {"one", "two"}
    pull(f"{BLOB}/model?sv=1&se=2026-01-01&ske=a&sip=1.2.3.4&scid=1&sig=one", tmp_path / "out", **unsigned)
    server.behave()
    pull(f"{BLOB}/model?sv=1&se=2027-01-01&ske=b&sip=1.2.3.5&scid=2&sig=two", tmp_path / "out", **unsigned)
    assert server.asked_bytes == 0


def test_the_credentials_of_a_prefix_are_for_what_is_below_it(azure, server, tmp_path, new_session):
    rule = CredentialRule(
        ModelURI.parse(f"{BLOB}/model"), ValuesByName(variables={"AZURE_STORAGE_ACCESS_KEY": Value(KEY)})
    )
    # What a rule says may be of the network as well, so that this is read from the variables again.
    settings = azure_settings(server, AZURE_STORAGE_ACCESS_KEY="", http_proxy=server.url) | {"credentials": (rule,)}
    deliver([Request(f"{BLOB}/model", tmp_path / "out")], new_session(**settings))
    assert len(read_tree(tmp_path / "out")) == 3
    with pytest.raises(NotAllowed):
        deliver([Request(f"{BLOB}/model-v2", tmp_path / "none")], new_session(**settings))


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def with_entra(authority):
    """An account that takes tokens, and settings with which it is found by https and its own names."""
    names = ["127.0.0.1", "*.blob.core.windows.net", "*.file.core.windows.net", "login.microsoftonline.com"]
    with FaultyServer(authority.server_context(*names)) as server, tunnel(server) as proxy:
        azure = FakeAzure(server)
        for name, data in MODEL.items():
            azure.put(name, data)
        entra = FakeEntra(server, azure)
        variables = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": server.url}
        yield entra, {"network": Network(ca_files=(authority.bundle,), https_proxy=proxy), "variables": variables}


PRINCIPAL = {"AZURE_TENANT_ID": "11111111-2222-3333-4444-555555555555", "AZURE_CLIENT_ID": "client"}


@pytest.mark.parametrize(
    "uri",
    [
        f"abfss://{CONTAINER}@{ACCOUNT}.dfs.core.windows.net/model",
        f"abfs://{CONTAINER}@{ACCOUNT}.dfs.core.windows.net/model/",
        f"wasbs://{CONTAINER}@{ACCOUNT}.blob.core.windows.net/model",
        f"wasb://{CONTAINER}@{ACCOUNT}.blob.core.windows.net/model",
        f"https://{ACCOUNT}.dfs.core.windows.net/{CONTAINER}/model",
    ],
)
def test_the_names_of_hadoop_and_of_the_lake_are_read_as_blobs(with_entra, tmp_path, pull, uri):
    _, settings = with_entra
    settings["variables"] |= {"AZURE_STORAGE_ACCESS_KEY": KEY}
    manifest = pull(uri, tmp_path / "out", **settings)
    assert read_tree(tmp_path / "out") == {"a": b"a", "b/c d+e%": b"c", "empty": b""}
    assert manifest.requested == uri


@BOTH
@pytest.mark.parametrize("kind", ["principal", "workload", "managed", "system", "given"])
def test_every_identity_reads_a_model(with_entra, tmp_path, pull, base, kind):
    entra, settings = with_entra
    (tmp_path / "token").write_text("an assertion")
    entra.identities = {"managed": {"client"}, "system": {""}}.get(kind, set())
    entra.azure.tokens = {"s3cret-given"}
    settings["variables"] |= {
        "principal": PRINCIPAL | {"AZURE_CLIENT_SECRET": entra.secret},
        "workload": PRINCIPAL | {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token")},
        "managed": PRINCIPAL,
        "system": {},
        "given": {"AZURE_ACCESS_TOKEN": "s3cret-given", "AZURE_ACCESS_EXPIRES_ON_SECONDS": "99999999999"},
    }[kind]
    pull(f"{base.replace('http', 'https')}/model", tmp_path / "out", **settings)
    assert len(read_tree(tmp_path / "out")) == 3
    assert len(entra.given) == {"given": 0, "system": 2}.get(kind, 1)


@BOTH
def test_what_everybody_may_read_is_read_though_the_machine_has_an_identity(with_entra, tmp_path, pull, base):
    entra, settings = with_entra
    entra.identities, entra.azure.public = {""}, "container"
    if base == BLOB:
        pull(f"{base.replace('http', 'https')}/model", tmp_path / "out", **settings)
        assert entra.queries == []


@pytest.mark.parametrize("kind", ["AZURE_ACCESS_TOKEN", "AZURE_STORAGE_SAS_TOKEN"])
def test_a_token_does_not_travel_in_the_clear(azure, server, tmp_path, pull, kind):
    settings = azure_settings(server, AZURE_STORAGE_ACCESS_KEY="", **{kind: "sig=s3cret"})
    with pytest.raises(UsageError, match="unencrypted"):
        pull(f"{BLOB}/model", tmp_path / "out", **settings)
    assert server.requests == []


@pytest.mark.parametrize("workers", [1, 8])
def test_a_token_that_ends_half_way_is_renewed(with_entra, tmp_path, pull, workers):
    entra, settings = with_entra
    for number in range(20):
        entra.azure.put(f"many/{number}", b"%d" % number)
    uses: dict[str, int] = {}

    def expire(request) -> str | None:
        token = request.headers.get("authorization", "")
        uses[token] = uses.get(token, 0) + 1
        return "InvalidAuthenticationInfo" if uses[token] > 15 else None

    entra.azure.refuse = expire
    settings["variables"] |= PRINCIPAL | {"AZURE_CLIENT_SECRET": entra.secret}
    limits = Limits(stall_s=5.0, connect_s=5.0, attempts=4, workers=workers)
    pull(f"{BLOB.replace('http', 'https')}/many", tmp_path / "out", limits=limits, **settings)
    assert len(read_tree(tmp_path / "out")) == 20
    assert len(entra.given) == 2


def test_a_token_that_is_refused_at_once_is_not_asked_for_again(with_entra, tmp_path, pull):
    entra, settings = with_entra
    entra.azure.refuse = lambda request: "InvalidAuthenticationInfo"
    settings["variables"] |= PRINCIPAL | {"AZURE_CLIENT_SECRET": entra.secret}
    with pytest.raises(NotAllowed, match="InvalidAuthenticationInfo"):
        pull(f"{BLOB.replace('http', 'https')}/model", tmp_path / "out", **settings)
    assert len(entra.given) <= 1


@pytest.mark.parametrize(
    ("variables", "kind", "times"),
    [
        (PRINCIPAL | {"AZURE_CLIENT_SECRET": "s3cret wrong"}, NotAllowed, 1),
        (PRINCIPAL, NotAllowed, 1),
        (PRINCIPAL | {"AZURE_CLIENT_SECRET": "s3cret", "AZURE_AUTHORITY_HOST": "https://127.0.0.1:1"}, Unavailable, 0),
    ],
)
def test_a_credential_that_cannot_be_had_is_told_once(with_entra, tmp_path, pull, clock, variables, kind, times):
    entra, settings = with_entra
    settings["variables"] |= variables
    settings["network"] = settings["network"]._replace(no_proxy=("127.0.0.1",))
    with pytest.raises(kind) as caught:
        pull(f"{BLOB.replace('http', 'https')}/model", tmp_path / "out", **settings)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert len(entra.forms) + len(entra.queries) == times
    assert len(clock.waits) == (0 if times else 3)


@BOTH
def test_a_token_that_ends_half_way_ends_the_delivery_and_a_new_one_continues_it(with_entra, tmp_path, pull, base):
    entra, settings = with_entra
    for number in range(20):
        entra.azure.put(f"many/{number:02}", content(50_000, seed=number))
    uses: list[str] = []

    def expire(request) -> str | None:
        uses.append(request.path)
        return "InvalidAuthenticationInfo" if len(uses) > 15 else None

    entra.azure.refuse = expire
    server = entra.azure.server

    def deliver(token: str) -> None:
        entra.azure.tokens = {token}
        given = {"variables": settings["variables"] | {"AZURE_ACCESS_TOKEN": token}}
        limits = Limits(stall_s=5.0, connect_s=5.0, attempts=4, workers=1)
        pull(f"{base.replace('http', 'https')}/many", tmp_path / "out", limits=limits, **settings | given)

    with pytest.raises(NotAllowed, match="InvalidAuthenticationInfo") as caught:
        deliver("first")
    assert "run again" in caught.value.hint
    destination = Destination(tmp_path / "out")
    assert read_tree(tmp_path / "out") == {}
    received = destination.received_bytes()
    assert received > 0
    server.behave()
    entra.azure.refuse = lambda request: None
    deliver("second")
    assert len(read_tree(tmp_path / "out")) == 20
    assert server.asked_bytes == 20 * 50_000 - received


def test_the_metadata_service_is_not_asked_for_what_is_found(azure, server, tmp_path, pull):
    settings = azure_settings(server, AZURE_POD_IDENTITY_AUTHORITY_HOST=NOWHERE)
    pull(f"{BLOB}/model", tmp_path / "out", **settings)
    assert all("metadata" not in request.path for request in server.requests)
