"""The reference program of OpenSSF Model Signing, model_signing: what it signs, and whether it agrees with every verdict."""

import datetime
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509

from fakes.oms_signer import Certified, Signer
from fakes.sigstore_services import IDENTITY, ISSUER, NOW, Sigstore
from fakes.trees import content, read_tree, write_tree
from lading.errors import Untrusted
from lading.settings.trust import TrustRule
from lading.trust.certificate import read_roots
from lading.trust.public_key import read_public_keys
from lading.trust.sigstore import Identity

SERVERS = Path(__file__).parents[2] / ".servers"
MODEL = {"config.json": b"{}", "weights/a.bin": content(100_000), "weights/b c.bin": b"b", "empty": b""}
CURVES = ("P-256", "P-384", "P-521")
# How the program's own library signs, since its command signs whole files alone.
LIBRARY = """
import sys
from model_signing import hashing, signing
folder, key, method, algorithm = sys.argv[1:]
hashes = hashing.Config().set_ignored_paths(paths=[f"{folder}/model.sig"])
if method == "shards":
    hashes.use_shard_serialization(hashing_algorithm=algorithm, shard_size=30_000)
else:
    hashes.use_file_serialization(hashing_algorithm=algorithm)
signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashes).sign(folder, f"{folder}/model.sig")
"""


class Reference:
    """The program, with the keys of one signer."""

    def __init__(self, folder: Path, signer: Signer) -> None:
        self.bin = SERVERS / "model-signing/bin"
        assert self.bin.exists(), "model_signing is not installed: run make test-servers"
        self.private, self.public = folder / "key.pem", folder / "key.pub"
        self.private.write_bytes(signer.private_pem)
        self.public.write_bytes(signer.public_pem)

    def _run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "HOME": str(self.private.parent)}
        return subprocess.run(
            list(map(str, words)), capture_output=True, text=True, env=environ, timeout=120, check=False
        )

    def sign(self, folder: Path, *words: str) -> None:
        program = self.bin / "model_signing"
        done = self._run(
            program, "sign", "key", folder, "--private_key", self.private, "--signature", folder / "model.sig", *words
        )
        assert done.returncode == 0, done.stderr

    def sign_by_library(self, folder: Path, method: str, algorithm: str) -> None:
        done = self._run(self.bin / "python", "-c", LIBRARY, folder, self.private, method, algorithm)
        assert done.returncode == 0, done.stderr

    def takes(self, folder: Path, *words: str) -> bool:
        """Whether the model in this folder is what was signed."""
        program, bundle = self.bin / "model_signing", folder / "model.sig"
        common = ("--public_key", self.public, "--signature", bundle, "--ignore-paths", bundle)
        return self._run(program, "verify", "key", folder, *common, *words).returncode == 0


@pytest.fixture
def signer(request) -> Signer:
    return Signer(getattr(request, "param", "P-256"))


@pytest.fixture
def reference(tmp_path, signer) -> Reference:
    return Reference(tmp_path, signer)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_tree(tmp_path / "model", MODEL)


@pytest.fixture
def takes(pull, tmp_path, signer) -> Callable[[Path], bool]:
    """Whether lading delivers the model in this folder."""

    def call(folder: Path, name: str = "dest") -> bool:
        rule = TrustRule(None, read_public_keys(signer.public_pem))
        try:
            pull(str(folder), tmp_path / name, trust=(rule,))
        except Untrusted:
            assert not (tmp_path / name).exists() or read_tree(tmp_path / name) == {}
            return False
        return True

    return call


@pytest.mark.parametrize("signer", CURVES, indirect=True)
def test_what_it_signs_is_delivered_and_is_as_signed_there(reference, folder, takes, tmp_path):
    reference.sign(folder)
    assert takes(folder)
    assert reference.takes(folder)
    # In the destination there is lading's own manifest besides.
    assert reference.takes(tmp_path / "dest", "--ignore_unsigned_files")


@pytest.mark.parametrize("signer", CURVES, indirect=True)
def test_what_the_fake_signs_it_takes(reference, folder, signer):
    (folder / "model.sig").write_bytes(signer.sign(MODEL))
    assert reference.takes(folder)


def test_the_fake_writes_the_statement_that_it_writes(reference, folder, signer):
    import base64

    def statement(text: bytes) -> dict:
        document = json.loads(base64.b64decode(json.loads(text)["dsseEnvelope"]["payload"]))
        document["predicate"]["serialization"]["ignore_paths"].sort()
        return document

    reference.sign(folder)
    assert statement((folder / "model.sig").read_bytes()) == statement(signer.sign(MODEL))
    reference.sign_by_library(folder, "shards", "sha256")
    signed = statement((folder / "model.sig").read_bytes())
    assert (
        signed["predicate"]["resources"] == statement(signer.sign(MODEL, shard_bytes=30_000))["predicate"]["resources"]
    )
    assert signed["subject"] == statement(signer.sign(MODEL, shard_bytes=30_000))["subject"]


@pytest.mark.parametrize("algorithm", ["sha256", "blake2", "blake3"])
@pytest.mark.parametrize("method", ["files", "shards"])
def test_each_method_of_its_library_is_verified(reference, folder, takes, method, algorithm):
    reference.sign_by_library(folder, method, algorithm)
    assert takes(folder, "one")
    place = folder / "weights/a.bin"
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    assert not takes(folder, "two")


def change(folder: Path) -> None:
    (folder / "weights/b c.bin").write_bytes(b"c")


def add(folder: Path) -> None:
    (folder / "extra.bin").write_bytes(b"x")


def remove(folder: Path) -> None:
    (folder / "empty").unlink()


def rename(folder: Path) -> None:
    (folder / "empty").rename(folder / "void")


def exchange(folder: Path) -> None:
    (folder / "config.json").rename(folder / "x")
    (folder / "empty").rename(folder / "config.json")
    (folder / "x").rename(folder / "empty")


def sign_by_another(folder: Path) -> None:
    (folder / "model.sig").write_bytes(Signer().sign(MODEL))


def damage(folder: Path) -> None:
    place = folder / "model.sig"
    place.write_text(place.read_text().replace('"sig":"M', '"sig":"N').replace('"sig": "M', '"sig": "N'))


def empty(folder: Path) -> None:
    (folder / "model.sig").write_bytes(b"")


@pytest.mark.parametrize("harm", [change, add, remove, rename, exchange, sign_by_another, damage, empty])
def test_what_it_refuses_is_refused(reference, folder, takes, harm):
    reference.sign(folder)
    harm(folder)
    assert not reference.takes(folder)
    assert not takes(folder)


def test_what_was_left_out_when_it_signed_is_not_delivered(reference, folder, takes, tmp_path):
    write_tree(folder, {"notes/a.txt": b"a", ".gitattributes": b"*"})
    reference.sign(folder, "--ignore-paths", str(folder / "notes"))
    write_tree(folder, {"notes/b.txt": b"b"})
    assert reference.takes(folder)
    assert takes(folder)
    assert read_tree(tmp_path / "dest").keys() == {*MODEL, "model.sig"}


# ---- certificates -------------------------------------------------------------------------------


class Chain(NamedTuple):
    """Files with what signs and is trusted, and lading's rule for it."""

    key: Path
    certificate: Path
    between: Path
    root: Path
    rule: TrustRule


def chain_of(folder: Path, *, signer_days=(-1, 30), **changes) -> Chain:
    root = Certified("root", authority=True)
    between = Certified("between", root, authority=True)
    signer = Certified("signer", between, days=signer_days, **changes)
    paths = [folder / name for name in ("key", "certificate", "between", "root")]
    texts = (signer.private_pem, signer.certificate_pem, between.certificate_pem, root.certificate_pem)
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text)
    return Chain(*paths, TrustRule(None, roots=read_roots(root.certificate_pem)))


def sign_certified(reference: Reference, folder: Path, chain: Chain) -> None:
    done = reference._run(
        *(reference.bin / "model_signing", "sign", "certificate", folder, "--signature", folder / "model.sig"),
        *("--private_key", chain.key, "--signing_certificate", chain.certificate),
        *("--certificate_chain", chain.between),
    )
    assert done.returncode == 0, done.stderr


def takes_certified(reference: Reference, folder: Path, root: Path) -> bool:
    bundle = folder / "model.sig"
    common = ("--signature", bundle, "--ignore-paths", bundle, "--certificate_chain", root)
    return reference._run(reference.bin / "model_signing", "verify", "certificate", folder, *common).returncode == 0


@pytest.mark.parametrize("curve", CURVES)
def test_what_it_signs_by_a_certificate_is_delivered(reference, folder, pull, tmp_path, curve):
    chain = chain_of(tmp_path, curve=curve)
    sign_certified(reference, folder, chain)
    assert takes_certified(reference, folder, chain.root)
    assert pull(str(folder), tmp_path / "dest", trust=(chain.rule,)).signature.signer.startswith(
        "certificate CN=signer"
    )


def test_what_the_fake_signs_by_a_certificate_it_takes(reference, folder, tmp_path):
    root = Certified("root", authority=True)
    (folder / "model.sig").write_bytes(Certified("x", Certified("y", root, authority=True)).sign_certified(MODEL))
    (tmp_path / "root").write_bytes(root.certificate_pem)
    assert takes_certified(reference, folder, tmp_path / "root")


def test_both_refuse_another_root_and_a_certificate_that_may_not_sign(reference, folder, pull, tmp_path):
    chain = chain_of(tmp_path, extensions=[(x509.BasicConstraints(False, None), True)])
    (tmp_path / "other").mkdir()
    other = chain_of(tmp_path / "other")
    sign_certified(reference, folder, chain)
    for root, rule in ((chain.root, chain.rule), (other.root, other.rule)):
        assert not takes_certified(reference, folder, root)
        with pytest.raises(Untrusted):
            pull(str(folder), tmp_path / "dest", trust=(rule,))


def test_only_lading_refuses_a_certificate_that_has_expired(reference, folder, pull, tmp_path):
    """The specification wants it valid; the reference asks whether it was when it began to be (OMS 1.0, 8.2)."""
    chain = chain_of(tmp_path, signer_days=(-1, 0))
    sign_certified(reference, folder, chain)
    assert takes_certified(reference, folder, chain.root)
    with pytest.raises(Untrusted) as refused:
        pull(str(folder), tmp_path / "dest", trust=(chain.rule,))
    assert "CN=signer has expired on" in refused.value.hint


# ---- identities ---------------------------------------------------------------------------------

SERVICES = Sigstore()


def takes_identified(reference: Reference, folder: Path, services: Sigstore, who: Identity) -> bool:
    """Whether the program takes what lies in the folder, by its configuration for Sigstore services of one's own."""
    config = {
        "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        "trustedRoot": json.loads(services.trusted_root),
        "signingConfig": {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json"},
    }
    place = reference.private.with_name("trust.json")
    place.write_text(json.dumps(config))
    bundle = folder / "model.sig"
    done = reference._run(
        *(reference.bin / "model_signing", "verify", "sigstore", folder, "--signature", bundle),
        *("--ignore-paths", bundle, "--trust_config", place),
        *("--identity", who.name, "--identity_provider", who.issuer),
    )
    return done.returncode == 0


@pytest.mark.parametrize("how", [{}, {"stamped": True}, {"rekor": 2}], ids=["Rekor 1", "and a time stamp", "Rekor 2"])
def test_what_the_fake_signs_by_an_identity_both_take(reference, folder, pull, tmp_path, how):
    who = Identity(IDENTITY, ISSUER, SERVICES.trusted_root)
    (folder / "model.sig").write_bytes(SERVICES.signer().sign_logged(MODEL, **how))
    assert takes_identified(reference, folder, SERVICES, who)
    assert pull(str(folder), tmp_path / "dest", trust=(TrustRule(None, identity=who),)).signature


@pytest.mark.parametrize(
    ("services", "somebody"),
    [
        (SERVICES, {"identity": "other@example.com"}),
        (SERVICES, {"issuer": "https://other.example"}),
        (SERVICES, {"since": NOW - datetime.timedelta(days=2)}),
        (Sigstore(), {}),
    ],
    ids=["another identity", "another issuer", "a certificate that had expired", "other services"],
)
def test_what_an_identity_may_not_sign_both_refuse(reference, folder, pull, tmp_path, services, somebody):
    who = Identity(IDENTITY, ISSUER, SERVICES.trusted_root)
    (folder / "model.sig").write_bytes(services.signer(**somebody).sign_logged(MODEL))
    assert not takes_identified(reference, folder, SERVICES, who)
    with pytest.raises(Untrusted):
        pull(str(folder), tmp_path / "dest", trust=(TrustRule(None, identity=who),))
