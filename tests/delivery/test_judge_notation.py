"""Images that must be signed by notation: a certificate below a root of the rule, valid now, for this very digest."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.fake_oci import FakeRegistry
from fakes.notation_signer import JWS, CertifiedRsa, sign_by_notation
from fakes.oms_signer import Certified, usual_extensions
from fakes.trees import read_tree, whole_manifest
from lading.delivery.judge_again import judge_again, was_judged
from lading.errors import Untrusted
from lading.events import ignore
from lading.model.digest import Digest
from lading.model.signature import Attachment
from lading.model.uri import ModelURI
from lading.settings.trust import TrustRule
from lading.trust.certificate import read_roots
from lading.trust.notation import image_signer

INSECURE = {"KSERVE_OCI_INSECURE_REGISTRY": "true"}
FILES = {"config.json": b"{}"}
ROOT = Certified("the root", authority=True)
SIGNER = Certified("us", ROOT)
SCHEME, EXPIRY, TIME = (f"io.cncf.notary.{name}" for name in ("signingScheme", "expiry", "signingTime"))
CODE_SIGNING, SERVER_AUTH = ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.SERVER_AUTH


@pytest.fixture
def registry(server) -> FakeRegistry:
    return FakeRegistry(server)


@pytest.fixture
def digest(registry) -> str:
    return registry.put_files(FILES)["digest"]


@pytest.fixture
def bring(registry, pull, tmp_path):
    def call(*roots: Certified, **fields):
        pem = b"".join(root.certificate_pem for root in roots or (ROOT,))
        rule = TrustRule(ModelURI.parse(f"oci://{registry.host}"), roots=read_roots(pem), kind="notation")
        uri, dest = registry.uri(), tmp_path / "dest"
        return pull(uri, dest, variables=INSECURE, trust=(rule._replace(**fields),))

    return call


@pytest.fixture
def refused(bring, tmp_path):
    def call(*roots: Certified) -> Untrusted:
        with pytest.raises(Untrusted) as error:
            bring(*roots)
        assert read_tree(tmp_path) == {}
        assert error.value.hint
        return error.value

    return call


@pytest.mark.parametrize("lists", [True, False])
def test_what_is_signed_is_delivered_and_it_is_recorded_who_signed(registry, digest, bring, tmp_path, lists):
    registry.lists_referrers = lists
    sign_by_notation(registry, digest, SIGNER)
    signature = bring().signature
    assert read_tree(tmp_path / "dest") == FILES
    assert whole_manifest(tmp_path / "dest").signature == signature
    assert signature.signer.startswith("certificate CN=us sha256:")
    assert (signature.kind, signature.bundle) == ("notation", registry.referrers(digest)[0]["digest"])


@pytest.mark.parametrize("kind", ["P-384", "P-521", "RSA 2048", "RSA 3072"])
def test_keys_of_each_kind_sign(registry, digest, bring, kind):
    signer = CertifiedRsa("us", ROOT, int(kind[4:])) if "RSA" in kind else Certified("us", ROOT, curve=kind)
    sign_by_notation(registry, digest, signer)
    assert bring().signature is not None


def test_a_certificate_may_be_its_own_root(registry, digest, bring):
    alone = Certified("alone")
    sign_by_notation(registry, digest, alone)
    assert bring(alone).signature is not None


def test_an_image_that_nobody_signed_is_refused(registry, digest, refused):
    error = refused()
    assert f"@{digest} is not signed: it has no notation signature" in error.message
    assert "notation sign makes" in error.hint


def test_a_root_that_the_rule_does_not_name_is_not_trusted(registry, digest, refused):
    sign_by_notation(registry, digest, Certified("them", Certified("their root", authority=True)))
    assert "do not lead to a root that is trusted" in refused().message


def test_a_certificate_that_has_expired_signs_no_more(registry, digest, refused):
    sign_by_notation(registry, digest, Certified("us", ROOT, days=(-30, -1)))
    assert "CN=us has expired on" in refused().hint


def test_a_certificate_for_something_else_does_not_sign(registry, digest, refused):
    usage = x509.ExtendedKeyUsage([SERVER_AUTH])
    sign_by_notation(registry, digest, Certified("us", ROOT, extensions=[*usual_extensions(False), (usage, False)]))
    assert "has no codeSigning" in refused().message


@pytest.mark.parametrize(
    "extensions",
    [
        [*usual_extensions(False), (x509.ExtendedKeyUsage([CODE_SIGNING, SERVER_AUTH]), False)],
        [usual_extensions(False)[0], (x509.ExtendedKeyUsage([CODE_SIGNING]), False)],
        [(x509.BasicConstraints(True, None), True), usual_extensions(False)[1]],
        [usual_extensions(False)[0], (usual_extensions(False)[1][0], False)],
    ],
    ids=["also for TLS", "no key usage", "an authority's", "not critical"],
)
def test_a_certificate_that_is_not_for_signing_alone_does_not_sign(registry, digest, refused, extensions):
    """As notation has it; a model may be signed by such a certificate."""
    sign_by_notation(registry, digest, Certified("us", ROOT, extensions=extensions))
    assert "which is not for signing images" in refused().message


def test_the_signature_of_another_image_is_refused(registry, digest, refused):
    other = registry.put_files({"config.json": b"[]"}, "other")["digest"]
    sign_by_notation(registry, digest, SIGNER, payload=lambda document: document["targetArtifact"].update(digest=other))
    assert f"is the signature of another image, {other}, and not of {digest}" in refused().message


def test_a_signature_has_an_end_if_its_signer_wanted_one(registry, digest, refused, bring):
    def until(moment: str):
        def edit(head) -> None:
            head[EXPIRY] = moment
            head["crit"].append(EXPIRY)

        return edit

    sign_by_notation(registry, digest, SIGNER, protected=until("2026-01-01T00:00:00Z"))
    assert "has expired on 2026-01-01, as its signer wanted" in refused().message
    sign_by_notation(registry, digest, SIGNER, protected=until("2999-01-01T00:00:00Z"))
    assert bring().signature is not None


@pytest.mark.parametrize(
    ("part", "edit", "said"),
    [
        ("protected", lambda head: head["crit"].append("io.cncf.notary.verificationPlugin"), "does not know: io.cncf"),
        ("protected", lambda head: head.update({SCHEME: "notary.x509.signingAuthority"}), "is not a signature"),
        ("protected", lambda head: head.update(crit=[]), "is not a signature"),
        ("protected", lambda head: head.update(cty="text/plain"), "is not a signature"),
        ("protected", lambda head: head.update(alg="none"), "was changed after it was signed"),
        ("protected", lambda head: head.update(alg=["ES256"]), "is not a signature"),
        ("protected", lambda head: head.update(alg={}), "is not a signature"),
        ("envelope", lambda sealed: sealed.update(protected="W10"), "is not a signature"),
        ("protected", lambda head: head.update(alg="ES512"), "was changed after it was signed"),
        ("protected", lambda head: head.update({EXPIRY: "soon", "crit": [SCHEME, EXPIRY]}), "is not a signature"),
        ("protected", lambda head: head.update({EXPIRY: "2999-01-01", "crit": [SCHEME, EXPIRY]}), "is not a signature"),
        ("protected", lambda head: head.update({EXPIRY: "2999-01-01T00:00:00Z"}), "is not a signature"),
        ("protected", lambda head: head.update(crit=[SCHEME, EXPIRY]), "is not a signature"),
        ("protected", lambda head: head.pop(TIME), "is not a signature"),
        ("protected", lambda head: head.update({TIME: 5}), "is not a signature"),
        ("payload", lambda document: document.clear(), "is not a signature"),
        ("envelope", lambda sealed: sealed.update(payload="e30"), "was changed after it was signed"),
        ("envelope", lambda sealed: sealed.update(signature=""), "was changed after it was signed"),
        ("envelope", lambda sealed: sealed["header"].update(x5c=[]), "is not a signature"),
        ("envelope", lambda sealed: sealed["header"].update(x5c=sealed["header"]["x5c"] * 9), "is not a signature"),
        ("envelope", lambda sealed: sealed["header"].update(x5c=["QUFB"]), "has a certificate that cannot be read"),
        ("envelope", lambda sealed: sealed.pop("header"), "is not a signature"),
        ("manifest", lambda facts: facts["layers"][0].update(mediaType="application/cose"), "is a signature in COSE"),
        ("manifest", lambda facts: facts["layers"][0].update(mediaType="text/plain"), "is not a signature"),
    ],
)
def test_what_is_not_as_the_specification_wants_it_is_refused(registry, digest, refused, part, edit, said):
    sign_by_notation(registry, digest, SIGNER, **{part: edit})
    assert said in refused().message


def test_a_good_signature_counts_whatever_lies_beside_it(registry, digest, bring):
    sign_by_notation(registry, digest, Certified("them", Certified("their root", authority=True)))
    sign_by_notation(registry, digest, SIGNER, envelope=lambda sealed: sealed.clear())
    sign_by_notation(registry, digest, SIGNER, envelope=lambda sealed: sealed.update(protected="W10"))
    sign_by_notation(registry, digest, SIGNER)
    assert bring().signature is not None


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_an_envelope_with_any_byte_changed_is_refused_or_says_the_same(data: st.DataObject) -> None:
    """What no signature covers may change: which program signed, and how the encoding writes the same bits."""
    text = bytearray(ENVELOPE)
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    found = Attachment("sha256:0", JWS, {}, bytes(text))
    with suppress(Untrusted):
        assert image_signer(found, IMAGE, read_roots(ROOT.certificate_pem)).startswith("certificate CN=us ")


def test_a_delivered_image_is_judged_again_by_what_was_recorded(registry, digest, bring, tmp_path):
    sign_by_notation(registry, digest, SIGNER)
    manifest = bring()
    folder: Path = tmp_path / "dest"
    rule = TrustRule(ModelURI.parse(f"oci://{registry.host}"), roots=read_roots(ROOT.certificate_pem), kind="notation")
    assert judge_again(manifest, folder, (rule,), ignore) == manifest.signature
    # Certificates expire.
    assert not was_judged(manifest, (rule,))
    wider = rule._replace(prefix=None)
    with pytest.raises(Untrusted, match="as another rule asked for"):
        judge_again(manifest, folder, (wider,), ignore)


class _Offline(FakeRegistry):
    """One that nobody asks, to have an envelope of it."""

    def __init__(self) -> None:
        self.manifests, self.blobs, self.lists_referrers = {}, {}, True


OFFLINE = _Offline()
IMAGE = Digest.parse(OFFLINE.put_files(FILES)["digest"])
ENVELOPE = bytes(
    OFFLINE.blobs[
        json.loads(OFFLINE.manifests[sign_by_notation(OFFLINE, str(IMAGE), SIGNER)["digest"]])["layers"][0]["digest"]
    ].content
)
