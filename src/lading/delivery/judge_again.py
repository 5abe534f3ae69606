"""A model that was delivered before is judged by the rules of today, without the network.

The signature that was delivered with it is verified again.  That of an image stayed in its registry: what was recorded of
it counts.
"""

from collections.abc import Iterable
from pathlib import Path

from lading.delivery.judge import choose_signed, let_pass, let_unsigned_pass, not_as_signed, signed_digest, verified
from lading.destination.audit import is_as_delivered
from lading.errors import Untrusted
from lading.events import Listener
from lading.model.digest import Digest
from lading.model.listing import ListedFile
from lading.model.manifest import File, Manifest
from lading.model.pattern import chooser
from lading.model.signature import Signature
from lading.settings.trust import TrustRule, trust_rule_for
from lading.system.disk import disk_error
from lading.text.printable import printable
from lading.trust.bundle import MOST_BUNDLE_BYTES


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
        let_pass(error, rule, manifest.resolved, listener)
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
        let_unsigned_pass(rule, manifest.resolved, listener)
        return None
    statement, signature = verified(_read_delivered(folder / rule.bundle), rule)
    files = [ListedFile(file.path, file.size_bytes, declared=file.known) for file in manifest.files]
    chosen = choose_signed(files, landed, statement, rule, chooser(*_split(manifest.patterns)))
    changed = [
        file.path
        for file in chosen
        if not _is_as_signed(folder, landed[file.path], signed_digest(file.path, statement))
    ]
    if changed:
        raise not_as_signed(rule.bundle, {"changed": changed})
    return signature


def _recorded(manifest: Manifest, rule: TrustRule, listener: Listener) -> Signature | None:
    """Who signed an image, as it was recorded: the signature itself, and what it is of, are in the registry."""
    signature = manifest.signature
    if signature is None or signature.kind != rule.kind:
        let_unsigned_pass(rule, manifest.resolved, listener)
        return None
    trusted = [*(key.name for key in rule.keys), *([rule.identity.signer] if rule.identity else [])]
    # Of a certificate, nothing tells below which root it was.
    if signature.signer not in trusted and not (rule.roots and signature.rule == rule.shown):
        raise Untrusted(
            f"{manifest.resolved} was signed by {printable(signature.signer)}, as another rule asked for",
            hint=f"deliver it again, to have it judged by {rule.named}",
        )
    return signature._replace(rule=rule.shown)


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


def _read_delivered(place: Path) -> bytes:
    try:
        with place.open("rb") as file:
            return file.read(MOST_BUNDLE_BYTES + 1)
    except OSError as error:
        raise disk_error(error, place) from error
