"""Signatures on the NIST curves: OpenSSL is the oracle, also for what no honest signer writes."""

import base64
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.oms_signer import CURVES, Signer
from lading.trust import ecdsa
from lading.trust.public_key import PublicKey, read_public_keys

OURS = {curve.name: curve for curve in ecdsa.CURVES}
SIGNERS = {name: Signer(name) for name in CURVES}
MESSAGE = b"message"


def key_of(signer: Signer) -> PublicKey:
    [key] = read_public_keys(signer.public_pem)
    return key


KEYS = {name: key_of(signer) for name, signer in SIGNERS.items()}
SIGNATURES = {name: signer.key.sign(MESSAGE, ec.ECDSA(signer.hash)) for name, signer in SIGNERS.items()}


def openssl_takes(signer: Signer, message: bytes, signature: bytes) -> bool:
    try:
        signer.key.public_key().verify(signature, message, ec.ECDSA(signer.hash))
    except InvalidSignature:
        return False
    return True


def test_the_curves_are_those_of_openssl() -> None:
    for name, (kind, hashed) in CURVES.items():
        ours = OURS[name]
        generator = ec.derive_private_key(1, kind).public_key().public_numbers()
        before = ec.derive_private_key(ours.order - 1, kind).public_key().public_numbers()
        assert (generator.x, generator.y) == ours.generator
        assert (before.x, before.y) == (ours.generator[0], ours.p - ours.generator[1])
        assert ours.has(*ours.generator)
        assert (ours.p.bit_length(), ours.hash_name) == (kind.key_size, hashed.name)


@pytest.mark.parametrize("name", CURVES)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_signed_is_verified_and_nothing_else_is(name: str, data: st.DataObject) -> None:
    message = data.draw(st.binary())
    signer = Signer(name)
    signature = signer.key.sign(message, ec.ECDSA(signer.hash))
    assert key_of(signer).has_signed(message, signature)
    assert not key_of(signer).has_signed(message + b"x", signature)
    assert not KEYS[name].has_signed(message, signature)


@pytest.mark.parametrize("name", CURVES)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_signature_with_any_byte_changed_is_judged_as_openssl_judges_it(name: str, data: st.DataObject) -> None:
    signer = SIGNERS[name]
    signature = bytearray(SIGNATURES[name])
    how = data.draw(st.sampled_from(["change", "insert", "remove", "cut", "append"]))
    at = data.draw(st.integers(0, len(signature) - 1))
    byte = data.draw(st.integers(0, 255))
    if how == "change":
        signature[at] = byte
    elif how == "insert":
        signature.insert(at, byte)
    elif how == "remove":
        del signature[at]
    elif how == "cut":
        del signature[at:]
    else:
        signature.append(byte)
    changed = bytes(signature)
    assert KEYS[name].has_signed(MESSAGE, changed) == openssl_takes(signer, MESSAGE, changed)


def edges(order: int) -> list[int]:
    return [0, 1, 2, order // 2, order - 1, order, order + 1, 2 * order, 2**521]


@pytest.mark.parametrize("name", CURVES)
def test_numbers_at_the_edges_are_judged_as_openssl_judges_them(name: str) -> None:
    signer, order = SIGNERS[name], OURS[name].order
    for r in edges(order):
        for s in edges(order):
            signature = encode_dss_signature(r, s)
            assert KEYS[name].has_signed(MESSAGE, signature) == openssl_takes(signer, MESSAGE, signature), (r, s)


@pytest.mark.parametrize("name", CURVES)
def test_sums_in_which_both_points_are_the_same_or_opposite_come_out_right(name: str) -> None:
    """By a key that is known, r and s can be chosen so that the two products are equal, or cancel each other."""
    kind, hashed = CURVES[name]
    ours = OURS[name]
    digest = hashes.Hash(hashed)
    digest.update(MESSAGE)
    e = int.from_bytes(digest.finalize(), "big") % ours.order
    for private in (1, 2, 3, ours.order - 1, ours.order - 2):
        signer = Signer(name)
        signer.key = ec.derive_private_key(private, kind)
        key = key_of(signer)
        for sign in (1, -1):
            # e·G = ± r·Q
            r = sign * e * pow(private, -1, ours.order) % ours.order
            for s in (1, 2, e, 2 * e % ours.order, ours.order - 1):
                signature = encode_dss_signature(r, s)
                assert key.has_signed(MESSAGE, signature) == openssl_takes(signer, MESSAGE, signature)
        signature = signer.key.sign(MESSAGE, ec.ECDSA(hashed))
        assert key.has_signed(MESSAGE, signature)


def test_the_second_signature_that_every_signature_has_is_one_too() -> None:
    """(r, -s) is valid where (r, s) is: a signature says who signed, and is no name for anything."""
    r, s = decode_dss_signature(SIGNATURES["P-256"])
    assert KEYS["P-256"].has_signed(MESSAGE, encode_dss_signature(r, ecdsa.P256.order - s))


@pytest.mark.parametrize("name", CURVES)
def test_a_key_has_the_names_that_others_give_it(name: str) -> None:
    signer, key = SIGNERS[name], KEYS[name]
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    der = signer.key.public_key().public_bytes(encoding, form)
    assert key.fingerprint == hashlib.sha256(der).hexdigest()
    assert key.hint == hashlib.sha256(signer.public_pem).hexdigest()


def test_a_file_may_hold_several_keys_and_words_around_them() -> None:
    pems = [signer.public_pem for signer in SIGNERS.values()]
    text = b"# ours\n" + b"\r\n# and theirs\r\n".join(pem.replace(b"\n", b"\r\n") for pem in pems)
    assert list(read_public_keys(text)) == list(KEYS.values())


def pem(der: bytes) -> bytes:
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(der) + b"-----END PUBLIC KEY-----\n"


def other(key) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "holds no PEM block"),
        (b"ssh-ed25519 AAAA", "holds no PEM block"),
        (SIGNERS["P-256"].private_pem, "holds a private key"),
        (SIGNERS["P-256"].public_pem + SIGNERS["P-384"].private_pem, "holds a private key"),
        (SIGNERS["P-256"].public_pem.replace(b"PUBLIC KEY", b"CERTIFICATE"), "holds a CERTIFICATE"),
        (b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n", "not base64"),
        (pem(KEYS["P-256"].der[:-1]), "of another kind than ECDSA on P-256"),
        (pem(KEYS["P-256"].der + b"\0"), "of another kind than ECDSA on P-256"),
        (pem(KEYS["P-256"].der[:-1] + bytes([KEYS["P-256"].der[-1] ^ 1])), "no point of P-256"),
        (pem(KEYS["P-256"].der[:-64] + bytes(64)), "no point of P-256"),
        (pem(KEYS["P-521"].der[:-132] + b"\xff" * 132), "no point of P-521"),
        (other(ec.generate_private_key(ec.SECP256K1())), "of another kind than ECDSA on P-256"),
    ],
)
def test_what_is_no_such_key_says_why(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_public_keys(text)
