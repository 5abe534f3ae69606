"""Certificates of a server called localhost and the bundle that is meant to vouch for it, by what is special about them."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fakes.certificates import Signed, signed

CA = x509.BasicConstraints(ca=True, path_length=None)
LOCALHOST = x509.SubjectAlternativeName([x509.DNSName("localhost")])
ELSEWHERE = x509.SubjectAlternativeName([x509.DNSName("elsewhere.example")])


class Case(NamedTuple):
    """What the server shows, and what the client is given."""

    server: ssl.SSLContext
    bundle: str


def _case(folder: Path, shown: Signed, *above: Signed, trusted: Signed) -> Case:
    bundle = folder / "bundle.pem"
    bundle.write_bytes(trusted.pem)
    return Case(shown.server_context(folder, *above), str(bundle))


def _usage(**named: bool) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    others = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**dict.fromkeys(every + others, False) | named)


def _leaf_of(*of_the_ca: x509.ExtensionType, **how: Any) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        root = signed("Root", None, *(of_the_ca or [CA]), **how)
        return _case(folder, signed("localhost", root, LOCALHOST), trusted=root)

    return make


def _leaf(*extensions: x509.ExtensionType, **how: Any) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        root = signed("Root", None, CA)
        return _case(folder, signed("localhost", root, *extensions, **how), trusted=root)

    return make


def _below_an_intermediate(
    *, trust: int, show: int, of_the_root: x509.BasicConstraints = CA, sure: bool = True
) -> Callable[[Path], Case]:
    """``trust`` 0 is the leaf, 1 the intermediate, 2 the root; ``show`` certificates above the leaf are sent."""

    def make(folder: Path) -> Case:
        root = signed("Root", None, of_the_root)
        middle = signed("Middle", root, *([CA] if sure else []))
        leaf = signed("localhost", middle, LOCALHOST)
        return _case(folder, leaf, *[middle, root][:show], trusted=[leaf, middle, root][trust])

    return make


def _another_ca(name: str) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        return _case(folder, signed("localhost", signed("Root", None, CA), LOCALHOST), trusted=signed(name, None, CA))

    return make


def _to_its_own_root(folder: Path) -> Case:
    root = signed("Root", None, CA)
    return _case(folder, signed("localhost", root, LOCALHOST), root, trusted=signed("Another", None, CA))


def _self_signed(*, trusted: bool) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        own = signed("localhost", None, LOCALHOST)
        return _case(folder, own, trusted=own if trusted else signed("Root", None, CA))

    return make


# What curl takes.  Python 3.13 would refuse the first ones.
BELIEVED: dict[str, Callable[[Path], Case]] = {
    "no key identifiers and no key usage": _leaf_of(),
    "a CA whose constraints are not critical": _leaf_of(CA, _usage(key_cert_sign=True)),
    "a CA with a key usage that is critical": _leaf_of(CA, _usage(key_cert_sign=True), critical=True),
    "a name as its subject alone": _leaf(),
    "the intermediate as all that is trusted": _below_an_intermediate(trust=1, show=1),
    "the certificate itself as all that is trusted": _below_an_intermediate(trust=0, show=0),
    "a root above an intermediate that is sent": _below_an_intermediate(trust=2, show=1),
    "a self-signed one that is given": _self_signed(trusted=True),
}

# What curl refuses, and a word of what helps.
REFUSED: dict[str, tuple[Callable[[Path], Case], str]] = {
    "a CA that nobody knows": (_another_ca("Another"), "give its CA by AWS_CA_BUNDLE"),
    "an intermediate that is not sent": (_below_an_intermediate(trust=2, show=0), "does not send the certificates"),
    "a chain to a root that nobody knows": (_to_its_own_root, "give its CA by"),
    "self-signed": (_self_signed(trusted=False), "it is self-signed"),
    "another CA of the same name": (_another_ca("Root"), "another CA has the same name"),
    "another name": (_leaf(ELSEWHERE), "subjectAltName"),
    "expired": (_leaf(LOCALHOST, days=(-9, -1)), "a new certificate"),
    "an expired CA": (_leaf_of(days=(-9, -1)), "bundle.pem holds a CA that expired on"),
    "not yet valid": (_leaf(LOCALHOST, days=(1, 9)), "clock"),
    "signed by what is no CA": (_below_an_intermediate(trust=2, show=1, sure=False), "is no CA"),
    "signed by a CA that may not sign": (
        _leaf_of(CA, _usage(digital_signature=True)),
        "not allowed to sign",
    ),
    "too long a chain": (
        _below_an_intermediate(trust=2, show=1, of_the_root=x509.BasicConstraints(ca=True, path_length=0)),
        "not allowed to sign",
    ),
    "for clients only": (
        _leaf(LOCALHOST, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
        "not made for a server",
    ),
    "a weak key": (_leaf(LOCALHOST, bits=1024), "too weak"),
    "a CA with a weak key": (_leaf_of(bits=1024), "too weak"),
    "a name that the CA may not sign": (
        _leaf_of(CA, x509.NameConstraints([x509.DNSName("elsewhere.example")], None)),
        "nameConstraints",
    ),
    "a critical extension that nobody knows": (
        _leaf(LOCALHOST, x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), critical=True),
        "malformed",
    ),
}
