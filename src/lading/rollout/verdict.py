"""The checks of a rollout, and what their answers mean; ``lading.controller.checking`` asks them."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple


class HttpCheck(NamedTuple):
    """A GET that must be answered with ``status``: of ``path`` at ``port`` of the candidate's pods, or of ``url``."""

    name: str
    path: str = ""
    port: int = 8080
    url: str = ""
    status: int = 200
    timeout_s: float = 5.0


class QueryCheck(NamedTuple):
    """An instant query of Prometheus, each of whose samples must lie between ``least`` and ``most``."""

    name: str
    query: str
    least: float | None = None
    most: float | None = None
    timeout_s: float = 5.0


Check = HttpCheck | QueryCheck


class Verdict(NamedTuple):
    """What the checks say of a version; ``unknown`` if one could not be asked, or has not failed often enough."""

    word: Literal["passed", "failed", "unknown"]
    why: str = ""


PASSED = Verdict("passed")
# The rounds in a row in which a check must fail: one is an accident.
FAILURES = 3


def of_status(check: HttpCheck, asked: str, status: int) -> Verdict:
    """The verdict on an answer of the URL ``asked``; a redirect is an answer, and is not followed."""
    if status == check.status:
        return PASSED
    return Verdict("failed", f"check {check.name}: {asked} answered {status}, not {check.status}")


def of_samples(check: QueryCheck, samples: Sequence[float]) -> Verdict:
    """The verdict on a query's samples; NaN is the quotient of two numbers that are 0, such as of no requests."""
    if not samples or any(map(math.isnan, samples)):
        return Verdict("unknown", f"check {check.name}: the query has no result yet")
    if check.least is not None and min(samples) < check.least:
        return Verdict("failed", f"check {check.name}: {min(samples):g} is less than {check.least:g}")
    if check.most is not None and max(samples) > check.most:
        return Verdict("failed", f"check {check.name}: {max(samples):g} is more than {check.most:g}")
    return PASSED


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of several checks: a failure counts more than a check that could not be asked."""
    return min(verdicts, key=lambda each: ("failed", "unknown", "passed").index(each.word), default=PASSED)
