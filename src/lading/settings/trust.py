"""Rules of trust, each for the origins below a prefix: ``trust`` of the configuration file."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from lading.errors import UsageError
from lading.model.paths import why_unsafe
from lading.model.uri import ModelURI
from lading.settings.places import is_below, places_of, refuse_no_prefix, spelled
from lading.settings.section import errors_name, read_section
from lading.text.printable import printable
from lading.trust.ecdsa import P256
from lading.trust.public_key import PublicKey, read_public_keys
from lading.trust.sigstore import Identity, check_trusted_root

_EXAMPLE = "{prefix: s3://models/, signature: {key: /etc/lading/models.pub}}"
_EXAMPLES = {
    "prefix": "s3://models/",
    "signature": "{key: /etc/lading/models.pub}",
    "key": "/etc/lading/models.pub",
    "certificate": "/etc/lading/roots.pem",
    "sigstore": "{identity: me@example.com, issuer: https://issuer.example, trusted_root: /etc/lading/trusted_root.json}",
    "identity": "me@example.com",
    "issuer": "https://issuer.example",
    "trusted_root": "/etc/lading/trusted_root.json",
    "formats": "{code: refuse}",
}
_FOR_SIGNATURES = frozenset({"signature", "unsigned", "extra_files"})
_MOST_FILE_BYTES = 1 << 20
_KEY_HINT = "name a file with a public key as PEM, as written by: openssl pkey -in KEY -pubout"
_ROOT_HINT = "name a file with the root certificates as PEM"
_TRUSTED_ROOT_HINT = "name the trusted_root.json of the Sigstore services that the signer uses"

T = TypeVar("T")


class Formats(NamedTuple):
    """What to do with files that run ``code`` when loaded, and with ``damaged`` files, which break their format.

    ``scan`` allows pickles whose code is known to be harmless, and refuses all other code.  ``hub_scan`` says what to
    do with files about which the scanners of the Hugging Face Hub warn.
    """

    code: Literal["refuse", "scan", "allow"] = "refuse"
    damaged: Literal["refuse", "allow"] = "refuse"
    hub_scan: Literal["refuse", "warn", "ignore"] = "ignore"


class TrustRule(NamedTuple):
    """The requirements for models whose origin is below ``prefix``; None means every origin.

    The model's file ``bundle`` must hold a signature by one of ``keys``, by a certificate that chains to one of
    ``roots`` (DER), or by ``identity`` as Sigstore has it; keys, roots and the trusted root come from ``signers_file``.
    ``mode`` says whether a failure ends the delivery, ``unsigned`` whether a model without that file may pass,
    ``extra_files`` what happens to files that the signature does not name.  ``formats`` judges the content of files;
    None means that the rule does not.

    The signatures of images, which are of another ``kind`` than ``oms``, are of everything in them, and lie beside them.
    """

    prefix: ModelURI | None
    keys: tuple[PublicKey, ...] = ()
    roots: tuple[bytes, ...] = ()
    identity: Identity | None = None
    kind: Literal["oms", "cosign", "notation"] = "oms"
    signers_file: str = ""
    bundle: str = "model.sig"
    mode: Literal["enforce", "warn", "off"] = "enforce"
    unsigned: Literal["refuse", "allow"] = "refuse"
    extra_files: Literal["refuse", "skip"] = "refuse"
    formats: Formats | None = None

    @property
    def asks_for_signature(self) -> bool:
        """Whether a model must be signed; if not, the rule judges at most formats."""
        return bool(self.keys or self.roots or self.identity)

    @property
    def asks_the_hub(self) -> bool:
        """Whether the verdict of the Hub's scanners counts."""
        return self.formats is not None and self.formats.hub_scan != "ignore"

    @property
    def method(self) -> str:
        """The OMS signing method that the rule requires: ``key``, ``certificate`` or ``sigstore``."""
        return "sigstore" if self.identity else "certificate" if self.roots else "key"

    @property
    def shown(self) -> str:
        """The prefix as it is recorded, redacted; "" for every origin."""
        return printable(self.prefix.redacted()) if self.prefix else ""

    @property
    def named(self) -> str:
        """The rule's name in messages."""
        return f"the rule for {self.shown}" if self.prefix else "the rule for every origin"


class _Entry(NamedTuple):
    prefix: str = ""
    mode: Literal["enforce", "warn", "off"] = "enforce"
    unsigned: Literal["refuse", "allow"] = "refuse"
    extra_files: Literal["refuse", "skip"] = "refuse"
    signature: Mapping[str, Any] = MappingProxyType({})
    formats: Mapping[str, Any] = MappingProxyType({})


class _SigstoreEntry(NamedTuple):
    identity: str
    issuer: str
    trusted_root: str


class _SignatureEntry(NamedTuple):
    kind: Literal["oms", "cosign", "notation"] = "oms"
    key: str = ""
    certificate: str = ""
    sigstore: _SigstoreEntry | None = None
    file: str = "model.sig"


def read_trust(config: Mapping[str, Any]) -> tuple[TrustRule, ...]:
    """Read the rules of the configuration file; ``UsageError`` for a rule that cannot judge anything."""
    rules = tuple(_rule(item, number) for number, item in enumerate(config.get("trust") or (), 1))
    places = [str(spelled(rule.prefix)) if rule.prefix else "" for rule in rules]
    for number, place in enumerate(places, 1):
        if place in places[: number - 1]:
            raise UsageError(f"trust, entry {number} has the prefix of another one", hint="which one counts?")
    return rules


def _rule(item: object, number: int) -> TrustRule:
    where = f"trust, entry {number}"
    if not isinstance(item, dict):
        raise UsageError(f"{where} is not a mapping", hint=f"write {_EXAMPLE}")
    if item.get("mode") is False:
        # YAML's word for it.
        item = item | {"mode": "off"}
    entry = read_section(_Entry, item, where, examples=_EXAMPLES)
    with errors_name(where):
        prefix = ModelURI.parse(entry.prefix) if entry.prefix else None
        if prefix is not None:
            refuse_no_prefix(prefix)
    if entry.mode == "off":
        if len(item) > len({"mode", "prefix"} & item.keys()):
            raise UsageError(f"{where} judges nothing, by mode: off", hint="leave out what else it says")
        return TrustRule(prefix, mode="off")
    rule = TrustRule(prefix, mode=entry.mode, formats=_read_formats(entry, where) if "formats" in item else None)
    if rule.asks_the_hub and prefix is not None and prefix.scheme.lower() != "hf":
        raise UsageError(
            f"{where}: formats: hub_scan says nothing about {rule.shown}: only the Hugging Face Hub has a verdict",
            hint="give it a prefix that begins with hf://, or none",
        )
    if rule.formats is not None and not _FOR_SIGNATURES & item.keys():
        return rule
    signature = read_section(_SignatureEntry, entry.signature, f"{where}: signature", examples=_EXAMPLES)
    signers = [each for each in (signature.key, signature.certificate, signature.sigstore) if each]
    if len(signers) != 1:
        raise UsageError(
            f"{where} has no signature with either a key, a certificate or sigstore", hint=f"write {_EXAMPLE}"
        )
    if why := why_unsafe(signature.file):
        raise UsageError(f"{where}: signature: file {printable(signature.file)!r} {why}", hint="write file: model.sig")
    rule = rule._replace(
        kind=signature.kind, bundle=signature.file, unsigned=entry.unsigned, extra_files=entry.extra_files
    )
    rule = _with_signers(rule, signature, f"{where}: signature")
    if rule.kind != "oms":
        _refuse_for_images(rule, item, where)
    return rule


def _with_signers(rule: TrustRule, signature: _SignatureEntry, where: str) -> TrustRule:
    """The rule with whoever may sign by it, read from the file that the entry names."""
    if signature.sigstore:
        return _with_identity(rule, signature.sigstore, f"{where}: sigstore")
    if signature.certificate:
        # Here, and not above: it takes an extra.
        from lading.trust.certificate import read_roots

        roots = _read_signers(signature.certificate, f"{where}: certificate", read_roots, _ROOT_HINT, "certificates")
        return rule._replace(roots=roots, signers_file=signature.certificate)
    keys = _read_signers(signature.key, f"{where}: key", read_public_keys, _KEY_HINT)
    return rule._replace(keys=keys, signers_file=signature.key)


def _with_identity(rule: TrustRule, entry: _SigstoreEntry, where: str) -> TrustRule:
    if not (entry.identity and entry.issuer):
        # An empty issuer would mean any.
        raise UsageError(f"{where} has an empty identity or issuer", hint=f"write sigstore: {_EXAMPLES['sigstore']}")
    place, file = f"{where}: trusted_root", entry.trusted_root
    root = _read_signers(file, place, check_trusted_root, _TRUSTED_ROOT_HINT, "sigstore")
    return rule._replace(identity=Identity(entry.identity, entry.issuer, root), signers_file=file)


def _refuse_for_images(rule: TrustRule, item: Mapping[str, Any], where: str) -> None:
    """Raise for what makes no sense where images are signed."""
    if rule.prefix is not None and spelled(rule.prefix).scheme != "oci":
        raise UsageError(
            f"{where}: only images are signed by {item['signature']['kind']}",
            hint="give it a prefix that begins with oci://, or none",
        )
    for key, named in (("extra_files", item), ("file", item["signature"])):
        if key in named:
            raise UsageError(f"{where}: {key} is not for images, which are signed as a whole", hint=f"leave out {key}")
    if rule.kind == "notation":
        if not rule.roots:
            raise UsageError(f"{where}: signature: notation signs by certificates", hint=_ROOT_HINT)
    elif not rule.identity and (not rule.keys or any(key.curve is not P256 for key in rule.keys)):
        raise UsageError(
            f"{where}: signature: cosign signs by keys on P-256, or by sigstore",
            hint="name the file that cosign generate-key-pair writes: cosign.pub",
        )


def _read_formats(entry: _Entry, where: str) -> Formats:
    formats = read_section(
        Formats,
        entry.formats,
        f"{where}: formats",
        examples={"code": "refuse", "damaged": "refuse", "hub_scan": "refuse"},
    )
    if formats.code == "scan" and find_spec("picklescan") is None:
        raise UsageError(
            f"{where}: formats: code: scan needs picklescan, which is not installed", hint="pip install lading[scan]"
        )
    return formats


def _read_signers(file: str, where: str, read: Callable[[bytes], T], hint: str, extra: str = "") -> T:
    """Read the keys or roots of this file, by an ``extra``; ``UsageError`` if it cannot be read or used."""
    shown = printable(file)
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(_MOST_FILE_BYTES + 1)
        if len(text) > _MOST_FILE_BYTES:
            raise UsageError(f"{where}: {shown} has more than {_MOST_FILE_BYTES} bytes", hint=hint)
        return read(text)
    except OSError as error:
        raise UsageError(f"{where}: {shown} cannot be read: {error.strerror or error}", hint=hint) from error
    except ImportError as error:
        raise UsageError(
            f"{where}: to verify this needs the extra {extra}", hint=f"pip install 'lading[{extra}]'"
        ) from error
    except ValueError as error:
        raise UsageError(f"{where}: {shown} cannot be used: {error}", hint=hint) from error


def trust_rule_for(rules: tuple[TrustRule, ...], uri: ModelURI | None) -> TrustRule | None:
    """The rule of the longest prefix that covers an origin; None if there is none, or if it is off.

    An origin that is not known (None) is covered by the rule for every origin alone.
    """
    if not rules:
        return None
    places = places_of(uri) if uri else ()
    covering = [
        rule for rule in rules if rule.prefix is None or any(is_below(spelled(rule.prefix), each) for each in places)
    ]
    rule = max(covering, key=_length, default=None)
    return None if rule is None or rule.mode == "off" else rule


def _length(rule: TrustRule) -> tuple[bool, bool, int]:
    """The sort key of rules: for every origin, for a scheme, for a host or bucket, for a path in it."""
    prefix = spelled(rule.prefix) if rule.prefix else None
    return prefix is not None, bool(prefix and prefix.authority), len(prefix.path) if prefix else 0
