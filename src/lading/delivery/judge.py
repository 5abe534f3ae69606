"""Signature first: who signed a model, and which files, is judged before a byte of its weights moves.

The signature (a few KB) is read from the origin, and the digests in it are what the files are checked against while
they land: nothing is read twice.  ``settings/trust.py`` has the rules, ``trust`` the formats.  A model that was
delivered before is judged again by the rules of today, from the signature that was delivered with it.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from lading.errors import Untrusted
from lading.events import Listener, NotTrusted, Signed
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.pattern import chooser
from lading.model.signature import Signature
from lading.model.uri import ModelURI
from lading.session import Session
from lading.settings.trust import TrustRule, trust_rule_for
from lading.sources.source import Pins, Source
from lading.text.printable import first_of, printable
from lading.text.units import size
from lading.trust.bundle import MOST_BUNDLE_BYTES, Bundle, key_signer, read_bundle
from lading.trust.sigstore import signed_payload
from lading.trust.statement import SignedFile, Statement, read_statement

# What a signature by shards cannot name.
_EMPTY = Digest.of(b"")
_HINTS = {
    "extra": "sign the model with it, or leave it out by extra_files: skip in the rule",
    "missing": "the origin has lost it, or the signature is of another model or version",
    "changed": "the origin's copy was replaced or damaged, or the signature is of another version",
}


class Judged(NamedTuple):
    """What of a listing may be delivered, and by path the digests that were signed."""

    listed: Listing
    digests: Mapping[str, tuple[Digest, ...]]


def judge(listed: Listing, everything: Listing, uri: ModelURI, source: Source, session: Session) -> Judged:
    """Judge the ``listed`` files, which were chosen from ``everything`` at ``uri``; ``Untrusted`` if they are refused."""
    rule = trust_rule_for(session.settings.trust, uri)
    if rule is None or not rule.asks_for_signature:
        return Judged(listed, {})
    shown = uri.redacted()
    try:
        if rule.kind != "oms":
            return _judged_image(listed, shown, rule, source, session)
        return _judged(listed, everything, shown, rule, source, session)
    except Untrusted as error:
        let_pass(error, rule, shown, session.listener)
        return Judged(listed, {})


def _judged(
    listed: Listing, everything: Listing, shown: str, rule: TrustRule, source: Source, session: Session
) -> Judged:
    bundle = everything.by_path().get(rule.bundle)
    if bundle is None:
        let_unsigned_pass(rule, shown, session.listener)
        return Judged(listed, {})
    text = _read(bundle, source, session)
    statement, signature = verified(text, rule)
    wanted = chooser(session.settings.allow, session.settings.ignore)
    files = choose_signed(listed.files, {file.path for file in everything.files}, statement, rule, wanted)
    session.listener(Signed(shown, signature.signer, signature.rule))
    # The bundle as it was judged: it is not asked for again.
    delivered = Listing.of([*files, bundle._replace(size_bytes=len(text), content=text)]).files
    digests = {file.path: (signed_digest(file.path, statement),) for file in files} | {bundle.path: (signature.digest,)}
    return Judged(listed._replace(files=delivered, signature=signature), digests)


def _judged_image(listed: Listing, shown: str, rule: TrustRule, source: Source, session: Session) -> Judged:
    # Here, and not above: most models are files.
    from lading.delivery.judge_image import find_signature

    signature = find_signature(source, rule)
    if signature is None:
        let_unsigned_pass(rule, source.pin.redacted() if isinstance(source, Pins) else shown, session.listener)
        return Judged(listed, {})
    session.listener(Signed(shown, signature.signer, signature.rule))
    # What a registry adds was not signed.
    files = tuple(file for file in listed.files if file.content is None)
    return Judged(listed._replace(files=files, signature=signature), {file.path: file.declared for file in files})


def let_pass(error: Untrusted, rule: TrustRule, shown: str, listener: Listener) -> None:
    """Raise what is wrong, or, by a rule that only warns, tell it."""
    if rule.mode == "enforce":
        raise error
    listener(NotTrusted(shown, error.message, error.hint))


def let_unsigned_pass(rule: TrustRule, shown: str, listener: Listener) -> None:
    """Raise ``Untrusted`` for a model without a signature, or tell that the rule allows it."""
    if rule.kind == "oms":
        lacking, how = printable(rule.bundle), f"model_signing sign {rule.method} writes"
    else:
        lacking, how = f"{rule.kind} signature", f"{rule.kind} sign makes, of an index for the index itself"
    if rule.unsigned == "refuse":
        raise Untrusted(
            f"{shown} is not signed: it has no {lacking}", hint=f"{rule.named} asks for a signature, which {how}"
        )
    listener(NotTrusted(shown, f"it has no {lacking}", f"{rule.named} allows that"))


def verified(text: bytes, rule: TrustRule) -> tuple[Statement, Signature]:
    """What a signer of the rule has signed."""
    if len(text) > MOST_BUNDLE_BYTES:
        raise _too_large(rule.bundle)
    bundle = read_bundle(text, rule.bundle)
    signer, payload = _signed(bundle, text, rule)
    statement = read_statement(payload, rule.bundle)
    return statement, Signature(signer, rule.shown, rule.bundle, Digest.of(text))


def _signed(bundle: Bundle, text: bytes, rule: TrustRule) -> tuple[str, bytes]:
    """Who has signed, by the method that the rule asks for, and the payload that was verified."""
    if bundle.method != rule.method:
        raise Untrusted(
            f"{printable(rule.bundle)} is signed by the method {bundle.method}, and {rule.named} asks for the method"
            f" {rule.method}",
            hint=f"have the model signed by: model_signing sign {rule.method}",
        )
    if rule.identity:
        return rule.identity.signer, signed_payload(text, rule.identity, rule.bundle)
    if rule.roots:
        # Here, and not above: it takes an extra.
        from lading.trust.certificate import certified_signer

        return certified_signer(bundle, rule.roots, rule.bundle), bundle.payload
    return key_signer(bundle, rule.keys, rule.bundle).name, bundle.payload


def choose_signed(
    files: Iterable[ListedFile],
    known: Container[str],
    statement: Statement,
    rule: TrustRule,
    is_wanted: Callable[[str], bool],
) -> list[ListedFile]:
    """Those of the ``files`` that were signed; ``Untrusted``, which names every other, where they may not be left out.

    ``known`` are the paths that the origin has, wanted or not.
    """
    wrong: dict[str, list[str]] = {"missing": [], "extra": [], "changed": []}
    chosen = []
    for file in files:
        signed = statement.files.get(file.path)
        # No file can have its own digest in it.
        if signed is not None and file.path != rule.bundle and _may_be(file, signed):
            chosen.append(file)
        elif signed is not None:
            wrong["changed"].append(file.path)
        elif file.size_bytes == 0 and not statement.names_empty_files:
            chosen.append(file)
        elif not _is_left_out(file, statement, rule):
            wrong["extra"].append(file.path)
    wrong["missing"] = [path for path in statement.files if path not in known and is_wanted(path)]
    if any(wrong.values()):
        raise not_as_signed(rule.bundle, wrong)
    if not chosen:
        raise Untrusted(f"none of the files is signed in {printable(rule.bundle)}", hint=_HINTS["missing"])
    return chosen


def _is_left_out(file: ListedFile, statement: Statement, rule: TrustRule) -> bool:
    """Whether a file that was not signed is just not delivered: what the signer left out, and what a registry adds."""
    if file.path == rule.bundle or file.content is not None:
        return True
    return rule.extra_files == "skip" or statement.ignores(file.path)


def _may_be(file: ListedFile, signed: SignedFile) -> bool:
    """Whether what the origin says of a file does not contradict what was signed."""
    if None not in (file.size_bytes, signed.size_bytes) and file.size_bytes != signed.size_bytes:
        return False
    kind = (signed.digest.algorithm, signed.digest.part_sizes_bytes)
    return all(
        digest == signed.digest or (digest.algorithm, digest.part_sizes_bytes) != kind for digest in file.declared
    )


def signed_digest(path: str, statement: Statement) -> Digest:
    """The digest of a chosen file; that of an empty file if the signature could not name it."""
    signed = statement.files.get(path)
    return signed.digest if signed else _EMPTY


def _read(bundle: ListedFile, source: Source, session: Session) -> bytes:
    """The bundle, from the origin."""
    if (bundle.size_bytes or 0) > MOST_BUNDLE_BYTES:
        raise _too_large(bundle.shown)
    if bundle.fault is not None:
        raise bundle.fault
    if bundle.size_bytes == 0:
        return b""
    kept = _Kept(bundle.shown)

    def attempt() -> bytes:
        kept.text.clear()
        source.read(bundle, ByteRange(0, bundle.size_bytes), kept)
        return bytes(kept.text)

    return session.retry.call(attempt, what=bundle.shown)


class _Kept:
    """Keeps what is read; a bundle that was exchanged meanwhile is judged as it came."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self.text = bytearray()

    def version(self, validator: str) -> None:
        """One answer is one version."""

    def on_digests(self, declared: Sequence[Digest]) -> None:
        """Its own signature is what it is judged by."""

    def write(self, piece: memoryview) -> None:
        if len(self.text) + len(piece) > MOST_BUNDLE_BYTES:
            raise _too_large(self._shown)
        self.text += piece


def _too_large(shown: str) -> Untrusted:
    most = size(MOST_BUNDLE_BYTES)
    return Untrusted(
        f"{printable(shown)} has more than {most}, and is not read", hint="no signature of a model is so long"
    )


def not_as_signed(bundle: str, wrong: Mapping[str, Sequence[str]]) -> Untrusted:
    """The error that names what is not as it was signed."""
    named = [f"{kind} {printable(path)}" for kind, paths in wrong.items() for path in sorted(paths)]
    hints = "; ".join(_HINTS[kind] for kind, paths in wrong.items() if paths)
    return Untrusted(f"not what was signed in {printable(bundle)}: {first_of(named)}", hint=hints)
