"""Cloud Storage: what a name means, what pins and verifies an object, what a refusal means."""

import gzip
import io
import json
import tarfile
from itertools import count

import pytest

from fakes.fake_gcs import FakeGcs
from fakes.fake_google import FakeGoogle
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, Fault, FaultyServer, anything, status, wrong_byte
from fakes.trees import content, read_tree, whole_manifest
from lading.errors import IntegrityError, NotAllowed, NotFound, Unavailable, Unsupported, UsageError
from lading.events import ignore
from lading.model.uri import ModelURI
from lading.session import Session
from lading.settings.limits import Limits
from lading.settings.settings import Settings
from lading.sources.gcs import GcsSource

FILES = {"config.json": b"{}", "empty": b"", "deep/er/weights.bin": content(300_000)}


@pytest.fixture
def gcs(server):
    gcs = FakeGcs(server)
    for path, data in FILES.items():
        gcs.put(f"model/{path}", data)
    gcs.put("model-v2/config.json", b"another")
    return gcs


@pytest.fixture
def emulated(server) -> dict[str, object]:
    return {"variables": {"STORAGE_EMULATOR_HOST": server.url}}


@pytest.fixture
def google(server):
    return FakeGoogle(server)


def by_metadata(google, **variables: str) -> dict[str, object]:
    endpoint = {"API_ENDPOINT_OVERRIDE": google.server.url, "GCE_METADATA_HOST": google.metadata_host}
    return {"variables": endpoint | variables}


def by_document(google, document: object, **variables: str) -> dict[str, object]:
    return {
        "variables": {
            "API_ENDPOINT_OVERRIDE": google.server.url,
            "gcloud-application-credentials.json": json.dumps(document),
            **variables,
        }
    }


@pytest.mark.parametrize(
    ("uri", "files"),
    [
        ("gs://models/model", FILES),
        ("gs://models/model/", FILES),
        ("gs://models/model/deep", {"er/weights.bin": FILES["deep/er/weights.bin"]}),
        ("gs://models/model/config.json", {"config.json": b"{}"}),
        ("gs://models/model/empty", {"empty": b""}),
        (
            "gs://models",
            {f"model/{path}": data for path, data in FILES.items()} | {"model-v2/config.json": b"another"},
        ),
    ],
    ids=["prefix", "with-slash", "below", "object", "empty-object", "bucket"],
)
def test_a_uri_means_what_is_below_it_or_one_object(gcs, emulated, tmp_path, pull, uri, files):
    # KServe's own fails for a bucket, and takes the slashes of a listing for files.
    for marker in ("model/", "model/deep/", "folder-only/"):
        gcs.put(marker, b"")
    pull(uri, tmp_path / "model", **emulated)
    assert read_tree(tmp_path / "model") == files


def test_a_listing_of_many_pages_comes_whole(gcs, emulated, tmp_path, pull):
    gcs.page_names = 1
    pull("gs://models/model", tmp_path / "model", **emulated)
    assert read_tree(tmp_path / "model") == FILES


def test_every_file_is_pinned_by_its_generation_and_verified_by_its_crc32c(gcs, emulated, tmp_path, pull):
    gcs.put("model/composite.bin", content(1000), composite=True)
    manifest = pull("gs://models/model", tmp_path / "model", verify="strict", **emulated)
    for file in manifest.files:
        assert file.validator == gcs.objects[f"model/{file.path}"].generation
        assert [digest.algorithm for digest in file.verified] == ["crc32c"] or not file.size_bytes


def test_an_object_without_digests_is_not_called_verified(gcs, emulated, tmp_path, pull):
    gcs.put("model/config.json", b"{}", declares=False)
    manifest = pull("gs://models/model", tmp_path / "model", **emulated)
    assert [file.path for file in manifest.files if not file.verified] == ["config.json"]


def test_a_wrong_byte_every_time_is_refused(gcs, server, emulated, tmp_path, pull):
    server.misbehave(gcs.media("model/deep/er/weights.bin"), wrong_byte(200_000, times=ALWAYS))
    with pytest.raises(IntegrityError, match="crc32c"):
        pull("gs://models/model", tmp_path / "model", range_bytes=100_000, **emulated)
    assert not (tmp_path / "model" / "config.json").exists()


def test_an_object_that_is_replaced_arrives_in_its_new_version(gcs, server, emulated, tmp_path, pull):
    path = gcs.media("model/deep/er/weights.bin")
    server.misbehave(path, server.before(lambda: gcs.put("model/deep/er/weights.bin", b"new"), after=1))
    pull("gs://models/model", tmp_path / "model", range_bytes=100_000, **emulated)
    assert read_tree(tmp_path / "model") == FILES | {"deep/er/weights.bin": b"new"}


def test_in_a_bucket_that_keeps_versions_the_listed_one_is_delivered(gcs, server, emulated, tmp_path, pull):
    gcs.versions = True
    path = gcs.media("model/deep/er/weights.bin")
    server.misbehave(path, server.before(lambda: gcs.put("model/deep/er/weights.bin", b"new"), after=1))
    pull("gs://models/model", tmp_path / "model", range_bytes=100_000, **emulated)
    assert read_tree(tmp_path / "model") == FILES


def test_a_server_that_does_not_pin_generations_mixes_no_versions(gcs, server, emulated, tmp_path, pull):
    gcs.pins = False
    path = gcs.media("model/deep/er/weights.bin")
    new = content(300_000, seed=7)
    server.misbehave(path, server.before(lambda: gcs.put("model/deep/er/weights.bin", new), after=1))
    pull("gs://models/model", tmp_path / "model", range_bytes=100_000, **emulated)
    assert read_tree(tmp_path / "model") == FILES | {"deep/er/weights.bin": new}


def test_an_object_that_is_deleted_while_it_is_read_is_not_found(gcs, server, emulated, tmp_path, pull):
    path = gcs.media("model/config.json")
    server.misbehave(path, server.before(lambda: gcs.objects.pop("model/config.json")))
    with pytest.raises(NotFound, match=r"gs://models/model/config\.json"):
        pull("gs://models/model", tmp_path / "model", **emulated)
    assert not (tmp_path / "model" / "empty").exists()


def test_an_object_stored_in_gzip_arrives_decoded(gcs, server, emulated, tmp_path, pull):
    text = b'{"layers": 2}' * 10_000
    gcs.put("model/config.json", gzip.compress(text), encoding="gzip")
    pull("gs://models/model", tmp_path / "model", range_bytes=1000, **emulated)
    assert read_tree(tmp_path / "model") == FILES | {"config.json": text}
    # The stored bytes travel, in one piece: of others there is no length and no range.
    (request,) = server.requests_for(gcs.media("model/config.json"))
    assert (request.headers["accept-encoding"], request.headers.get("range")) == ("gzip", None)


def test_gzip_of_many_members_arrives_with_all_of_them(gcs, emulated, tmp_path, pull):
    parts = [content(200_000, seed=number) for number in range(3)]
    gcs.put("model/config.json", b"".join(map(gzip.compress, parts)), encoding="gzip")
    pull("gs://models/model", tmp_path / "model", **emulated)
    assert read_tree(tmp_path / "model") == FILES | {"config.json": b"".join(parts)}


def test_what_stands_behind_gzip_data_is_refused(gcs, emulated, tmp_path, pull):
    gcs.put("model/config.json", gzip.compress(b"{}") + b"surplus", encoding="gzip")
    with pytest.raises(IntegrityError, match="gzip"):
        pull("gs://models/model", tmp_path / "model", **emulated)


def test_an_object_stored_in_gzip_that_is_damaged_is_refused(gcs, server, emulated, tmp_path, pull):
    gcs.put("model/config.json", gzip.compress(content(100_000)), encoding="gzip")
    server.misbehave(gcs.media("model/config.json"), wrong_byte(50_000, times=ALWAYS))
    with pytest.raises(IntegrityError):
        pull("gs://models/model", tmp_path / "model", **emulated)


def test_strict_verification_refuses_what_only_gzip_vouches_for(gcs, emulated, tmp_path, pull):
    gcs.put("model/config.json", gzip.compress(b"{}"), encoding="gzip")
    with pytest.raises(Unsupported, match=r"config\.json"):
        pull("gs://models/model", tmp_path / "model", verify="strict", **emulated)


@pytest.mark.parametrize("encoding", ["GZIP", "x-gzip", "aws-chunked,gzip", " gzip ,"])
def test_gzip_is_gzip_however_it_is_written(gcs, emulated, tmp_path, pull, encoding):
    gcs.put("model/config.json", gzip.compress(b"{}"), encoding=encoding)
    pull("gs://models/model", tmp_path / "model", **emulated)
    assert read_tree(tmp_path / "model") == FILES | {"config.json": b"{}"}


@pytest.mark.parametrize("encoding", ["br", "utf-8", "aws-chunked", "identity", "none", ","])
def test_any_other_encoding_is_only_a_word(gcs, emulated, tmp_path, pull, encoding):
    gcs.put("model/config.json", b"as stored", encoding=encoding)
    manifest = pull("gs://models/model", tmp_path / "model", verify="strict", **emulated)
    assert read_tree(tmp_path / "model") == FILES | {"config.json": b"as stored"}
    assert manifest.by_path()["config.json"].verified


def test_one_archive_is_unpacked_though_a_folder_marker_stands_beside_it(gcs, emulated, tmp_path, pull):
    # KServe's own looks at the last name of the listing, whichever that is.
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("weights.bin")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"bytes"))
    gcs.put("packed/model.tar.gz", packed.getvalue())
    gcs.put("packed/z/", b"")
    pull("gs://models/packed", tmp_path / "model", **emulated)
    assert read_tree(tmp_path / "model") == {"weights.bin": b"bytes"}


def test_only_what_the_patterns_choose_is_unpacked(gcs, emulated, tmp_path, pull):
    gcs.put("model/z.tar.gz", b"not even an archive")
    pull("gs://models/model", tmp_path / "model", allow=("*.json",), **emulated)
    assert read_tree(tmp_path / "model") == {"config.json": b"{}"}


@pytest.mark.parametrize("name", ["model/../../etc/passwd", "model//x", "model/./x", "model/.lading/x"])
def test_a_name_that_would_leave_the_destination_is_refused(gcs, emulated, tmp_path, pull, name):
    gcs.put(name, b"hostile")
    with pytest.raises(IntegrityError):
        pull("gs://models/model", tmp_path / "model", **emulated)
    assert not (tmp_path / "model" / "config.json").exists()


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("gs://models/modle", "model/"),
        ("gs://models/model/confg.json", "config.json"),
        ("gs://models/model/none/at/all", ""),
    ],
)
def test_what_is_not_found_is_told_with_what_is_near(gcs, emulated, tmp_path, pull, uri, hint):
    with pytest.raises(NotFound) as caught:
        pull(uri, tmp_path / "model", **emulated)
    assert hint in caught.value.hint


def test_a_bucket_that_is_not_there_is_not_found(gcs, emulated, tmp_path, pull):
    with pytest.raises(NotFound, match="bucket"):
        pull("gs://others/model", tmp_path / "model", **emulated)


@pytest.mark.parametrize(
    "page",
    [
        b"<html>Welcome</html>",
        b"",
        b"[]",
        b'{"items": {}}',
        b'{"items": ["model/x"]}',
        b'{"items": [{"size": "1"}]}',
        b'{"items": [{"name": "model/x"}]}',
        b'{"items": [{"name": "model/x", "size": "-1"}]}',
        b'{"items": [{"name": "model/x", "size": "' + b"9" * 5000 + b'"}]}',
        b'{"items": [{"name": "model/x", "size": "1", "generation": 7}]}',
        b'{"items": [{"name": "elsewhere/x", "size": "1"}]}',
        b'{"nextPageToken": 7}',
        b'{"nextPageToken": "\\udc80"}',
        b'{"nextPageToken": null}',
        b'{"prefixes": 5}',
        b'{"prefixes": [7]}',
        b'{"error": {"code": 500}}',
        b'{"items": [{"name": "model/x", "size": "1", "generation": "\\udc80"}]}',
        b"[" * 100_000,
    ],
)
def test_a_server_that_is_not_cloud_storage_ends_the_delivery(server, emulated, tmp_path, pull, page):
    server.misbehave(ANYWHERE, status(200, page, times=ALWAYS, on=anything))
    with pytest.raises(Unsupported, match="JSON API"):
        pull("gs://models/model", tmp_path / "model", **emulated)


@pytest.mark.parametrize("page", [b"{}", b'{"prefixes": []}', b'{"prefixes": null}'])
def test_an_empty_listing_is_no_model(server, emulated, tmp_path, pull, page):
    server.misbehave("/storage/v1/b/models/o", status(200, page, times=ALWAYS, on=anything))
    server.misbehave("/storage/v1/b/models/o/model", status(404, times=ALWAYS, on=anything))
    with pytest.raises(NotFound, match="no files"):
        pull("gs://models/model", tmp_path / "model", **emulated)


def test_a_listing_of_ever_new_names_ends_the_delivery(server, emulated, tmp_path, pull):
    numbers = count()

    def more(request, answer):
        number = next(numbers)
        item = f'{{"name": "model/{number}", "size": "1"}}'
        return Answer(200, {}, f'{{"items": [{item}], "nextPageToken": "{number}"}}'.encode())

    server.misbehave(ANYWHERE, Fault(more, times=ALWAYS, on=anything))
    with pytest.raises(Unsupported, match="more than 50 entries"):
        pull("gs://models/model", tmp_path / "model", limits=Limits(unpack_members=50), **emulated)


def test_a_listing_without_end_ends_the_delivery(server, emulated, tmp_path, pull):
    server.misbehave(ANYWHERE, status(200, b'{"nextPageToken": "again"}', times=ALWAYS, on=anything))
    with pytest.raises(IntegrityError, match="does not end"):
        pull("gs://models/model", tmp_path / "model", **emulated)


@pytest.mark.parametrize(
    ("code", "reason", "kind", "hint"),
    [
        (400, "userProjectMissing", NotAllowed, "GOOGLE_CLOUD_QUOTA_PROJECT"),
        (401, "authenticationRequiredRequesterPays", NotAllowed, "GOOGLE_CLOUD_QUOTA_PROJECT"),
        (403, "rateLimitExceeded", Unavailable, ""),
        (403, "userRateLimitExceeded", Unavailable, ""),
        (403, "forbidden", NotAllowed, "storage.objects.list"),
        (401, "required", NotAllowed, "missing"),
        (404, "notFound", NotFound, "bucket"),
        (500, "backendError", Unavailable, ""),
    ],
)
def test_a_refusal_is_what_its_reason_and_status_say(gcs, emulated, tmp_path, pull, code, reason, kind, hint):
    gcs.refuse = lambda request: (code, reason)
    with pytest.raises(kind) as caught:
        pull("gs://models/model", tmp_path / "model", **emulated)
    assert hint in f"{caught.value}{caught.value.hint}"
    assert "se-cret" not in f"{caught.value}{caught.value.hint}"


def test_the_project_that_pays_is_told(gcs, server, google, tmp_path, pull):
    settings = by_metadata(google, GOOGLE_CLOUD_QUOTA_PROJECT="payer")
    pull("gs://models/model", tmp_path / "model", **settings)
    asked = [request for request in server.requests if "/storage/v1/" in request.path]
    assert {request.headers["x-goog-user-project"] for request in asked} == {"payer"}


def allows(*tokens: str):
    """Let in only who brings one of these tokens; "" is nobody in particular."""

    def refuse(request):
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return None if token in tokens else (403, "forbidden") if token else (401, "required")

    return refuse


def test_credentials_that_are_not_found_are_not_a_bucket_that_is_not(gcs, google, tmp_path, pull):
    settings = by_metadata(google, GOOGLE_APPLICATION_CREDENTIALS="/nowhere/key.json")
    with pytest.raises(NotAllowed, match=r"file /nowhere/key\.json"):
        pull("gs://models/model", tmp_path / "model", **settings)


def test_the_machines_identity_is_used_where_nothing_is_configured(gcs, google, tmp_path, pull):
    gcs.refuse = allows("se-cret-1")
    pull("gs://models/model", tmp_path / "model", **by_metadata(google))
    assert read_tree(tmp_path / "model") == FILES


@pytest.mark.parametrize("identity", ["absent", "refused"])
def test_a_public_bucket_is_read_whatever_the_machines_identity_is(gcs, google, tmp_path, pull, identity):
    # On GKE a client finds a metadata server, and so an identity that nobody chose or none at all (KServe #4283).
    google.has_account = identity == "refused"
    gcs.refuse = allows("")
    pull("gs://models/model", tmp_path / "model", **by_metadata(google))
    assert read_tree(tmp_path / "model") == FILES


def test_a_private_bucket_refuses_the_machines_identity_with_its_own_words(gcs, google, server, tmp_path, pull):
    gcs.refuse = allows("another")
    with pytest.raises(NotAllowed, match="403") as caught:
        pull("gs://models/model", tmp_path / "model", **by_metadata(google))
    assert "storage.objects.list" in caught.value.hint


def test_an_identity_that_somebody_chose_is_not_left_out(gcs, google, server, tmp_path, pull):
    gcs.refuse = allows("")
    with pytest.raises(NotAllowed):
        pull("gs://models/model", tmp_path / "model", **by_document(google, google.document("service_account")))
    assert all("authorization" in request.headers for request in server.requests_for(gcs.listing))


def test_nothing_configured_and_no_metadata_server_means_no_credentials(gcs, google, tmp_path, pull):
    settings = by_metadata(google, GCE_METADATA_HOST="no-such-host.invalid")
    pull("gs://models/model", tmp_path / "model", **settings)
    gcs.refuse = allows("another")
    with pytest.raises(NotAllowed) as caught:
        pull("gs://models/model/deep", tmp_path / "private", **settings)
    assert "no Google credentials were found" in caught.value.hint


def test_a_metadata_server_that_is_late_is_waited_for(gcs, google, server, tmp_path, pull, clock):
    # The fake counts those it did not get to send.
    gcs.refuse = allows("se-cret-4")
    token = "/computeMetadata/v1/instance/service-accounts/default/token"
    server.misbehave(token, status(503, times=3))
    pull("gs://models/model", tmp_path / "model", **by_metadata(google))
    assert read_tree(tmp_path / "model") == FILES


def test_a_silent_metadata_server_is_a_passing_failure_of_private_buckets_only(gcs, google, tmp_path, pull):
    settings = by_metadata(google, GCE_METADATA_HOST="127.0.0.1:1")
    pull("gs://models/model", tmp_path / "model", **settings)
    gcs.refuse = allows("another")
    with pytest.raises(Unavailable, match="metadata server"):
        pull("gs://models/model/deep", tmp_path / "private", **settings)


def test_something_else_at_the_metadata_servers_address_is_not_believed(gcs, google, server, tmp_path, pull):
    token = "/computeMetadata/v1/instance/service-accounts/default/token"
    server.misbehave(token, status(200, b'{"access_token": "a", "expires_in": 1}', times=ALWAYS))
    gcs.refuse = allows("")
    pull("gs://models/model", tmp_path / "model", **by_metadata(google))


class ExpiringTokens:
    """Every token holds for a number of requests, then it has expired."""

    def __init__(self, requests: int) -> None:
        self.uses: dict[str, int] = {}
        self.requests = requests

    def __call__(self, request):
        token = request.headers["authorization"]
        self.uses[token] = self.uses.get(token, 0) + 1
        return (401, "authError") if self.uses[token] > self.requests else None


@pytest.mark.parametrize("workers", [1, 8])
def test_a_token_that_expires_half_way_is_renewed(gcs, google, tmp_path, pull, new_session, workers):
    gcs.refuse = ExpiringTokens(8)
    limits = new_session().settings.limits._replace(workers=workers)
    document = google.document("service_account")
    pull("gs://models/model", tmp_path / "model", range_bytes=30_000, limits=limits, **by_document(google, document))
    assert read_tree(tmp_path / "model") == FILES
    assert len(google.granted) == 2


def test_a_token_that_is_never_any_good_is_not_renewed_for_ever(gcs, google, tmp_path, pull):
    gcs.refuse = lambda request: (401, "authError")
    document = google.document("service_account")
    with pytest.raises(NotAllowed):
        pull("gs://models/model", tmp_path / "model", **by_document(google, document))
    assert len(google.granted) == 1


def test_an_object_is_read_by_who_may_not_list_the_bucket(gcs, emulated, tmp_path, pull):
    gcs.refuse = lambda request: (403, "forbidden") if request.path == gcs.listing else None
    pull("gs://models/model/config.json", tmp_path / "model", **emulated)
    assert read_tree(tmp_path / "model") == {"config.json": b"{}"}
    with pytest.raises(NotAllowed):
        pull("gs://models/model/deep", tmp_path / "another", **emulated)


def test_an_emulator_is_asked_without_credentials(gcs, google, server, tmp_path, pull):
    settings = by_document(google, google.document("service_account"), STORAGE_EMULATOR_HOST=server.url)
    pull("gs://models/model", tmp_path / "model", **settings)
    assert not any("authorization" in request.headers for request in server.requests)
    assert google.granted == {}


@pytest.mark.parametrize("form", ["{host}", "http://{host}", "http://{host}/", "http://user:se-cret@{host}"])
def test_an_emulators_address_is_taken_in_the_forms_that_clients_take(gcs, server, tmp_path, pull, form):
    host = form.replace("{host}", server.url.removeprefix("http://"))
    pull("gs://models/model", tmp_path / "model", variables={"STORAGE_EMULATOR_HOST": host})
    assert "se-cret" not in repr(server.requests)


def test_an_endpoint_below_a_path_is_asked_there(tmp_path, pull):
    with FaultyServer() as server:
        FakeGcs(server, prefix="/gate").put("model/a", b"a")
        pull("gs://models/model", tmp_path / "model", variables={"STORAGE_EMULATOR_HOST": f"{server.url}/gate"})
    assert read_tree(tmp_path / "model") == {"a": b"a"}


def test_a_token_does_not_travel_in_the_clear(google, server, tmp_path, pull):
    settings = by_document(google, google.document("service_account"))
    settings["variables"]["API_ENDPOINT_OVERRIDE"] = "http://gate.example"
    with pytest.raises(UsageError, match="unencrypted"):
        pull("gs://models/model", tmp_path / "model", **settings)


def test_without_configuration_google_itself_is_asked():
    settings = Settings.load({"NO_GCE_CHECK": "true"})
    source = GcsSource(ModelURI.parse("gs://models/a"), settings, Session(settings, ignore).http)
    assert source._base == "https://storage.googleapis.com"
    assert source.credential_kind == "anonymous"


@pytest.mark.parametrize(
    "uri",
    ["gs:///model", "gs:/models/model", "gs://Models/model", "gs://m/model", "gs://models/model?generation=1"],
)
def test_what_is_no_gcs_uri_is_refused(uri, tmp_path, pull):
    with pytest.raises(UsageError, match="not a GCS URI"):
        pull(uri, tmp_path / "model")


def test_characters_that_urls_escape_are_part_of_a_name(gcs, emulated, tmp_path, pull):
    names = ["a b+c", "q#f", "gr\u00fc\u00dfe/\u6a21", "100%25/~x", "a&b=c"]
    for name in names:
        gcs.put(f"odd/{name}", name.encode())
    pull("gs://models/odd", tmp_path / "model", **emulated)
    assert read_tree(tmp_path / "model") == {name: name.encode() for name in names}
    pull("gs://models/odd/q#f", tmp_path / "one", **emulated)
    assert read_tree(tmp_path / "one") == {"q#f": b"q#f"}


def test_storage_json_of_the_type_gs_holds_the_credentials_and_the_endpoint(gcs, google, tmp_path, pull):
    gcs.refuse = allows("se-cret-1")
    document = google.document("service_account")
    for number, spec in enumerate(
        [
            {"type": "gs", "gcloud-application-credentials.json": document},
            {"type": "gs", "gcloud-application-credentials.json": json.dumps(document)},
            {"type": "gs", "credentials": document},
        ]
    ):
        google.granted.clear()
        google._numbers = iter(["1"])
        variables = {"STORAGE_CONFIG": json.dumps(spec | {"endpoint_url": google.server.url})}
        settings = Settings.load({"NO_GCE_CHECK": "true", **variables})
        pull("gs://models/model", tmp_path / str(number), variables=dict(settings.variables))
        assert whole_manifest(tmp_path / str(number))


def test_a_mounted_secret_of_kserve_holds_the_credentials_of_a_prefix(gcs, google, tmp_path, pull):
    gcs.refuse = allows("se-cret-1")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "gcloud-application-credentials.json").write_text(json.dumps(google.document("service_account")))
    config = tmp_path / "lading.yaml"
    config.write_text(f"credentials: [{{prefix: gs://models/model, folder: {secret}}}]")
    variables = {
        "LADING_CONFIG": str(config),
        "API_ENDPOINT_OVERRIDE": google.server.url,
        "NO_GCE_CHECK": "true",
        # What KServe injects for the rest gives way.
        "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/key.json",
    }
    settings = Settings.load(variables)
    pull("gs://models/model", tmp_path / "model", variables=variables, credentials=settings.credentials)
    assert read_tree(tmp_path / "model") == FILES
    with pytest.raises(NotAllowed, match="/nowhere"):
        pull("gs://models/model-v2", tmp_path / "another", variables=variables, credentials=settings.credentials)
