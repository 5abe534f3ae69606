"""Images that cosign's and notation's own libraries sign, and whether they take what the fakes of the tests sign."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oras.client import OrasClient

from fakes.cosign_signer import sign_by_referrer, sign_by_tag
from fakes.fake_oci import FakeRegistry
from fakes.notation_signer import CertifiedRsa, sign_by_notation
from fakes.oms_signer import Certified, Signer
from fakes.trees import read_tree, write_tree
from lading.errors import Untrusted
from lading.model.uri import ModelURI
from lading.settings.trust import TrustRule
from lading.trust.certificate import read_roots
from lading.trust.public_key import read_public_keys

PROGRAM = Path(__file__).parents[2] / ".servers/bin/image-signers"
INSECURE = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
FILES = {"config.json": b"{}", "weights.bin": b"weights"}
Sign = Callable[[str], TrustRule]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "COSIGN_EXPERIMENTAL": "0"}
    return subprocess.run([PROGRAM, *words], capture_output=True, text=True, env=environ, timeout=60, check=False)


@pytest.fixture(scope="module", params=["referrers", "tags"])
def host(request) -> Iterator[str]:
    """A registry with the API for referrers, and one without it, where a tag stands for that."""
    assert PROGRAM.exists(), "image-signers is not built: run make test-servers"
    process = subprocess.Popen(
        [PROGRAM, "serve", request.param], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def image(host, tmp_path, monkeypatch, request) -> str:
    """An artifact of its own for each test, without a signature: its reference."""
    monkeypatch.chdir(write_tree(tmp_path / "files", FILES | {"own.txt": request.node.name.encode()}))
    reference = f"{host}/team/{abs(hash(request.node.name))}:v1"
    OrasClient(hostname=host, insecure=True).push(reference, files=[*FILES, "own.txt"])
    return reference


def signed(kind: str, image: str, folder: Path) -> TrustRule:
    """A rule that trusts whoever has signed the image now."""
    public = folder / "public.pem"
    done = run({"tag": "cosign-tag", "bundle": "cosign-bundle", "notation": "notation-sign"}[kind], image, public)
    assert done.returncode == 0, done.stderr
    return rule_of(kind, image, public.read_bytes())


def rule_of(kind: str, image: str, public: bytes) -> TrustRule:
    prefix = ModelURI.parse(f"oci://{image.partition('/')[0]}")
    if kind == "notation":
        return TrustRule(prefix, roots=read_roots(public), kind="notation")
    return TrustRule(prefix, read_public_keys(public), kind="cosign")


@pytest.mark.parametrize("kind", ["tag", "bundle", "notation"])
def test_what_they_sign_is_delivered_and_by_nobody_else(image, pull, tmp_path, kind):
    rule = signed(kind, image, tmp_path)
    others = rule_of(kind, image, Certified("x").certificate_pem if kind == "notation" else Signer().public_pem)
    with pytest.raises(Untrusted):
        pull(f"oci://{image}", tmp_path / "m", variables=INSECURE, trust=(others,))
    assert pull(f"oci://{image}", tmp_path / "m", variables=INSECURE, trust=(rule,)).signature is not None
    assert FILES.items() <= read_tree(tmp_path / "m").items()


def test_two_signers_of_cosign_are_both_found(image, pull, tmp_path):
    for kind in ("tag", "bundle", "bundle", "tag"):
        rule = signed(kind, image, tmp_path)
        assert pull(f"oci://{image}", tmp_path / "m", variables=INSECURE, trust=(rule,)).signature is not None


@pytest.mark.parametrize("way", [sign_by_tag, sign_by_referrer])
@pytest.mark.parametrize("lists", [True, False])
def test_cosign_takes_what_the_fake_signs(server, tmp_path, way, lists):
    registry, signer, public = FakeRegistry(server), Signer(), tmp_path / "key.pub"
    registry.lists_referrers = lists
    way(registry, registry.put_files(FILES)["digest"], signer)
    public.write_bytes(signer.public_pem)
    done = run("cosign-verify", registry.uri().removeprefix("oci://"), public)
    assert done.returncode == 0, done.stderr
    public.write_bytes(Signer().public_pem)
    assert run("cosign-verify", registry.uri().removeprefix("oci://"), public).returncode == 1


@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_notation_takes_what_the_fake_signs(server, tmp_path, kind):
    registry, root, pem = FakeRegistry(server), Certified("the root", authority=True), tmp_path / "root.pem"
    signer = CertifiedRsa("us", root) if kind == "RSA" else Certified("us", root)
    digest = registry.put_files(FILES)["digest"]
    sign_by_notation(registry, digest, signer)
    reference = registry.uri(digest).removeprefix("oci://")
    pem.write_bytes(root.certificate_pem)
    done = run("notation-verify", reference, pem)
    assert done.returncode == 0, done.stderr
    pem.write_bytes(Certified("the root", authority=True).certificate_pem)
    assert run("notation-verify", reference, pem).returncode == 1
