"""Certificates that sign models: whose chain leads to a root, now, and who of them may sign."""

import base64
import json
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.oms_signer import Certified, Signer, usual_extensions
from lading.errors import Untrusted
from lading.trust.bundle import read_bundle
from lading.trust.certificate import certified_signer, read_roots

FILES = {"config.json": b"{}"}
ROOT = Certified("the root", authority=True)
BETWEEN = Certified("between", ROOT, authority=True)
SIGNER = Certified("signer", BETWEEN)


def judged(text: bytes, *roots: Certified) -> str:
    pem = b"".join(root.certificate_pem for root in roots or (ROOT,))
    return certified_signer(read_bundle(text, "model.sig"), read_roots(pem), "model.sig")


def refused(text: bytes, *roots: Certified) -> Untrusted:
    with pytest.raises(Untrusted) as error:
        judged(text, *roots)
    assert error.value.hint
    return error.value


def test_who_signed_is_named_with_the_fingerprint_of_the_certificate() -> None:
    fingerprint = SIGNER.certificate.fingerprint(hashes.SHA256()).hex()
    assert judged(SIGNER.sign_certified(FILES)) == f"certificate CN=signer sha256:{fingerprint}"


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_keys_of_each_curve_sign(curve: str) -> None:
    assert judged(Certified("x", BETWEEN, curve=curve).sign_certified(FILES))


def test_the_root_may_be_in_the_bundle_too_and_issue_by_itself() -> None:
    assert judged(SIGNER.sign_certified(FILES, [*SIGNER.chain, ROOT.certificate]))
    assert judged(Certified("direct", ROOT).sign_certified(FILES))
    alone = Certified("alone")
    assert judged(alone.sign_certified(FILES), alone)


def test_one_of_several_roots_suffices() -> None:
    assert judged(SIGNER.sign_certified(FILES), Certified("other", authority=True), ROOT)


def test_another_root_of_the_same_name_is_not_that_root() -> None:
    error = refused(SIGNER.sign_certified(FILES), Certified("the root", authority=True))
    assert "do not lead to a root that is trusted" in error.message


def test_what_is_in_the_bundle_is_no_root() -> None:
    stranger = Certified("stranger", Certified("their root", authority=True))
    error = refused(stranger.sign_certified(FILES, [*stranger.chain, stranger.issuer.certificate]))
    assert "none of the roots issued any of them; the last one is of CN=their root" in error.hint


def test_a_chain_with_a_gap_leads_nowhere() -> None:
    error = refused(SIGNER.sign_certified(FILES, [SIGNER.certificate]))
    assert "the last one is of CN=between" in error.hint


def test_who_is_no_authority_vouches_for_nobody() -> None:
    below = Certified("below", SIGNER)
    refused(below.sign_certified(FILES, [below.certificate, SIGNER.certificate, BETWEEN.certificate]))


def test_a_chain_that_is_longer_than_an_authority_allows_is_refused() -> None:
    _, usage = usual_extensions(True)
    root = Certified("root", extensions=[(x509.BasicConstraints(True, 0), True), usage])
    assert judged(Certified("x", root).sign_certified(FILES), root)
    refused(Certified("x", Certified("y", root, authority=True)).sign_certified(FILES), root)


@pytest.mark.parametrize(
    ("days", "said"), [((-30, -1), "has expired on 20"), ((1, 30), "is not valid before 20")], ids=["over", "to come"]
)
def test_each_certificate_of_the_chain_must_be_valid_now(days: tuple[int, int], said: str) -> None:
    signer = Certified("x", BETWEEN, days=days)
    assert f"CN=x {said}" in refused(signer.sign_certified(FILES)).hint
    between = Certified("y", ROOT, authority=True, days=days)
    assert f"CN=y {said}" in refused(Certified("x", between).sign_certified(FILES)).hint
    root = Certified("z", authority=True, days=days)
    assert f"CN=z {said}" in refused(Certified("x", root).sign_certified(FILES), root).hint


def with_extensions(*extensions: tuple[x509.ExtensionType, bool]) -> Certified:
    return Certified("x", BETWEEN, extensions=[(x509.BasicConstraints(False, None), True), *extensions])


def test_a_certificate_that_is_not_for_signing_is_refused() -> None:
    tls = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    for extensions in ([], [(tls, False)], [usual_extensions(True)[1]]):
        assert "may not sign" in refused(with_extensions(*extensions).sign_certified(FILES)).message
    code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    assert judged(with_extensions((code, False)).sign_certified(FILES))


def test_a_certificate_for_tls_does_not_sign_even_if_its_key_may() -> None:
    own = usual_extensions(False)[1]
    tls = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    assert "may not sign: its extended" in refused(with_extensions(own, (tls, False)).sign_certified(FILES)).message
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING])
    assert judged(with_extensions(own, (both, False)).sign_certified(FILES))


def test_a_key_that_is_not_for_signatures_does_not_sign_even_if_it_is_for_code() -> None:
    code = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    own = usual_extensions(True)[1]
    signer = with_extensions(own, (code, False))
    assert "may not sign: its key usage has no digitalSignature" in refused(signer.sign_certified(FILES)).message


def test_a_critical_extension_that_nobody_knows_is_refused() -> None:
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    usage = usual_extensions(False)[1]
    assert judged(with_extensions(usage, (unknown, False)).sign_certified(FILES))
    assert "critical extension" in refused(with_extensions(usage, (unknown, True)).sign_certified(FILES)).message


def test_a_signature_by_another_key_than_the_certificates_is_refused() -> None:
    assert "changed after it was signed" in refused(Certified("x", BETWEEN).sign_certified(FILES, SIGNER.chain)).message


@pytest.mark.parametrize("kind", ["ed25519", "secp256k1"])
def test_a_key_by_which_oms_does_not_sign_is_refused(kind: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256K1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(
        BETWEEN.certificate.subject,
        name,
        key.public_key(),
        1,
        BETWEEN.certificate.not_valid_before_utc,
        BETWEEN.certificate.not_valid_after_utc,
    )
    certificate = builder.sign(BETWEEN.key, hashes.SHA256())
    error = refused(SIGNER.sign_certified(FILES, [certificate, BETWEEN.certificate]))
    assert "P-256, P-384 or P-521" in error.hint


def changed(items: object) -> bytes:
    document = json.loads(SIGNER.sign_certified(FILES))
    document["verificationMaterial"]["x509CertificateChain"] = items
    return json.dumps(document).encode()


GOOD = {"rawBytes": base64.b64encode(SIGNER.certificate.public_bytes(serialization.Encoding.DER)).decode()}


NO_CHAINS = {
    "null": None,
    "a list": [],
    "no certificates": {},
    "certificates that are null": {"certificates": None},
    "an empty list": {"certificates": []},
    "a certificate that is null": {"certificates": [None]},
    "a certificate without bytes": {"certificates": [{}]},
    "empty bytes": {"certificates": [{"rawBytes": ""}]},
    "no base64": {"certificates": [{"rawBytes": "!"}]},
    "no certificate": {"certificates": [{"rawBytes": "QUFB"}]},
    "one of two": {"certificates": [GOOD, {"rawBytes": "QUFB"}]},
    "too many": {"certificates": [GOOD] * 17},
    "one that was cut": {"certificates": [{"rawBytes": GOOD["rawBytes"][:-8]}]},
}


# The ids are the same in every process of a run: the certificates are not.
@pytest.mark.parametrize("items", NO_CHAINS.values(), ids=NO_CHAINS)
def test_what_is_no_chain_is_refused(items: object) -> None:
    refused(changed(items))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_chain_with_any_byte_changed_is_refused_or_says_the_same(data: st.DataObject) -> None:
    """A byte of a signed certificate changes its signature, but for what no signature covers: its own encoding."""
    chain = [each.public_bytes(serialization.Encoding.DER) for each in SIGNER.chain]
    which = data.draw(st.integers(0, len(chain) - 1))
    der = bytearray(chain[which])
    place = data.draw(st.integers(0, len(der) - 1))
    der[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != der[place]))
    chain[which] = bytes(der)
    text = changed({"certificates": [{"rawBytes": base64.b64encode(each).decode()} for each in chain]})
    with suppress(Untrusted):
        judged(text)
        # Such as the number of unused bits at the end of the signature.
        assert (
            x509.load_der_x509_certificate(chain[which]).tbs_certificate_bytes
            == SIGNER.chain[which].tbs_certificate_bytes
        )


def test_a_bundle_says_by_one_method_who_signed() -> None:
    document = json.loads(SIGNER.sign_certified(FILES))
    document["verificationMaterial"]["publicKey"] = {"hint": "x"}
    refused(json.dumps(document).encode())


def test_roots_are_certificates() -> None:
    for text in (b"", b"x", Signer().public_pem, ROOT.certificate_pem.replace(b"M", b"!", 1)):
        with pytest.raises(ValueError, match="no certificate that can be read"):
            read_roots(text)
    assert len(read_roots(ROOT.certificate_pem + BETWEEN.certificate_pem)) == 2
