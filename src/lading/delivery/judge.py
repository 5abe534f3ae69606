"""Signature first: who signed a model, and which files, is judged before a byte of its weights moves.

The signature (a few KB) is read from the origin, and the digests in it are what the files are checked against while
they land: nothing is read twice.  ``settings/trust.py`` has the rules, ``trust`` the formats.  A model that was
delivered before is judged again by the rules of today, from the signature that was delivered with it.
"""

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lading.destination.audit import is_as_delivered
from lading.errors import Untrusted
from lading.events import Listener, NotTrusted, Signed
from lading.model.byte_range import ByteRange
from lading.model.digest import Digest
from lading.model.listing import ListedFile, Listing
from lading.model.manifest import File, Manifest
from lading.model.pattern import chooser
from lading.model.signature import Signature
from lading.model.uri import ModelURI
from lading.session import Session
from lading.settings.trust import TrustRule, trust_rule_for
from lading.sources.source import Pins, Source
from lading.system.disk import disk_error
from lading.text.printable import first_of, printable
from lading.text.units import size
from lading.trust.bundle import MOST_BUNDLE_BYTES, Bundle, key_signer, read_bundle
from lading.trust.sigstore import signed_payload
from lading.trust.statement import SignedFile, Statement, read_statement

# What a signature by shards cannot name.
_EMPTY = Digest("sha256", hashlib.sha256().hexdigest())
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
        _let_pass(error, rule, shown, session.listener)
        return Judged(listed, {})


def _judged(
    listed: Listing, everything: Listing, shown: str, rule: TrustRule, source: Source, session: Session
) -> Judged:
    bundle = everything.by_path().get(rule.bundle)
    if bundle is None:
        _let_unsigned_pass(rule, shown, session.listener)
        return Judged(listed, {})
    text = _read(bundle, source, session)
    statement, signature = _verified(text, rule)
    wanted = chooser(session.settings.allow, session.settings.ignore)
    files = _chosen(listed.files, {file.path for file in everything.files}, statement, rule, wanted)
    session.listener(Signed(shown, signature.signer, signature.rule))
    # The bundle as it was judged: it is not asked for again.
    delivered = Listing.of([*files, bundle._replace(size_bytes=len(text), content=text)]).files
    digests = {file.path: (_expected(file.path, statement),) for file in files} | {bundle.path: (signature.digest,)}
    return Judged(listed._replace(files=delivered, signature=signature), digests)


def _judged_image(listed: Listing, shown: str, rule: TrustRule, source: Source, session: Session) -> Judged:
    # Here, and not above: most models are files.
    from lading.delivery.judge_image import find_signature

    signature = find_signature(source, rule)
    if signature is None:
        _let_unsigned_pass(rule, source.pin.redacted() if isinstance(source, Pins) else shown, session.listener)
        return Judged(listed, {})
    session.listener(Signed(shown, signature.signer, signature.rule))
    # What a registry adds was not signed.
    files = tuple(file for file in listed.files if file.content is None)
    return Judged(listed._replace(files=files, signature=signature), {file.path: file.declared for file in files})


def judge_again(manifest: Manifest, folder: Path, rules: tuple[TrustRule, ...], listener: Listener) -> Signature | None:
    """Judge what is in ``folder`` by the rules of today, without the network; None where no rule asks for it.

    Files are hashed that were not checked against what is signed when they landed.
    """
    rule = trust_rule_for(rules, manifest.came_from)
    if rule is None or not rule.asks_for_signature:
        return None
    try:
        return _judged_again(manifest, folder, rule, listener)
    except Untrusted as error:
        _let_pass(error, rule, manifest.resolved, listener)
        return None


def was_judged(manifest: Manifest, rules: tuple[TrustRule, ...]) -> bool:
    """Whether a rule of today judged this model when it was delivered, or none asks for it; nothing is read for it."""
    rule = trust_rule_for(rules, manifest.came_from)
    if rule is None or not rule.asks_for_signature:
        return True
    if not rule.keys:
        # Certificates expire, and services of Sigstore are replaced.
        return False
    signature = manifest.signature
    if signature is None or (signature.rule, signature.kind) != (rule.shown, rule.kind):
        return False
    if rule.kind == "oms" and signature.bundle != rule.bundle:
        return False
    return signature.signer in [key.name for key in rule.keys]


def _judged_again(manifest: Manifest, folder: Path, rule: TrustRule, listener: Listener) -> Signature | None:
    if rule.kind != "oms":
        return _recorded(manifest, rule, listener)
    if manifest.archives:
        # Whoever can write the manifest could say so of any model.
        raise Untrusted(
            f"{manifest.resolved} was unpacked or decrypted: what is there now is not what was signed",
            hint="it was judged when it was delivered; deliver it again to have it judged by the rules of today",
        )
    landed = manifest.by_path()
    if rule.bundle not in landed:
        _let_unsigned_pass(rule, manifest.resolved, listener)
        return None
    statement, signature = _verified(_read_delivered(folder / rule.bundle), rule)
    files = [ListedFile(file.path, file.size_bytes, declared=_known(file)) for file in manifest.files]
    chosen = _chosen(files, landed, statement, rule, chooser(*_split(manifest.patterns)))
    changed = [
        file.path for file in chosen if not _is_as_signed(folder, landed[file.path], _expected(file.path, statement))
    ]
    if changed:
        raise _refused(rule.bundle, {"changed": changed})
    return signature


def _recorded(manifest: Manifest, rule: TrustRule, listener: Listener) -> Signature | None:
    """Who signed an image, as it was recorded: the signature itself, and what it is of, are in the registry."""
    signature = manifest.signature
    if signature is None or signature.kind != rule.kind:
        _let_unsigned_pass(rule, manifest.resolved, listener)
        return None
    trusted = [*(key.name for key in rule.keys), *([rule.identity.signer] if rule.identity else [])]
    # Of a certificate, nothing tells below which root it was.
    if signature.signer not in trusted and not (rule.roots and signature.rule == rule.shown):
        raise Untrusted(
            f"{manifest.resolved} was signed by {printable(signature.signer)}, as another rule asked for",
            hint=f"deliver it again, to have it judged by {rule.named}",
        )
    return signature._replace(rule=rule.shown)


def _let_pass(error: Untrusted, rule: TrustRule, shown: str, listener: Listener) -> None:
    """Raise what is wrong, or, by a rule that only warns, tell it."""
    if rule.mode == "enforce":
        raise error
    listener(NotTrusted(shown, error.message, error.hint))


def _let_unsigned_pass(rule: TrustRule, shown: str, listener: Listener) -> None:
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


def _verified(text: bytes, rule: TrustRule) -> tuple[Statement, Signature]:
    """What a signer of the rule has signed."""
    if len(text) > MOST_BUNDLE_BYTES:
        raise _too_large(rule.bundle)
    bundle = read_bundle(text, rule.bundle)
    signer, payload = _signed(bundle, text, rule)
    statement = read_statement(payload, rule.bundle)
    digest = Digest("sha256", hashlib.sha256(text).hexdigest())
    return statement, Signature(signer, rule.shown, rule.bundle, digest)


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


def _chosen(
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
        raise _refused(rule.bundle, wrong)
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


def _expected(path: str, statement: Statement) -> Digest:
    signed = statement.files.get(path)
    return signed.digest if signed else _EMPTY


def _known(file: File) -> tuple[Digest, ...]:
    return tuple(filter(None, (file.digest, file.blob_digest, *file.verified)))


def _is_as_signed(folder: Path, file: File, expected: Digest) -> bool:
    """Whether a file that was delivered is what was signed.

    An audit has computed its strongest digest.  Any other digest in the manifest may have been written there by whoever
    changed the file, so the file is hashed again.
    """
    if expected == file.strongest:
        return True
    try:
        return is_as_delivered(folder / file.path, file._replace(digest=expected, verified=(), blob_digest=None))
    except OSError as error:
        raise disk_error(error, folder / file.path) from error


def _split(patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """The patterns that allow, and those that ignore, of a manifest's."""
    by_sign: dict[str, list[str]] = {"+": [], "-": []}
    for pattern in patterns:
        by_sign.setdefault(pattern[:1], []).append(pattern[1:])
    return by_sign["+"], by_sign["-"]


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


def _read_delivered(place: Path) -> bytes:
    try:
        with place.open("rb") as file:
            return file.read(MOST_BUNDLE_BYTES + 1)
    except OSError as error:
        raise disk_error(error, place) from error


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


def _refused(bundle: str, wrong: Mapping[str, Sequence[str]]) -> Untrusted:
    """The error that names what is not as it was signed."""
    named = [f"{kind} {printable(path)}" for kind, paths in wrong.items() for path in sorted(paths)]
    hints = "; ".join(_HINTS[kind] for kind, paths in wrong.items() if paths)
    return Untrusted(f"not what was signed in {printable(bundle)}: {first_of(named)}", hint=hints)
