"""Files are judged by their content before a server sees them: damaged ones, and those that run code when they are loaded."""

from collections.abc import Callable, Iterator
from pathlib import Path

from lading.errors import Untrusted
from lading.events import Listener, NotTrusted
from lading.formats.inspector import Inspector, any_pickle
from lading.formats.pickles import scanned_code
from lading.model.listing import ListedFile, Listing
from lading.model.manifest import File, Manifest
from lading.model.uri import ModelURI
from lading.settings.trust import Formats, TrustRule, trust_rule_for
from lading.system.disk import disk_error
from lading.text.printable import first_of, printable

_HINTS = {
    "damaged": "the model was damaged before it was published: the origin's copy is the same",
    "code": "take its safetensors, GGUF or ONNX files, or say formats: {{code: allow}} in {rule} if you trust whoever made it",
}
# The Hub's words for a file about which its scanners have not decided.
_NO_VERDICT = {"unscanned", "queued", "error"}
_HUB_HINT = "the Hub says why beside each file; leave it out by --ignore, or write hub_scan: warn in {rule}"


def judge_scans(listed: Listing, uri: ModelURI, rules: tuple[TrustRule, ...], listener: Listener) -> None:
    """Judge the files at ``uri`` by what the Hub's scanners say of them, before a byte is fetched.

    ``Untrusted`` names those that may not pass.  A file without a verdict passes, and is told.
    """
    rule = trust_rule_for(rules, uri)
    if rule is None or rule.formats is None or not rule.asks_the_hub:
        return
    said = [file for file in listed.files if file.scan not in (None, "safe")]
    undecided = [_scanned(file) for file in said if file.scan in _NO_VERDICT]
    # A word that is new is no good news.
    wrong = [_scanned(file) for file in said if file.scan not in _NO_VERDICT]
    if undecided:
        why = f"the Hub's scanners have no verdict on {first_of(undecided)}"
        listener(
            NotTrusted(uri.redacted(), why, "wait until they have, or say formats: {hub_scan: ignore} in the rule")
        )
    if wrong:
        why = f"the Hub's scanners warn of {first_of(wrong)}"
        if rule.mode == "enforce" and rule.formats.hub_scan == "refuse":
            raise Untrusted(f"{uri.redacted()} is refused: {why}", hint=_HUB_HINT.format(rule=rule.named))
        listener(NotTrusted(uri.redacted(), why, f"{rule.named} allows that"))


def judge_formats(
    manifest: Manifest, place: Callable[[str], Path], rules: tuple[TrustRule, ...], listener: Listener
) -> None:
    """Judge the files of a model by the rules of today; ``place`` says where each of them is.

    Of each, the beginning is read, and all of a pickle that is to be scanned.  ``Untrusted`` names what may not pass.
    """
    rule = trust_rule_for(rules, manifest.came_from)
    if rule is None or rule.formats is None:
        return
    wrong = list(_wrong(manifest.files, place, rule.formats))
    if not wrong:
        return
    error = _refused(wrong, rule)
    if rule.mode == "enforce":
        raise error
    listener(NotTrusted(manifest.resolved, error.message, error.hint))


def _wrong(files: tuple[File, ...], place: Callable[[str], Path], formats: Formats) -> Iterator[tuple[str, str]]:
    """The kind of what may not pass, and a sentence on it."""
    inspector = Inspector(scanned_code if formats.code == "scan" else any_pickle)
    for file in files:
        path = place(file.path)
        try:
            with path.open("rb") as content:
                finding = inspector.inspect(file.path, content, file.size_bytes)
        except OSError as error:
            raise disk_error(error, path) from error
        if finding.fault and formats.damaged == "refuse":
            yield "damaged", f"{printable(file.path)} is no whole {finding.format}: {finding.fault}"
        if finding.code and formats.code != "allow":
            yield "code", f"{printable(file.path)} holds {finding.code}"


def _scanned(file: ListedFile) -> str:
    return f"{printable(file.path)} ({printable(file.scan or '')[:20]})"


def _refused(wrong: list[tuple[str, str]], rule: TrustRule) -> Untrusted:
    named = first_of([sentence for _, sentence in wrong])
    kinds = {kind for kind, _ in wrong}
    what = "code that runs when the model is loaded" if kinds == {"code"} else "files that may not be delivered"
    hints = "; ".join(hint.format(rule=rule.named) for kind, hint in _HINTS.items() if kind in kinds)
    return Untrusted(f"{rule.named} refuses {what}: {named}", hint=hints)
