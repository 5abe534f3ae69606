"""The cases of the conformance suite of OMS, by the names that it gives them, each with a model and signers made here.

https://github.com/ossf/model-signing-spec publishes them as definitions, from which it generates models, keys and bundles too.
Left out is what concerns a signer alone, and bundles of programs before 1.0, whose predicate is another one.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fakes.oms_signer import Certified, Edit, Signer, usual_extensions
from fakes.sigstore_services import IDENTITY, ISSUER, Sigstore
from fakes.trees import read_tree, write_tree
from lading.errors import Untrusted
from lading.settings.trust import TrustRule
from lading.trust.certificate import read_roots
from lading.trust.public_key import read_public_keys
from lading.trust.sigstore import Identity

SIMPLE = {"signme-1": b"signme-1\n", "signme-2": b"signme-2"}
IGNORED = {"ignore-me": b""}
MULTI = {"config.json": b'{"model": "test"}', "weights.bin": b"\xab" * 1024, "subdir/adapter.bin": b"\xcd" * 512}
GIT = {".git/HEAD": b"ref", ".gitattributes": b"", ".gitignore": b"", ".github/ci.yml": b"on: push"}
CODE_SIGNING = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
EXPIRED, LATER = (-900, -600), (300, 600)

KEY, WRONG = Signer("P-384"), Signer()
ROOT = Certified("root", authority=True, curve="P-384")
BETWEEN = Certified("between", ROOT, authority=True, curve="P-384")
LEAF = Certified("leaf", BETWEEN, curve="P-384", extensions=[*usual_extensions(False), CODE_SIGNING])
SELF = Certified("alone", extensions=[*usual_extensions(False), CODE_SIGNING])
SERVICES = Sigstore()
STRANGER = "https://github.com/wrong-org/wrong-repo/.github/workflows/wrong.yml@refs/heads/main"


def by_key(signer: Signer) -> TrustRule:
    return TrustRule(None, read_public_keys(signer.public_pem))


def by_root(root: Certified) -> TrustRule:
    return TrustRule(None, roots=read_roots(root.certificate_pem))


def by_identity(name: str = IDENTITY, issuer: str = ISSUER) -> TrustRule:
    return TrustRule(None, identity=Identity(name, issuer, SERVICES.trusted_root))


class Case(NamedTuple):
    """Files that are signed, the bundle, the rule, and files that are there besides, changed or (None) missing."""

    bundle: bytes
    signed: Mapping[str, bytes] = SIMPLE
    rule: TrustRule = by_key(KEY)
    changed: Mapping[str, bytes | None] = {}

    @property
    def model(self) -> dict[str, bytes]:
        files = {**self.signed, **self.changed}
        return {path: data for path, data in files.items() if data is not None} | {"model.sig": self.bundle}


def signed(files: Mapping[str, bytes] = SIMPLE, signer: Signer = KEY, **how: Any) -> Case:
    return Case(signer.sign(files, **how), files, by_key(signer))


def certified(leaf: Certified, root: Certified = ROOT) -> Case:
    return Case(leaf.sign_certified(SIMPLE), rule=by_root(root))


def identified(files: Mapping[str, bytes], **rule: str) -> Case:
    return Case(SERVICES.signer().sign_logged(files), files, by_identity(**rule))


def in_go(document: dict[str, Any]) -> None:
    del document["verificationMaterial"]["tlogEntries"], document["dsseEnvelope"]["signatures"][0]["keyid"]


def before_1_1(document: dict[str, Any]) -> None:
    raw = base64.b64encode(KEY.public_pem).decode()
    document["verificationMaterial"] = {"publicKey": {"rawBytes": raw, "keyDetails": "PKIX_ECDSA_P384_SHA_256"}}
    document["dsseEnvelope"]["signatures"][0]["keyid"] = None


def without_ignore_paths(document: dict[str, Any]) -> None:
    del document["predicate"]["serialization"]["ignore_paths"]


GOOD = {
    "key-simple": signed(ignore_paths=["ignore-me"])._replace(changed=IGNORED),
    "key-simple-go": signed(ignore_paths=["ignore-me"], bundle=in_go)._replace(changed=IGNORED),
    "key-multi-file": signed(MULTI),
    "key-ignore-paths-exact-match": signed(
        {"signme-1": b"1", "subdir/ignore-me": b"nested"}, ignore_paths=["ignore-me"]
    )._replace(changed=IGNORED),
    "key-single-file": signed({"model.bin": b"\xef" * 256}),
    "key-simple-ignore-unsigned-files": signed()._replace(
        rule=by_key(KEY)._replace(extra_files="skip"), changed={"extra.bin": b"extra"}
    ),
    "key-p256": signed(signer=Signer("P-256")),
    "key-p384": signed(signer=Signer("P-384")),
    "key-p521": signed(signer=Signer("P-521")),
    "key-binary-content": signed({"header.bin": b"\0\1\xff\xfe\0\x89PNG", "weights.bin": bytes(range(256)) * 4}),
    "key-empty-file": signed({"empty.bin": b"", "signme-1": b"signme-1"}),
    "key-dotfile-included": signed({".config": b"config", ".env.example": b"env", "model.bin": b"model"}),
    "key-files-in-hidden-dir": signed({"model.bin": b"m", ".cache/weights.bin": b"c", ".local/share/data.bin": b"d"}),
    "key-default-ignores": signed({"model.bin": b"model data"})._replace(changed=GIT),
    "key-nested-git-not-excluded": signed({"model.bin": b"model", "subdir/.gitignore": b"nested"}),
    "key-deeply-nested": signed({"a/very/deep/directory/tree/weights.bin": b"deep"}),
    "key-special-chars-path": signed({"file (copy).bin": b"1", "path with spaces/model.bin": b"2"}),
    "key-unicode-filename": signed({"weights.bin": b"weights", "模型.bin": b"model data"}),
    "certificate-simple": certified(LEAF),
    "certificate-self-signed": certified(SELF, SELF),
    "sigstore-simple": identified(SIMPLE),
    "sigstore-multi-file": identified(MULTI),
    "historical-v1.0.0-elliptic-key": signed(statement=without_ignore_paths, bundle=before_1_1),
    "historical-v1.1.0-certificate": certified(LEAF),
}


def below(
    root: tuple[int, int] = (-1, 30), between: tuple[int, int] = (-1, 30), leaf: tuple[int, int] = (-1, 30)
) -> Case:
    """By a chain whose certificates are valid from and to these days."""
    top = Certified("root", authority=True, days=root)
    return certified(Certified("leaf", Certified("between", top, authority=True, days=between), days=leaf), top)


def claims(**members: Any) -> Case:
    """A bundle whose members are others than those that were signed."""
    return signed(bundle=lambda document: document.update(members))


def enveloped(**members: Any) -> Edit:
    return lambda document: document["dsseEnvelope"].update(members)


BAD = {
    "certificate-no-code-signing-eku": certified(
        Certified("leaf", BETWEEN, extensions=[(x509.BasicConstraints(False, None), True)])
    ),
    "certificate-expired": below(leaf=EXPIRED),
    "certificate-not-yet-valid": below(leaf=LATER),
    "certificate-expired-intermediate": below(between=EXPIRED),
    "certificate-expired-root": below(root=EXPIRED),
    "certificate-all-expired": below(EXPIRED, EXPIRED, EXPIRED),
    "certificate-not-yet-valid-intermediate": below(between=LATER),
    "certificate-expired-intermediate-expired-leaf": below(between=EXPIRED, leaf=EXPIRED),
    "certificate-simple-wrong-ca": certified(LEAF, Certified("root", authority=True)),
    "certificate-verify-as-key": certified(LEAF)._replace(rule=by_key(LEAF)),
    "certificate-verify-as-sigstore": certified(LEAF)._replace(rule=by_identity()),
    "key-missing-file-with-ignore-unsigned": signed()._replace(
        rule=by_key(KEY)._replace(extra_files="skip"), changed={"signme-2": None}
    ),
    "key-simple-corrupted-bundle": Case(b'{"garbage": true}'),
    "key-simple-empty-resources": signed(statement=lambda document: document["predicate"].update(resources=[])),
    "key-simple-extra-file": signed()._replace(changed={"injected.bin": b"injected after signing\n"}),
    "key-simple-missing-file": signed()._replace(changed={"signme-2": None}),
    "key-simple-missing-serialization": signed(statement=lambda document: document["predicate"].pop("serialization")),
    "key-simple-no-signature": signed(bundle=enveloped(signatures=[])),
    "key-simple-tampered-content": signed()._replace(changed={"signme-1": b"TAMPERED\n"}),
    "key-simple-truncated-bundle": Case(KEY.sign(SIMPLE)[:100]),
    "key-simple-wrong-key": signed()._replace(rule=by_key(WRONG)),
    "key-simple-wrong-mediatype": claims(mediaType="application/json"),
    "key-simple-wrong-payload-type": signed(bundle=enveloped(payloadType="application/octet-stream")),
    "key-simple-wrong-statement-type": signed(
        statement=lambda document: document.update(_type="https://in-toto.io/Statement/v0.1")
    ),
    "key-tampered-with-ignore-unsigned": signed()._replace(
        rule=by_key(KEY)._replace(extra_files="skip"), changed={"signme-1": b"TAMPERED\n"}
    ),
    "key-verify-as-certificate": signed()._replace(rule=by_root(ROOT)),
    "key-verify-as-sigstore": signed()._replace(rule=by_identity()),
    "malformed-empty-bundle": Case(b""),
    "malformed-missing-envelope": Case(
        json.dumps(
            {"mediaType": json.loads(KEY.sign(SIMPLE))["mediaType"], "verificationMaterial": {"publicKey": {}}}
        ).encode()
    ),
    "malformed-wrong-predicate": signed(
        statement=lambda document: document.update(predicateType="https://example.com/wrong/v1.0")
    ),
    "malformed-no-predicate": signed(statement=lambda document: document.pop("predicate")),
    "malformed-no-subject": signed(statement=lambda document: document.pop("subject")),
    "sigstore-tampered-content": identified(SIMPLE)._replace(changed={"signme-1": b"tampered"}),
    "sigstore-verify-as-key": identified(SIMPLE)._replace(rule=by_key(KEY)),
    "sigstore-wrong-identity": identified(SIMPLE, name=STRANGER),
    "sigstore-wrong-issuer": identified(SIMPLE, issuer="https://wrong-issuer.example.com"),
}


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD)
def test_what_the_suite_wants_verified_is_delivered(case: Case, pull, tmp_path) -> None:
    write_tree(tmp_path / "model", case.model)
    pull(str(tmp_path / "model"), tmp_path / "dest", trust=(case.rule,))
    assert read_tree(tmp_path / "dest") == {**case.signed, "model.sig": case.bundle}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_what_the_suite_wants_rejected_is_refused(case: Case, pull, tmp_path) -> None:
    write_tree(tmp_path / "model", case.model)
    with pytest.raises(Untrusted):
        pull(str(tmp_path / "model"), tmp_path / "dest", trust=(case.rule,))
    assert not (tmp_path / "dest").exists() or read_tree(tmp_path / "dest") == {}
