"""A name in a catalog leads to any source, and what it brings is the same."""

import base64

import pytest

from fakes.certificates import Authority
from fakes.fake_s3 import FakeS3
from fakes.faulty_http import Answer, FaultyServer
from fakes.real_s3 import s3_anonymous
from fakes.registry_entries import registry_entry
from lading.errors import NotAllowed
from lading.model.uri import ModelURI
from lading.settings.credentials import CredentialRule
from lading.settings.limits import Network
from lading.settings.registries import RegistryEntry
from lading.settings.value import Value, ValuesByName

MODEL = b"the bytes of a model" * 1000


@pytest.fixture
def catalog(tmp_path):
    """Write a catalog with one model of three versions, one for each kind of place."""

    def write(**places: str) -> tuple[RegistryEntry]:
        path = tmp_path / "catalog.yaml"
        versions = "".join(f"      {name}: {{uri: '{uri}'}}\n" for name, uri in places.items())
        path.write_text(f"models:\n  iris:\n    aliases: {{champion: over-s3}}\n    versions:\n{versions}")
        return (registry_entry("catalog", "catalog", path=str(path)),)

    return write


def test_a_name_brings_the_same_model_from_a_folder_from_https_and_from_s3(catalog, pull, tmp_path):
    authority = Authority(tmp_path)
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin/model.onnx").write_bytes(MODEL)
    with FaultyServer() as server, FaultyServer(authority.server_context("localhost"), host="localhost") as secure:
        FakeS3(server).put("iris/model.onnx", MODEL)
        registries = catalog(
            **{"in-a-folder": "origin", "over-s3": "s3://models/iris", "over-https": secure.put("/model.onnx", MODEL)}
        )
        about = {
            "registries": registries,
            **s3_anonymous(server.url),
            "network": Network(ca_files=(authority.bundle,)),
        }
        names = ["iris/in-a-folder", "iris/over-https", "iris/over-s3", "iris@champion", "iris"]
        brought = {name: pull(f"model-registry://{name}", tmp_path / name, **about) for name in names}
        assert {(tmp_path / name / "model.onnx").read_bytes() for name in names} == {MODEL}
        assert len({manifest.digest for manifest in brought.values()}) == 1
        # The newest is the last that is written.
        assert [brought[name].version for name in names[3:]] == ["over-s3", "over-https"]


BASIC = "Basic " + base64.b64encode(b"user:s3cret").decode()


@pytest.fixture(params=["GIT", "OCI"])
def asked(request, server, catalog, pull, tmp_path):
    """Deliver from a server that asks for a login: by name, or by its URI; what it was shown and the hint at the end."""
    family = request.param
    server.routes["/"] = lambda request: Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
    host = server.url.removeprefix("http://")
    uri = f"git+http://{host}/team/model" if family == "GIT" else f"oci://{host}/team/model:v1"

    def ask(*, by_name=True, rule="", **given):
        login = {f"{family}_USERNAME": "user", f"{family}_PASSWORD": "s3cret"}
        fills = {"rule": rule, "host": host, "port": host.partition(":")[2]}
        bound = {f"{family}_{key}": text.format(**fills) for key, text in given.items()}
        rules = (
            (
                CredentialRule(
                    ModelURI.parse(rule.format(uri=uri)),
                    ValuesByName(variables={key: Value(text) for key, text in login.items()}),
                ),
            )
            if rule
            else ()
        )
        about = {
            "registries": catalog(**{"over-s3": uri}),
            "variables": ({} if rule else login) | bound | {"KSERVE_OCI_INSECURE_REGISTRY": "true"},
            "credentials": rules,
        }
        server.requests.clear()
        with pytest.raises(NotAllowed) as caught:
            pull("model-registry://iris" if by_name else uri, tmp_path / "dest", **about)
        shown = {request.headers.get("authorization") for request in server.requests} - {None}
        return shown, caught.value.hint

    return ask


def test_a_registry_does_not_choose_who_gets_a_login(asked):
    shown, hint = asked()
    assert shown == set()
    assert "_HOST" in hint
    assert "credentials" in hint
    # Who gives the URI says the host.
    assert asked(by_name=False)[0] == {BASIC}


@pytest.mark.parametrize("host", ["{host}", "127.0.0.1"])
def test_a_login_that_says_its_host_goes_there_by_whichever_way(asked, host):
    assert asked(HOST=host)[0] == asked(HOST=host, by_name=False)[0] == {BASIC}


@pytest.mark.parametrize("host", ["127.0.0.1:1", "example.com", "127.0.0.1.example.com", "0.0.1"])
def test_a_login_that_says_another_host_is_kept(asked, host):
    for by_name in (True, False):
        shown, hint = asked(HOST=host, by_name=by_name)
        assert shown == set()
        assert f"for {host} alone" in hint


def test_a_login_for_a_prefix_goes_where_a_registry_leads_below_it(asked):
    assert asked(rule="{uri}")[0] == {BASIC}
    # It has its own host, whatever the environment's is.
    assert asked(rule="{uri}", HOST="example.com", USERNAME="other", PASSWORD="other")[0] == {BASIC}
    assert asked(rule="{uri}-other")[0] == set()
