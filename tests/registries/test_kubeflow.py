"""Kubeflow's Model Registry and Model Catalog as registries: which version a name is, and what is said about it."""

import json
from base64 import b64encode
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from fakes.fake_kubeflow import (
    API,
    CATALOG_API,
    CATALOG_V1,
    V1,
    FakeKubeflow,
    routed_to,
    text_properties,
    text_property,
)
from fakes.faulty_http import ALWAYS, ANYWHERE, Answer, anything, redirect, reset, stall, status
from fakes.registry_entries import registry_entry
from lading.errors import (
    IntegrityError,
    LadingError,
    NotAllowed,
    NotFound,
    Unavailable,
    Unsupported,
    UsageError,
)
from lading.model.uri import ModelURI
from lading.registries import federation
from lading.registries.registry import NoSuchModel, Resolution
from lading.settings.aws import read_aws, read_s3
from lading.settings.credentials import CredentialRule
from lading.settings.limits import Network
from lading.settings.settings import Settings
from lading.settings.value import Value, ValuesByName
from lading.settings.variables import Variables

ZEROS = "0" * 64
ONES = "1" * 64


@pytest.fixture
def kubeflow(server) -> FakeKubeflow:
    return FakeKubeflow(server)


@pytest.fixture
def resolve(kubeflow, new_session):
    """Resolve a reference: ``resolve("iris@champion", **options)``."""

    def call(name: str, *, namespaces=(), variables=None, kind="kubeflow", **options) -> Resolution:
        entry = registry_entry("kf", kind, namespaces=tuple(namespaces), **{"url": kubeflow.url, **options})
        session = new_session(registries=(entry,), variables=variables or {})
        return federation.resolve(ModelURI.parse(f"model-registry://{name}"), session.settings, session.http)

    return call


def asked(server, path: str) -> list[str]:
    """The queries of the requests for this path of the API."""
    return [request.query for request in server.requests if request.path == API + path]


# ---- which registry, model and version a URI means

TEAM = "model-registry-service.team-a.svc.cluster.local"
ENVIRONMENT = {"MODEL_REGISTRY_BASE_URL": "registry.test:8080"}
OWN_NAMES = {**ENVIRONMENT, "MODEL_REGISTRY_SERVICE_NAME": "mr", "MODEL_REGISTRY_CLUSTER_DOMAIN": "svc.test"}
FILE = """
registries:
  - {name: prod, kind: kubeflow, url: "http://prod.test:9000", namespaces: [team-a, "lab-*"]}
  - {name: other, kind: kubeflow, url: "http://other.test", models: ["owned"]}
"""


@pytest.mark.parametrize(
    ("configuration", "uri", "host", "model", "version"),
    [
        # The four forms of Kubeflow's storage initializer, by its own variables.
        (ENVIRONMENT, "iris", "registry.test:8080", "iris", "v2"),
        (ENVIRONMENT, "iris/v1", "registry.test:8080", "iris", "v1"),
        (ENVIRONMENT, "registry.test:8080/iris", "registry.test:8080", "iris", "v2"),
        (ENVIRONMENT, "registry.test:8080/iris/v1", "registry.test:8080", "iris", "v1"),
        (ENVIRONMENT, "registry.test/iris/v1", "registry.test:8080", "iris", "v1"),
        (ENVIRONMENT, "kubeflow/iris/v1", "registry.test:8080", "iris", "v1"),
        (ENVIRONMENT, "iris/v1/", "registry.test:8080", "iris", "v1"),
        (ENVIRONMENT, "iris@champion", "registry.test:8080", "iris", "v1"),
        (ENVIRONMENT, "iris?namespace=team-a", f"{TEAM}:8080", "iris", "v2"),
        (ENVIRONMENT, "iris/v1?namespace=team-a", f"{TEAM}:8080", "iris", "v1"),
        (OWN_NAMES, "iris/v1?namespace=team-a", "mr.team-a.svc.test:8080", "iris", "v1"),
        # White space around an address means nothing.
        ({"MODEL_REGISTRY_BASE_URL": " registry.test:8080 \n"}, "iris/v1", "registry.test:8080", "iris", "v1"),
        ({"MODEL_REGISTRY_BASE_URL": "http://registry.test:8080/ "}, "iris/v1", "registry.test:8080", "iris", "v1"),
        ({"MODEL_REGISTRY_BASE_URL": " \n"}, "iris", UsageError, "", ""),
        # A host with a namespace: Kubeflow's takes the host for a model, and its newest version for this one.
        (ENVIRONMENT, "registry.test/iris/v1?namespace=team-a", f"{TEAM}:8080", "iris", "v1"),
        # A model is never looked for at a host of its name, nor a version of three parts guessed.
        (ENVIRONMENT, "iris/release/2024", UsageError, "", ""),
        (ENVIRONMENT, "elsewhere.test/iris/v1", UsageError, "", ""),
        (ENVIRONMENT, "iris?version=v1", UsageError, "", ""),
        (ENVIRONMENT, "iris?namespace=", UsageError, "", ""),
        (ENVIRONMENT, "iris?namespace=evil.test%2F", UsageError, "", ""),
        (ENVIRONMENT, "iris?namespace=a.evil.test", UsageError, "", ""),
        (ENVIRONMENT, "iris?namespace=-a", UsageError, "", ""),
        ({**ENVIRONMENT, "MODEL_REGISTRY_SERVICE_NAME": "a/b"}, "iris", UsageError, "", ""),
        # The variable that Kubeflow's sample sets is none that its program reads.
        ({"MR_BASE_URL": "registry.test:8080"}, "iris", UsageError, "", ""),
        # Names with what URIs keep for themselves.
        (ENVIRONMENT, "org%2Firis/1.0%2Fbeta", "registry.test:8080", "org/iris", "1.0/beta"),
        (ENVIRONMENT, "what%3F%23/a%20b", "registry.test:8080", "what?#", "a b"),
        (ENVIRONMENT, "gr%C3%B6%C3%9Fe", "registry.test:8080", "größe", "v-ü"),
        (ENVIRONMENT, "größe/v-ü", "registry.test:8080", "größe", "v-ü"),
        # Registries of the configuration file.
        (FILE, "prod/iris/v1", "prod.test:9000", "iris", "v1"),
        (FILE, "other.test/owned", "other.test", "owned", "v2"),
        (FILE, "iris", "prod.test:9000", "iris", "v2"),
        (FILE, "owned", "other.test", "owned", "v2"),
        (FILE, "prod/iris?namespace=team-a", f"{TEAM}:9000", "iris", "v2"),
        (FILE, "iris?namespace=lab-3", "model-registry-service.lab-3.svc.cluster.local:9000", "iris", "v2"),
        (FILE, "iris?namespace=stranger", UsageError, "", ""),
        (FILE, "elsewhere.test/iris/v1", UsageError, "", ""),
        ({**ENVIRONMENT, "MODEL_REGISTRY_SCHEME": "ftp"}, "iris", LadingError, "", ""),
    ],
)
def test_a_uri_asks_one_registry_for_one_version(
    kubeflow, new_session, tmp_path, configuration, uri, host, model, version
):
    for name in ("iris", "owned"):
        made = kubeflow.model(name, customProperties=text_properties(**{"alias.champion": "v1"}))
        for number in ("v1", "v2"):
            kubeflow.artifact(kubeflow.version(made, number), f"s3://b/{name}/{number}")
    kubeflow.register("org/iris", "1.0/beta", "s3://b/x")
    kubeflow.register("what?#", "a b", "s3://b/x")
    kubeflow.register("größe", "v-ü", "s3://b/x")
    if isinstance(configuration, str):
        (tmp_path / "lading.yaml").write_text(configuration)
        configuration = {"LADING_CONFIG": str(tmp_path / "lading.yaml")}
    # As a proxy, the server is every host.
    settings = Settings.load({**configuration, "http_proxy": kubeflow.url})
    session = new_session(registries=settings.registries, network=settings.network)

    def resolved() -> Resolution:
        return federation.resolve(ModelURI.parse(f"model-registry://{uri}"), session.settings, session.http)

    if not isinstance(host, str):
        with pytest.raises(host):
            resolved()
        assert not kubeflow.server.requests
        return
    found = resolved()
    assert (found.model, found.version) == (model, version)
    assert {request.headers["host"] for request in kubeflow.server.requests} == {host}


def test_a_login_goes_to_a_namespace_that_is_named_and_to_none_that_a_pattern_fits(kubeflow, new_session):
    kubeflow.register("iris", "v1", "s3://b/iris")
    options = {"url": "http://prod.svc:9000", "login": {"token": "se-cret"}, "namespaces": ["team-a", "lab-*"]}

    def resolve(namespace: str, **others: str) -> None:
        entry = registry_entry("prod", "kubeflow", **options, **others)
        session = new_session(registries=(entry,), network=Network(http_proxy=kubeflow.url))
        federation.resolve(ModelURI.parse(f"model-registry://iris{namespace}"), session.settings, session.http)

    for namespace in ("", "?namespace=team-a", "?namespace=lab-3"):
        resolve(namespace)
    # Nor unencrypted to a host that is not near.
    with pytest.raises(UsageError, match="unencrypted"):
        resolve("?namespace=team-a", domain="prod.test")
    bearing = {request.headers["host"] for request in kubeflow.server.requests if "authorization" in request.headers}
    assert bearing == {"prod.svc:9000", "model-registry-service.team-a.svc.cluster.local:9000"}
    assert "model-registry-service.lab-3.svc.cluster.local:9000" in str(kubeflow.server.requests)


# ---- which version is the newest, and which is refused


def test_the_newest_version_is_live_has_the_greatest_id_and_a_usable_artifact(kubeflow, resolve):
    model = kubeflow.model("iris")
    kept = [(f"v{number}", kubeflow.version(model, f"v{number}")) for number in range(1, 12)]
    for name, version in kept[:-1]:
        kubeflow.artifact(version, f"s3://b/{name}")
    # Ten before nine: ids are texts of numbers.
    assert int(kept[9][1]) >= 10
    kubeflow.change("model_version", kept[9][1], state="ARCHIVED")
    found = resolve("iris")
    assert (found.version, str(found.uri)) == ("v9", "s3://b/v9")
    assert found.considered == (
        ("v11", "has no usable model artifact"),
        ("v10", "it is ARCHIVED"),
        ("v9", "the newest live version with a usable artifact"),
    )


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_that_the_server_lists_in_does_not_matter(kubeflow, resolve, order):
    versions = [kubeflow.register("iris", name, f"s3://b/{name}") for name in ("a", "b", "c")]
    kept = kubeflow.kept["model_version"]
    kubeflow.kept["model_version"] = {key: kept[key] for key in versions[::order]}
    assert resolve("iris").version == "c"


@pytest.mark.parametrize("most", [1, 2, 3])
def test_lists_are_read_to_their_last_page(kubeflow, resolve, most):
    kubeflow.most_in_a_page = most
    for number in range(5):
        kubeflow.register("größe", f"v{number}", f"s3://b/{number}")
        kubeflow.register(f"other{number}", "v", "s3://b/o")
    assert resolve("größe").version == "v4"


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("retired", "model 'retired' is ARCHIVED", "restore it"),
        ("retired/v1", "model 'retired' is ARCHIVED", "restore it"),
        ("iris/v3", "version 'v3' of 'iris' is ARCHIVED", "model-registry://iris is the newest"),
        ("iris@old", "version 'v3' of 'iris' is ARCHIVED", "model-registry://iris is the newest"),
        ("iris@older", "version 'v3' of 'iris' is ARCHIVED", "model-registry://iris is the newest"),
        ("iris/v4", "no version 'v4'", "there is v1, v2, v3"),
        ("iris@lost", "no alias 'lost'", "old"),
        ("iris@gone", "no version 'v9'", "v"),
        ("Iris", "no model 'Iris'", "did you mean iris"),
        ("irsi", "no model 'irsi'", "did you mean iris"),
        ("größen", "no model 'größen'", "did you mean größe"),
        ("empty", "no live version", "v1"),
        ("bare", "no live version", ""),
        ("iris/v1?artifact=onnx", "no usable artifact 'onnx'", "model"),
    ],
)
def test_what_is_not_there_or_not_live_is_told_with_what_is_near(kubeflow, resolve, name, says, hint):
    kubeflow.same = lambda one, other: one.lower() == other.lower()
    model = kubeflow.model("iris", customProperties=text_properties(**{"alias.old": "v3", "alias.gone": "v9"}))
    for number in ("v1", "v2", "v3"):
        kubeflow.artifact(kubeflow.version(model, number), "s3://b/x")
    last = next(key for key, kept in kubeflow.kept["model_version"].items() if kept["name"] == "v3")
    kubeflow.change("model_version", last, state="ARCHIVED", customProperties=text_properties(alias="older"))
    kubeflow.artifact(kubeflow.version(kubeflow.model("retired", state="ARCHIVED"), "v1"), "s3://b/x")
    kubeflow.version(kubeflow.model("empty"), "v1")
    kubeflow.model("bare")
    kubeflow.register("größe", "v1", "s3://b/x")
    with pytest.raises(NotFound) as caught:
        resolve(name)
    assert says in caught.value.message
    assert hint in caught.value.hint
    # Only a model that is not there at all may be asked for elsewhere.
    assert isinstance(caught.value, NoSuchModel) == ("no model" in says)


def test_a_model_that_a_search_finds_twice_is_taken_from_the_list(kubeflow, resolve):
    # The server says 404 to both: none, and several.
    kubeflow.same = lambda one, other: one.lower() == other.lower()
    kubeflow.register("iris", "v1", "s3://b/small")
    kubeflow.register("IRIS", "v1", "s3://b/large")
    assert [str(resolve(name).uri) for name in ("iris", "IRIS")] == ["s3://b/small", "s3://b/large"]


ODD = [
    "a/b",
    "a@b",
    "a?b=c",
    "a#b",
    "a%2Fb",
    "a+b",
    " ",
    "a b ",
    "..",
    ".",
    "größe",
    "模型",
    "a\nb",
    "a\x00b",
    "'\"\\",
    "%",
]


@pytest.mark.parametrize("name", ODD)
def test_any_name_can_be_asked_for_when_it_is_percent_encoded(kubeflow, resolve, name):
    model = kubeflow.model(name, customProperties=text_properties(**{f"alias.{name}": name}))
    kubeflow.artifact(kubeflow.version(model, name), "s3://b/p", name=name)
    coded = quote(name, safe="")
    for asked_for in (coded, f"{coded}/{coded}", f"{coded}@{coded}", f"kf/{coded}/{coded}?artifact={coded}"):
        found = resolve(asked_for)
        assert (found.model, found.version) == (name, name)


def test_two_models_of_one_name_are_refused_with_their_ids(kubeflow, resolve):
    ids = [kubeflow.model("iris"), kubeflow.model("iris")]
    with pytest.raises(Unsupported, match=f"2 models called 'iris' .ids {', '.join(ids)}"):
        resolve("iris")


def test_a_version_of_another_model_is_not_this_model_s(kubeflow, resolve):
    kubeflow.register("iris", "v1", "s3://b/iris")
    kubeflow.register("other", "v2", "s3://b/other")
    with pytest.raises(NotFound, match="no version 'v2'"):
        resolve("iris/v2")
    assert resolve("iris").version == "v1"
    # Nor where a server does not know what a parent is.
    foreign = next(kept for kept in kubeflow.kept["model_version"].values() if kept["name"] == "v2")
    kubeflow.server.put(f"{API}/model_version", json.dumps(foreign).encode())
    with pytest.raises(NotFound, match="no version 'v2'"):
        resolve("iris/v2")


# ---- aliases


def test_an_alias_is_a_property_of_model_or_version_and_the_models_wins(kubeflow, resolve):
    model = kubeflow.model("iris", customProperties=text_properties(**{"alias.best": "v1"}))
    kubeflow.artifact(kubeflow.version(model, "v1", customProperties=text_properties(alias="first")), "s3://b/1")
    kubeflow.artifact(kubeflow.version(model, "v2", customProperties=text_properties(alias="best")), "s3://b/2")
    assert resolve("iris@best").version == "v1"
    assert resolve("iris@best").considered == (("v1", "the alias best names it"),)
    assert resolve("iris@first").version == "v1"


def test_an_alias_may_be_a_number(kubeflow, resolve):
    number = {"alias.best": {"metadataType": "MetadataIntValue", "int_value": "2"}}
    model = kubeflow.model("iris", customProperties=number)
    for name in ("1", "2", "3"):
        kubeflow.artifact(kubeflow.version(model, name), "s3://b/p")
    assert resolve("iris@best").version == "2"


@pytest.mark.parametrize(
    "two",
    [
        {"metadataType": "MetadataIntValue", "int_value": "2"},
        {"metadataType": "MetadataDoubleValue", "double_value": 2},
        {"metadataType": "MetadataStringValue", "string_value": "2"},
    ],
    ids=lambda value: value["metadataType"],
)
def test_an_alias_that_is_a_number_is_the_same_whoever_has_it(kubeflow, resolve, two):
    model = kubeflow.model("iris", customProperties={"alias.best": two})
    for name, of_version in (("1", {"alias": two}), ("2", {})):
        kubeflow.artifact(kubeflow.version(model, name, customProperties=of_version), "s3://b/p")
    assert resolve("iris@best").version == "2"
    assert resolve("iris@2").version == "1"


def test_an_alias_that_several_versions_carry_names_none(kubeflow, resolve):
    model = kubeflow.model("iris")
    for name in ("v1", "v2", "v3"):
        version = kubeflow.version(model, name, customProperties=text_properties(alias="best"))
        kubeflow.artifact(version, f"s3://b/{name}")
    with pytest.raises(UsageError, match="v3, v2, v1"):
        resolve("iris@best")
    for key in list(kubeflow.kept["model_version"])[1:]:
        kubeflow.change("model_version", key, state="ARCHIVED")
    assert resolve("iris@best").version == "v1"


# ---- artifacts


@pytest.mark.parametrize("kind", ["doc-artifact", "metric", "parameter", "dataset-artifact"])
def test_only_artifacts_of_models_are_models(kubeflow, resolve, server, kind):
    version = kubeflow.register("iris", "v1", "s3://b/model")
    kubeflow.artifact(version, "s3://b/other", name="newer", artifactType=kind)
    assert str(resolve("iris").uri) == "s3://b/model"
    # Also where the server does not know the filter.
    route = kubeflow.server.routes[f"{API}/"]

    def unfiltered(request):
        target = request.target.replace("artifactType=model-artifact&", "")
        return route(type(request)(request.method, target, request.headers))

    kubeflow.server.routes[f"{API}/"] = unfiltered
    assert str(resolve("iris/v1").uri) == "s3://b/model"


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        ("LIVE", True),
        # What Kubeflow's own client registers.
        ("UNKNOWN", True),
        ("PENDING", False),
        ("MARKED_FOR_DELETION", False),
        ("DELETED", False),
        ("ABANDONED", False),
        ("REFERENCE", False),
        ("INVENTED", False),
    ],
)
def test_only_an_artifact_that_is_there_is_taken(kubeflow, resolve, state, taken):
    kubeflow.register("iris", "v1", "s3://b/old")
    kubeflow.register("iris", "v2", "s3://b/new", state=state)
    assert resolve("iris").version == ("v2" if taken else "v1")
    if taken:
        assert resolve("iris/v2").version == "v2"
    else:
        with pytest.raises(NotFound, match=f"model is {state}"):
            resolve("iris/v2")


def test_several_artifacts_are_a_choice_that_the_user_makes(kubeflow, resolve):
    version = kubeflow.version(kubeflow.model("iris"), "v1")
    kubeflow.artifact(version, "s3://b/onnx", name="onnx")
    kubeflow.artifact(version, "s3://b/gguf", name="gguf")
    kubeflow.artifact(version, "s3://b/gone", name="gone", state="DELETED")
    for name in ("iris", "iris/v1"):
        with pytest.raises(UsageError) as caught:
            resolve(name)
        assert "2 model artifacts: onnx, gguf" in caught.value.message
        assert "?artifact=onnx" in caught.value.hint
    assert str(resolve("iris?artifact=gguf").uri) == "s3://b/gguf"
    assert str(resolve("iris/v1?artifact=onnx").uri) == "s3://b/onnx"
    with pytest.raises(NotFound, match="no usable artifact 'gone'"):
        resolve("iris/v1?artifact=gone")


# ---- where the bytes are


@pytest.mark.parametrize(
    ("written", "uri", "variables"),
    [
        ("s3://b/p", "s3://b/p", {}),
        (
            "s3://b/p?endpoint=http://minio:9000&defaultRegion=eu-1",
            "s3://b/p",
            {"AWS_ENDPOINT_URL": "http://minio:9000", "AWS_DEFAULT_REGION": "eu-1"},
        ),
        ("s3://b/p?endpoint=minio.test:9000", "s3://b/p", {"AWS_ENDPOINT_URL": "minio.test:9000"}),
        ("s3://b/p?endpoint=http%3A%2F%2Fminio", "s3://b/p", {"AWS_ENDPOINT_URL": "http://minio"}),
        ("s3://b/p?endpoint=&defaultRegion=", "s3://b/p", {}),
        ("s3a://b/p?endpoint=http://minio", "s3a://b/p", {"AWS_ENDPOINT_URL": "http://minio"}),
        ("https://h/p?endpoint=x", "https://h/p?endpoint=x", {}),
        ("oci://h/r:tag", "oci://h/r:tag", {}),
        ("hf://o/m", "hf://o/m", {}),
        # The region becomes a part of host names: a token would go to them.
        ("s3://b/p?defaultRegion=x.evil.test/", Unsupported, {}),
        ("s3://b/p?endpoint=http://user:pass@minio", Unsupported, {}),
        ("s3://b/p?endpoint=file:///etc", Unsupported, {}),
        ("s3://b/p?endpoint=http://h/%23", Unsupported, {}),
        ("s3://b/p?versionId=3", Unsupported, {}),
        # A name that leads to a name, and files of this machine.
        ("model-registry://other/v1", Unsupported, {}),
        ("models:/other/1", Unsupported, {}),
        ("mlflow://other", Unsupported, {}),
        ("file:///var/run/secrets/token", NotAllowed, {}),
        ("/var/run/secrets/token", NotAllowed, {}),
        ("file:///srv/models/../../etc/passwd", NotAllowed, {}),
        ("file:///srv/models/%2e%2e/%2e%2e/etc/passwd", NotAllowed, {}),
        ("file:///srv/models/%00", NotAllowed, {}),
        ("file:///srv/models-2/x", NotAllowed, {}),
        ("file:///srv/models/iris", "file:///srv/models/iris", {}),
        ("/srv/models/iris", "/srv/models/iris", {}),
    ],
)
def test_an_artifact_s_uri_says_where_the_bytes_are(kubeflow, resolve, written, uri, variables):
    kubeflow.register("iris", "v1", written)
    if not isinstance(uri, str):
        with pytest.raises(uri):
            resolve("iris", folders=["/srv/models"])
        return
    found = resolve("iris", folders=["/srv/models"])
    assert (str(found.uri), dict(found.variables)) == (uri, variables)
    assert found.metadata.get("endpoint") == variables.get("AWS_ENDPOINT_URL")


@pytest.mark.parametrize(
    "written",
    [
        *("../token", "bucket/path", "s3:bucket/path", " s3://b/p", "null", "C:\\models", "x" * 5000),
        *("\x00", "s3://b/p\n", "abfss://x", "wasb://a b@x/y"),
    ],
    ids=repr,
)
def test_what_is_no_uri_is_told_as_the_registrys(kubeflow, resolve, written):
    kubeflow.register("iris", "v1", written)
    with pytest.raises(UsageError, match="registry kf, version 'v1' of 'iris': ") as caught:
        resolve("iris", folders=["/"])
    assert "list a parent folder" not in caught.value.hint
    assert len(str(caught.value)) < 500


def test_a_folder_of_this_machine_is_not_left_by_a_link(kubeflow, resolve, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "models/link").symlink_to(tmp_path / "secret")
    kubeflow.register("iris", "v1", str(tmp_path / "models/link"))
    with pytest.raises(NotAllowed) as caught:
        resolve("iris", folders=[str(tmp_path / "models")])
    assert "folders of registry kf" in caught.value.hint


def test_a_storage_key_stands_for_the_variables_that_the_entry_lists(kubeflow, resolve, tmp_path):
    kubeflow.register("iris", "v1", "s3://b/p?endpoint=http://minio:9000", storageKey="minio")
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("key")
    (tmp_path / "storage-config").write_text('{"type": "s3", "access_key_id": "other", "endpoint_url": "http://m2"}')
    assert dict(resolve("iris").variables) == {"AWS_ENDPOINT_URL": "http://minio:9000"}
    found = resolve("iris", storage={"minio": {"folder": str(tmp_path)}, "other": {"variables": {"A": "b"}}})
    assert found.variables["AWS_ACCESS_KEY_ID"] == "key"
    assert "key" not in repr(found)
    # A key of KServe's storage-config secret, as it is mounted.
    found = resolve(
        "iris", storage={"minio": {"variables": {"STORAGE_CONFIG": {"file": str(tmp_path / "storage-config")}}}}
    )
    variables = Settings().with_variables(found.variables).variables
    assert (variables["AWS_ACCESS_KEY_ID"], variables["AWS_ENDPOINT_URL"]) == ("other", "http://m2")


def test_ones_own_endpoint_wins_over_the_registrys_and_that_over_the_environments(kubeflow, resolve):
    kubeflow.register("iris", "v1", "s3://b/p?endpoint=http://told:9000&defaultRegion=told", storageKey="minio")
    here = Variables({"AWS_ENDPOINT_URL_S3": "http://here", "AWS_DEFAULT_REGION": "here"})
    rule = CredentialRule(ModelURI.parse("s3://b"), ValuesByName(variables={"AWS_ENDPOINT_URL": Value("http://own")}))

    def endpoint(*rules: CredentialRule, **options) -> tuple[str, str]:
        found = resolve("iris", **options)
        settings = Settings(variables=here, credentials=rules).with_variables(found.variables).for_uri(found.uri)
        return read_aws(settings.variables).endpoints.s3, read_s3(settings.variables).region

    storage = {"minio": {"variables": {"AWS_ENDPOINT_URL": "http://stored"}}}
    assert endpoint() == ("http://told:9000", "told")
    assert endpoint(storage=storage) == ("http://stored", "told")
    assert endpoint(rule, storage=storage) == ("http://own", "told")


@pytest.mark.parametrize(
    "storage", [[], "minio", {"minio": "folder"}, {"minio": {"secret": "x"}}, {"m": {"folder": 5}}]
)
def test_a_storage_that_is_not_understood_is_refused(kubeflow, resolve, storage):
    kubeflow.register("iris", "v1", "s3://b/p")
    if storage == []:
        assert resolve("iris", storage=storage).version == "v1"
        return
    with pytest.raises(UsageError, match=r"registry kf.* storage"):
        resolve("iris", storage=storage)


@pytest.mark.parametrize(
    ("uri", "digest", "pinned"),
    [
        ("oci://h:5000/r", f"sha256:{ZEROS}", f"oci://h:5000/r@sha256:{ZEROS}"),
        ("oci://h:5000/o/r:v1", f"sha256:{ZEROS}", f"oci://h:5000/o/r@sha256:{ZEROS}"),
        (f"oci://h/r@sha256:{ZEROS}", f"sha256:{ZEROS}", f"oci://h/r@sha256:{ZEROS}"),
        (f"oci://h/r@sha256:{ONES}", f"sha256:{ZEROS}", IntegrityError),
        ("oci://h/r:v1", "latest", IntegrityError),
        ("s3://b/r", f"sha256:{ZEROS}", "s3://b/r"),
    ],
)
def test_an_image_is_pinned_by_the_digest_that_is_recorded(kubeflow, resolve, uri, digest, pinned):
    kubeflow.register("iris", "v1", uri, customProperties=text_properties(**{"oci.digest": digest}))
    if isinstance(pinned, str):
        assert str(resolve("iris").uri) == pinned
    else:
        with pytest.raises(pinned):
            resolve("iris")


# ---- digests and facts


@pytest.mark.parametrize("odd", [True, 0, 1.5, [], [{}]], ids=repr)
@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *((kind, "state") for kind in ("registered_model", "model_version", "artifact")),
        *((kind, "customProperties") for kind in ("registered_model", "model_version", "artifact")),
        *(("artifact", key) for key in ("uri", "name", "storageKey")),
    ],
)
def test_a_value_of_another_type_does_not_count_as_none(kubeflow, resolve, kind, key, odd):
    """Else an archived version would be live, one without its digests verified, and an older one the newest."""
    kubeflow.register("iris", "v1", "s3://b/1")
    kubeflow.register("iris", "v2", "s3://b/2")
    kubeflow.change(kind, max(kubeflow.kept[kind], key=int), **{key: odd})
    for name in ("iris", "iris/v2"):
        with pytest.raises(Unsupported, match=f"the {key} of '.+' does not have this API's form"):
            resolve(name)


@pytest.mark.parametrize(
    ("of_version", "of_artifact"),
    [
        (text_properties(**{"oci.digest": f"sha256:{ZEROS}"}), text_properties(**{"oci.digest": f"sha256:{ONES}"})),
        ({"oci.digest": None}, {}),
        ({}, {"oci.digest": {"metadataType": "MetadataDoubleValue"}}),
    ],
    ids=["two", "null", "no value"],
)
def test_digests_of_an_image_that_contradict_or_say_nothing_are_refused(kubeflow, resolve, of_version, of_artifact):
    version = kubeflow.register("iris", "v1", "oci://h/r:1", customProperties=of_artifact)
    kubeflow.change("model_version", version, customProperties=of_version)
    with pytest.raises(IntegrityError, match=r"oci\.digest that is invalid"):
        resolve("iris")


@pytest.mark.parametrize(
    ("of_version", "of_artifact", "digests"),
    [
        ({"sha256": ZEROS}, {}, {"": f"sha256:{ZEROS}"}),
        ({}, {"sha256": f"sha256:{ZEROS.upper()}"}, {"": f"sha256:{ZEROS}"}),
        ({"sha256": ZEROS}, {"sha256": ZEROS}, {"": f"sha256:{ZEROS}"}),
        ({"sha256": ZEROS}, {"sha256": ONES}, "two digests of its file"),
        ({}, {"digest.a/b.bin": "md5:" + "0" * 32}, {"a/b.bin": "md5:" + "0" * 32}),
        ({"digests": json.dumps({"a": f"sha256:{ZEROS}"})}, {"digest.b": f"sha256:{ONES}"}, {"a": ZEROS, "b": ONES}),
        ({}, {"digests": json.dumps({"a": f"sha256:{ZEROS}"}), "digest.a": f"sha256:{ONES}"}, "two digests of a"),
        ({}, {"sha256": "abc"}, "an invalid digest"),
        ({}, {"sha256": ""}, "an invalid digest"),
        ({}, {"digest.a": "rot13:00"}, "an invalid digest"),
        ({}, {"digest.": f"sha256:{ZEROS}"}, {"": f"sha256:{ZEROS}"}),
        ({}, {"digest.../a": f"sha256:{ZEROS}"}, "an invalid digest"),
        ({}, {"digests": "no JSON"}, "not a JSON object"),
        ({}, {"digests": "[]"}, "not a JSON object"),
        ({}, {"digests": f'{{"a": "sha256:{ZEROS}", "a": "sha256:{ONES}"}}'}, "one path twice"),
    ],
)
def test_recorded_digests_must_hold(kubeflow, resolve, of_version, of_artifact, digests):
    version = kubeflow.register("iris", "v1", "s3://b/p", customProperties=text_properties(**of_artifact))
    kubeflow.change("model_version", version, customProperties=text_properties(**of_version))
    if isinstance(digests, str):
        with pytest.raises(IntegrityError, match=digests):
            resolve("iris")
    else:
        found = {path: str(digest) for path, digest in resolve("iris").digests.items()}
        assert {path: value[-64:] for path, value in found.items()} == {
            path: value[-64:] for path, value in digests.items()
        }


def test_digests_may_be_a_struct(kubeflow, resolve):
    struct = b64encode(json.dumps({"a": f"sha256:{ZEROS}"}).encode()).decode()
    properties = {"digests": {"metadataType": "MetadataStructValue", "struct_value": struct}}
    kubeflow.register("iris", "v1", "s3://b/p", customProperties=properties)
    assert {path: str(digest) for path, digest in resolve("iris").digests.items()} == {"a": f"sha256:{ZEROS}"}


def test_what_the_registry_knows_travels_along(kubeflow, resolve):
    model = kubeflow.model(
        "iris", owner="team", description="of flowers", customProperties=text_properties(a="", b="c")
    )
    properties = {
        "text": text_property("x"),
        "whole": {"metadataType": "MetadataIntValue", "int_value": "42"},
        "huge": {"metadataType": "MetadataIntValue", "int_value": "9" * 5000},
        "part": {"metadataType": "MetadataDoubleValue", "double_value": 0.5},
        "yes": {"metadataType": "MetadataBoolValue", "bool_value": True},
        "struct": {"metadataType": "MetadataStructValue", "struct_value": b64encode(b'{"k": [1]}').decode()},
        "broken": {"metadataType": "MetadataStructValue", "struct_value": "%%%"},
        "proto": {"metadataType": "MetadataProtoValue", "type": "t", "proto_value": "AA=="},
    }
    version = kubeflow.version(model, "v1", author="me", description="the first", customProperties=properties)
    about = {"modelFormatName": "onnx", "serviceAccountName": "sa", "modelSourceKind": "kfp", "storagePath": "p"}
    artifact = kubeflow.artifact(version, "s3://b/p", **about)
    metadata = resolve("iris").metadata
    assert metadata == json.loads(json.dumps(metadata))
    assert metadata["versionProperties"] == {
        "text": "x",
        "whole": 42,
        "huge": "9" * 5000,
        "part": 0.5,
        "yes": True,
        "struct": {"k": [1]},
        "broken": "%%%",
        "proto": properties["proto"],
    }
    assert metadata["modelProperties"] == {"a": "", "b": "c"}
    assert metadata["labels"] == ["a"]
    ids = {"registeredModelId": model, "modelVersionId": version, "modelArtifactId": artifact, "artifact": "model"}
    said = {"owner": "team", "author": "me", "description": "the first"}
    assert metadata.items() >= {**ids, **about, **said}.items()


# ---- what goes wrong


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        (status(401, b'{"code":"401","message":"m"}'), NotAllowed, "does not accept the login"),
        (status(403, b'{"code":"403","message":"m"}'), NotAllowed, "does not allow it"),
        (status(429), Unavailable, "429"),
        (status(500, b'{"code":"500","message":"m"}'), Unavailable, "500"),
        # Before the database is up, every path answers so.
        (status(503, b"service unavailable", headers={"Content-Type": "text/plain"}), Unavailable, "503"),
        (status(404, b"<html>", headers={"Content-Type": "text/html"}), Unsupported, "a web page"),
        (status(404, b"404 page not found\n"), Unsupported, "404 to everything below"),
        (status(200, b"<!doctype html><p>log in"), NotAllowed, "web page"),
        (status(200, b"not JSON"), Unsupported, "not JSON"),
        (status(200, b'{"items": 5, "nextPageToken": ""}'), Unsupported, "not have this API's form"),
        (status(200, b'{"items": [5]}'), Unsupported, "not have this API's form"),
        (status(200, b'{"items": [{"id": "1"}]}'), Unsupported, "not have this API's form"),
        (status(200, b"[]"), Unsupported, "not have this API's form"),
        (status(200, b"null"), Unsupported, "not have this API's form"),
        (status(200, b'{"name": "\\ud800"}'), Unsupported, "not JSON"),
        (status(200, b'{"name": "iris", "id": "../1"}'), Unsupported, "an invalid id"),
        (status(200, b'{"name": "iris", "id": 7}'), Unsupported, "an invalid id"),
        (redirect("http://elsewhere.test/"), NotAllowed, "redirects"),
        (reset(0), Unavailable, ""),
        (stall(0), Unavailable, ""),
    ],
)
def test_a_registry_that_does_not_answer_as_one_gives_a_clear_error(
    kubeflow, pull, tmp_path, server, fault, kind, says
):
    kubeflow.register("iris", "v1", str(tmp_path / "origin"))
    fault.times, fault.on = ALWAYS, anything
    server.misbehave(ANYWHERE, fault)
    entry = registry_entry("kf", "kubeflow", url=kubeflow.url, folders=[str(tmp_path)], stall_s=0.2, attempts=2)
    with pytest.raises(kind) as caught:
        pull("model-registry://iris", tmp_path / "model", registries=(entry,))
    assert says in caught.value.message
    assert not isinstance(caught.value, NoSuchModel)
    assert not (tmp_path / "model").exists()


def test_a_registry_that_is_not_there_is_unavailable(resolve, kubeflow):
    with pytest.raises(Unavailable):
        resolve("iris", url="http://127.0.0.1:1", attempts=1)


@pytest.mark.parametrize("path", ["/registered_models", "/registered_models/1/versions", "/model_versions/2/artifacts"])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_list_that_does_not_end_is_refused(kubeflow, resolve, server, monkeypatch, path, fresh):
    monkeypatch.setattr("lading.network.paging._MOST_BARREN_PAGES", 5)
    kubeflow.register("größe", "v1", "s3://b/p")
    pages = iter(range(1000))

    def endless(request) -> Answer:
        token = str(next(pages)) if fresh else "again"
        return Answer(200, {}, json.dumps({"items": [], "size": 0, "pageSize": 1, "nextPageToken": token}).encode())

    server.routes = {API + path: endless, **server.routes}
    with pytest.raises(IntegrityError, match=r"in registry \w+ does not end"):
        resolve("gr%C3%B6%C3%9Fe")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/registered_models", "registered_model"),
        ("/registered_models/1/versions", "model_version"),
        ("/model_versions/2/artifacts", "artifact"),
    ],
)
@pytest.mark.parametrize(
    "about",
    [
        {"size": 2},
        {"size": "1"},
        {"size": 0},
        {"nextPageToken": None},
        {"nextPageToken": 0},
        {"nextPageToken": "again"},
        {"nextPageToken": ...},
        {"items": ...},
    ],
    ids=str,
)
def test_a_list_that_contradicts_itself_is_refused(kubeflow, resolve, server, path, kind, about):
    kubeflow.register("größe", "v1", "s3://b/p")
    [item] = kubeflow.kept[kind].values()
    page = {"items": [item], "size": 1, "pageSize": 500, "nextPageToken": ""} | about
    page = {key: value for key, value in page.items() if value is not ...}
    server.routes = {API + path: lambda request: Answer(200, {}, json.dumps(page).encode()), **server.routes}
    with pytest.raises((IntegrityError, Unsupported)):
        resolve("gr%C3%B6%C3%9Fe")


def test_a_version_that_is_deleted_while_it_is_resolved_is_not_the_newest(kubeflow, resolve, server):
    kubeflow.register("iris", "v1", "s3://b/1")
    gone = kubeflow.register("iris", "v2", "s3://b/2")
    path = f"{API}/model_versions/{gone}/artifacts"
    server.misbehave(path, server.before(lambda: kubeflow.kept["model_version"].pop(gone), on=anything))
    found = resolve("iris")
    assert found.version == "v1"
    assert found.considered[0][0] == "v2"


def test_a_version_that_is_deleted_after_it_was_asked_for_is_not_found(kubeflow, resolve, server):
    gone = kubeflow.register("iris", "v2", "s3://b/2")
    path = f"{API}/model_versions/{gone}/artifacts"
    server.misbehave(path, server.before(lambda: kubeflow.kept["model_version"].pop(gone), on=anything))
    with pytest.raises(NotFound, match="artifacts of version 'v2'"):
        resolve("iris/v2")


def test_a_hundred_versions_without_an_artifact_are_enough(kubeflow, resolve, server, monkeypatch):
    monkeypatch.setattr("lading.registries.kubeflow.models._MOST_TRIED", 3)
    kubeflow.register("iris", "v0", "s3://b/0")
    for number in range(1, 6):
        kubeflow.version(kubeflow.kept["registered_model"]["1"]["id"], f"v{number}")
    with pytest.raises(NotFound, match="among its 3 newest"):
        resolve("iris")
    assert len([request for request in server.requests if request.path.endswith("/artifacts")]) == 3


@pytest.mark.parametrize(("gone", "left"), [(V1, API), (API, V1)])
def test_servers_of_before_and_after_v1_are_understood(kubeflow, resolve, server, gone, left):
    kubeflow.register("iris", "v1", "s3://b/p")
    kubeflow.register("größe", "v1", "s3://b/p")
    server.routes[f"{gone}/"] = lambda request: Answer(404, {"Content-Type": "text/plain"}, b"404 page not found\n")
    for name in ("iris", "iris/v1", "gr%C3%B6%C3%9Fe"):
        assert resolve(name).version == "v1"
    with pytest.raises(NoSuchModel, match="lost"):
        resolve("lost")
    with pytest.raises(NotFound, match="no version 'v9'"):
        resolve("iris/v9")


def test_a_model_that_is_there_costs_one_request_for_each_step(kubeflow, resolve, server):
    kubeflow.register("iris", "v1", "s3://b/p")
    resolve("iris/v1")
    assert [request.path.removeprefix(API) for request in server.requests] == [
        "/registered_model",
        "/model_version",
        "/model_versions/2/artifacts",
    ]


# ---- the catalog


@pytest.fixture
def browse(resolve, kubeflow):
    kubeflow.publish("other", "org/large", {"artifactType": "model-artifact", "uri": "oci://h/other"})
    kubeflow.publish(
        "ibm",
        "org/large",
        {"artifactType": "metrics-artifact", "metricsType": "performance-metrics"},
        {"artifactType": "model-artifact", "uri": "oci://h/r:1", "customProperties": text_properties(sha256=ZEROS)},
        license="apache-2.0",
        provider="IBM",
        customProperties=text_properties(validated=""),
    )
    for number in range(12):
        kubeflow.publish("ibm", f"org/small-{number}", {"artifactType": "model-artifact", "uri": "hf://o/m"})
    return lambda name, **options: resolve(name, kind="kubeflow-catalog", **{"source": "ibm", **options})


@pytest.mark.parametrize("name", ["org%2Flarge", "kf/org%2Flarge"])
def test_a_catalog_model_is_found_in_the_source_of_the_entry(browse, name):
    found = browse(name)
    assert (found.model, found.version, str(found.uri)) == ("org/large", "", "oci://h/r:1")
    assert found.metadata.items() >= {"license": "apache-2.0", "source": "ibm", "labels": ["validated"]}.items()
    assert str(found.digests[""]) == f"sha256:{ZEROS}"


def test_a_catalog_of_the_next_version_is_understood(browse, server):
    server.routes[f"{CATALOG_API}/"] = lambda request: Answer(404, {}, b"404 page not found\n")
    assert browse("org%2Flarge").model == "org/large"
    server.routes[f"{CATALOG_V1}/"] = lambda request: Answer(404, {}, b"404 page not found\n")
    with pytest.raises(Unsupported, match="404 to everything"):
        browse("org%2Flarge")


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("org%2Flarg", NoSuchModel, "org/large"),
        ("org%2Fsmall-9/v1", NotFound, "no versions"),
        ("org%2Fsmall-9@best", NotFound, "no versions"),
        ("org/small-9", NotFound, "%2F"),
        ("org%2Flarge?artifact=x", NotFound, "no usable artifact"),
    ],
)
def test_what_a_catalog_has_not_is_told(browse, name, kind, says):
    with pytest.raises(kind) as caught:
        browse(name)
    assert says in f"{caught.value} {caught.value.hint}"


def test_artifacts_of_a_catalog_without_names_are_told_by_their_uris(browse, kubeflow):
    kubeflow.publish("ibm", "two", *({"uri": f"oci://h/r:{tag}", "artifactType": "model-artifact"} for tag in "ab"))
    with pytest.raises(UsageError, match="2 model artifacts: oci://h/r:a, oci://h/r:b"):
        browse("two")


# Pieces of names that a router or a proxy may take for something else.
PIECES = [
    "a",
    "b",
    "/",
    "%41",
    "%2F",
    " ",
    "ü",
    "%",
    "/artifacts",
    "artifacts",
    "/performance",
    "?",
    "#",
    "~",
    ".x",
    "+",
    ";",
    "&",
    "'*",
    "模",
]
NAMES = (
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join).filter(lambda name: not name.startswith("/"))
)


def decoded_once(path):
    """What a server makes of a path that decodes each of its parts once."""
    parts = path.split("/sources/")[1].split("/")
    return unquote(parts[0]), unquote(parts[2]), parts[3:] == ["artifacts"]


@pytest.mark.parametrize("decodes", [routed_to, decoded_once], ids=["Kubeflow", "another"])
@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("ibm", "100%41 grün"),
        ("ibm", "org/artifacts"),
        ("ibm", "artifacts"),
        ("ibm", "artifacts/performance"),
        ("ibm", ".."),
        ("ibm", "org/models/artifacts/artifacts"),
        ("ibm", "100%"),
        ("ibm", "a%2Fb"),
        ("my models", "org/large"),
        ("grün 100%41", "org/large"),
        ("a,b;c=d", "m7"),
    ],
)
def test_a_name_of_a_catalog_is_read_by_its_server_as_it_is(browse, kubeflow, decodes, source, name):
    kubeflow.routed = decodes
    # What is found where a name is decoded once too often, or too seldom.
    for near in {unquote(name), quote(name, safe=""), quote(name)} - {name}:
        kubeflow.publish(source, near, {"artifactType": "model-artifact", "uri": "oci://h/wrong"})
    kubeflow.publish(source, name, {"artifactType": "model-artifact", "uri": "oci://h/right"})
    found = browse(quote(name, safe=""), source=source)
    assert (found.model, str(found.uri)) == (name, "oci://h/right")


@effort(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(NAMES, NAMES, st.sampled_from([routed_to, decoded_once]))
def test_any_name_of_a_catalog_is_found_or_the_reason_is_its_source(browse, kubeflow, source, name, decodes):
    kubeflow.routed = decodes
    kubeflow.catalog.clear()
    for near in (unquote(name), quote(name, safe=""), name):
        kubeflow.publish(source, near, {"artifactType": "model-artifact", "uri": f"oci://h/{quote(near, safe='')}"})
    if "/" in source and decodes is routed_to:
        with pytest.raises(Unsupported, match="does not return it"):
            browse(quote(name, safe=""), source=source)
        return
    found = browse(quote(name, safe=""), source=source)
    assert (found.model, str(found.uri)) == (name, f"oci://h/{quote(name, safe='')}")


def test_a_source_whose_id_has_a_slash_is_the_reason_that_is_told(browse, kubeflow):
    kubeflow.publish("my team/models", "m7", {"artifactType": "model-artifact", "uri": "oci://h/r:1"})
    with pytest.raises(Unsupported, match="lists the model 'm7' in its source 'my team/models'") as caught:
        browse("m7", source="my team/models")
    assert "did you mean" not in caught.value.hint
    with pytest.raises(NoSuchModel) as caught:
        browse("m77", source="my team/models")
    assert caught.value.hint == "did you mean m7?"


def test_a_gateway_that_refuses_an_encoded_slash_is_passed(browse, kubeflow, server):
    kubeflow.publish("ibm", "a/b", {"artifactType": "model-artifact", "uri": "oci://h/r:1"})
    answer = server.routes[f"{CATALOG_API}/"]
    server.routes[f"{CATALOG_API}/"] = lambda request: Answer(400) if "%2F" in request.path else answer(request)
    assert str(browse("a%2Fb").uri) == "oci://h/r:1"


def test_a_catalog_needs_a_source(browse):
    with pytest.raises(UsageError, match="registry kf needs source"):
        browse("org%2Flarge", source="")


def test_a_catalog_names_no_files_of_this_machine(browse, kubeflow):
    kubeflow.publish("ibm", "evil", {"artifactType": "model-artifact", "uri": "file:///etc/passwd"})
    with pytest.raises(NotAllowed):
        browse("evil")


def test_names_in_errors_cannot_steer_a_terminal(kubeflow, resolve):
    kubeflow.register("iris", "v\x1b[2J", "s3://b/p", state="DELETED")
    with pytest.raises(NotFound) as caught:
        resolve(f"iris/{quote(chr(27))}[2K")
    assert "\x1b" not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(NotFound) as caught:
        resolve("iris")
    assert "\x1b" not in f"{caught.value} {caught.value.hint}"


def test_variables_do_not_show_in_a_resolution() -> None:
    assert "se-cret" not in repr(Resolution(ModelURI.parse("s3://b/p"), variables=Variables({"KEY": "se-cret"})))
