"""The output of ``lading resolve --explain``: the answer of every registry for a name, and the rule of trust."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from lading.model.uri import ModelURI
from lading.registries.federation import Candidate
from lading.registries.registry import Resolution
from lading.settings.settings import Settings

if TYPE_CHECKING:
    from lading.settings.trust import TrustRule


def lines(candidates: Sequence[Candidate]) -> Iterator[str]:
    """One line for each registry, for each version that it considered, and for each contradiction."""
    taken = _taken(candidates)
    for each in candidates:
        if each.resolution is not None:
            mark = "taken" if each is taken else "not taken: another registry comes first"
            yield f"registry {each.registry}: {_named(each.resolution)} at {each.resolution.uri.redacted()} ({mark})"
            for version, why in each.resolution.considered:
                yield f"  version {version}: {why}"
        elif each.error is not None:
            yield f"registry {each.registry}: {each.error.message} ({each.error.code})"
        else:
            yield f"registry {each.registry}: not asked, {each.why}"
    for first, second in conflicts(candidates):
        yield f"conflict: {first} and {second} have different models of this name"


def report(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The content of ``lines`` as JSON."""
    taken = _taken(candidates)
    return {
        "candidates": [
            {
                "registry": each.registry,
                "taken": each is taken,
                "version": each.resolution.version if each.resolution else None,
                "uri": each.resolution.uri.redacted() if each.resolution else None,
                "digests": {path: str(digest) for path, digest in each.resolution.digests.items()}
                if each.resolution
                else {},
                "considered": [list(pair) for pair in each.resolution.considered] if each.resolution else [],
                "error": {"code": each.error.code, "message": each.error.message} if each.error else None,
                "why": each.why,
            }
            for each in candidates
        ],
        "conflicts": [list(pair) for pair in conflicts(candidates)],
    }


def trust_line(settings: Settings, uri: ModelURI) -> str:
    """The rule of trust for a model at this origin, and what it requires, in one line."""
    rule = _rule(settings, uri)
    if rule is None:
        return "trust: no rule covers it" if settings.trust else "trust: there are no rules"
    asked = []
    if rule.asks_for_signature:
        signers = ("a certificate below " if rule.roots else "") + ", ".join(_signers(rule))
        oms = rule.kind == "oms"
        what = f"{rule.bundle} must be signed" if oms else f"the image must be signed, as {rule.kind} does it,"
        extra = f", extra_files: {rule.extra_files}" if oms else ""
        asked.append(f"{what} by {signers} (unsigned: {rule.unsigned}{extra})")
    if rule.formats:
        formats = ", ".join(f"{key}: {word}" for key, word in rule.formats._asdict().items())
        asked.append(f"formats by content ({formats})")
    return f"trust: {rule.named}, mode {rule.mode}: {'; '.join(asked)}"


def trust_report(settings: Settings, uri: ModelURI) -> dict[str, Any] | None:
    """The content of ``trust_line`` as JSON; None if no rule covers the origin."""
    rule = _rule(settings, uri)
    if rule is None:
        return None
    report: dict[str, Any] = {"rule": rule.shown, "mode": rule.mode}
    if rule.asks_for_signature:
        report |= {"unsigned": rule.unsigned, "kind": rule.kind, "method": rule.method, "signers": list(_signers(rule))}
        if rule.kind == "oms":
            report |= {"extra_files": rule.extra_files, "bundle": rule.bundle}
    return report | ({"formats": rule.formats._asdict()} if rule.formats else {})


def _signers(rule: "TrustRule") -> Iterator[str]:
    """The trusted keys or roots, each as the SHA-256 of its DER, or the identity."""
    if rule.identity:
        yield rule.identity.shown
    for der in (*(key.der for key in rule.keys), *rule.roots):
        yield f"sha256:{hashlib.sha256(der).hexdigest()}"


def _rule(settings: Settings, uri: ModelURI) -> "TrustRule | None":
    if not settings.trust:
        return None
    # Here, and not above: most configurations have no rules.
    from lading.settings.trust import trust_rule_for

    return trust_rule_for(settings.trust, uri)


def conflicts(candidates: Sequence[Candidate]) -> list[tuple[str, str]]:
    """The pairs of registries whose answers cannot both be right."""
    answers = [(each.registry, each.resolution) for each in candidates if each.resolution is not None]
    return [(one, other) for (one, first), (other, second) in combinations(answers, 2) if _differ(first, second)]


def _differ(first: Resolution, second: Resolution) -> bool:
    """Whether two answers differ: by the digests of files that both record; if there are none, by their URIs."""
    both = first.digests.keys() & second.digests.keys()
    if both:
        return any(first.digests[path] != second.digests[path] for path in both)
    return first.uri.identity() != second.uri.identity()


def _taken(candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate that decides, if it knows the name; else None."""
    decisive = next((each for each in candidates if each.decides), None)
    return decisive if decisive and decisive.resolution else None


def _named(resolution: Resolution) -> str:
    return f"{resolution.model}/{resolution.version}"
