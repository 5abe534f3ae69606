"""Which API server, and who asks it: in a pod, by a kubeconfig, by several."""

import json
from base64 import b64encode
from pathlib import Path

import pytest

from lading.errors import NotFound, Unsupported, UsageError
from lading.secret import Secret
from lading.settings.kubernetes import read_access
from lading.settings.limits import Network
from lading.settings.variables import Variables

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
PEM = "-----BEGIN CERTIFICATE-----\n…".encode("ascii", "replace")


@pytest.fixture
def account(tmp_path):
    folder = tmp_path / "account"
    folder.mkdir()
    for name, text in {"namespace": "team-a\n", "token": "t0ken\n", "ca.crt": "…"}.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def kubeconfig(tmp_path):
    """Writes one: of the context ``dev``, with ``cluster`` and ``user`` beside what is usual."""

    def write(cluster=None, user=None, name="config", **others) -> str:
        document = {
            "current-context": "dev",
            "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "u", "namespace": "team-b"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://kubernetes.example.com", **(cluster or {})}}],
            "users": [{"name": "u", "user": {"token": "t0ken"} if user is None else user}],
        } | others
        (tmp_path / name).write_text(json.dumps(document))
        return str(tmp_path / name)

    return write


def access(variables=None, network: Network | None = None, **others):
    return read_access(Variables(variables or {}), network or Network(), **others)


def test_in_a_pod_the_service_account_asks_and_its_token_is_read_anew(account):
    found = access(POD, service_account=account)
    assert (found.server, found.namespace) == ("https://10.96.0.1:443", "team-a")
    assert found.network == Network(ca_files=(str(account / "ca.crt"),), only_ca_files=True, tls="openssl")
    assert found.bearer() == Secret("t0ken")
    (account / "token").write_text("an0ther")
    assert found.bearer() == Secret("an0ther")


def test_an_address_of_ipv6_is_put_in_brackets(account):
    assert (
        access(POD | {"KUBERNETES_SERVICE_HOST": "fd00::1"}, service_account=account).server == "https://[fd00::1]:443"
    )


def test_a_kubeconfig_goes_before_the_pod(account, kubeconfig):
    found = access(POD | {"KUBECONFIG": kubeconfig()}, service_account=account)
    assert (found.server, found.namespace) == ("https://kubernetes.example.com", "team-b")
    assert found.bearer() == Secret("t0ken")
    assert "t0ken" not in repr(found)


def test_certificates_are_files_beside_the_kubeconfig_or_are_written_in_it(tmp_path, kubeconfig):
    user = {"client-certificate": "me.crt", "client-key-data": b64encode(PEM).decode()}
    found = access({"KUBECONFIG": kubeconfig({"certificate-authority": "/etc/ca.crt"}, user)})
    assert (found.network.ca_files, found.network.client_certificate) == (("/etc/ca.crt",), str(tmp_path / "me.crt"))
    assert Path(found.network.client_key).read_bytes() == PEM
    assert found.bearer() is None


def test_the_token_of_a_file_is_read_when_it_is_needed(tmp_path, kubeconfig):
    found = access({"KUBECONFIG": kubeconfig(user={"tokenFile": "token"})})
    (tmp_path / "token").write_text("l4ter\n")
    assert found.bearer() == Secret("l4ter")


def test_a_proxy_and_a_cluster_whose_certificate_is_not_verified(kubeconfig):
    insecure = {"insecure-skip-tls-verify": True, "proxy-url": "http://proxy:3128"}
    found = access({"KUBECONFIG": kubeconfig(insecure)}, Network(no_proxy=("*",), ca_files=("/other.crt",)))
    assert found.network == Network(
        verify_tls=False, http_proxy="http://proxy:3128", https_proxy="http://proxy:3128", tls="openssl"
    )


def test_of_several_files_the_first_that_has_a_name_counts(tmp_path, kubeconfig):
    first = kubeconfig(name="first", clusters=[], users=[])
    second = kubeconfig(name="second", user={"token": "of the second"}, contexts=[])
    found = access({"KUBECONFIG": f"{first}:{tmp_path}/none:{second}"})
    assert found.bearer() == Secret("of the second")


def test_another_context(kubeconfig):
    contexts = [{"name": "prod", "context": {"cluster": "c"}}]
    found = access(kubeconfig=kubeconfig(contexts=contexts), context="prod")
    assert (found.namespace, found.bearer()) == ("default", None)


@pytest.mark.parametrize(
    "entry", [{"exec": {"command": "aws"}}, {"as": "root"}, {"username": "me", "password": "s3cret"}]
)
def test_what_is_not_done_is_an_error_and_nobody_is_asked_as_somebody_else(kubeconfig, entry):
    with pytest.raises(Unsupported, match=f"{next(iter(entry))}") as caught:
        access({"KUBECONFIG": kubeconfig(user=entry)})
    assert "s3cret" not in str(caught.value) + caught.value.hint
    assert "kubectl proxy" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"current-context": ""}, "no current-context"),
        ({"clusters": ["c"]}, "an entry of clusters is not a mapping"),
        ({"clusters": [{"name": "c", "cluster": {"server": "kubernetes"}}]}, "the cluster 'c' has no server"),
        ({"users": [{"name": "u", "user": {"client-key-data": "§"}}]}, "client-key-data is not in base64"),
        ({"contexts": {"dev": 1}}, "contexts"),
    ],
)
def test_a_kubeconfig_that_is_wrong(kubeconfig, change, words):
    with pytest.raises(UsageError, match=words):
        access({"KUBECONFIG": kubeconfig(**change)})


def test_a_name_that_a_kubeconfig_does_not_have(kubeconfig):
    with pytest.raises(NotFound, match="has no context 'dve'") as caught:
        access(kubeconfig=kubeconfig(), context="dve")
    assert caught.value.hint == "did you mean dev?"


def test_no_kubeconfig_at_all(tmp_path):
    with pytest.raises(NotFound, match="there is no kubeconfig") as caught:
        access()
    assert "KUBECONFIG" in caught.value.hint
