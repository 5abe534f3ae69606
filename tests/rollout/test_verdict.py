"""What the answers to checks mean."""

import math

import pytest

from lading.rollout.verdict import PASSED, HttpCheck, QueryCheck, Verdict, of_samples, of_status, worst

READY = HttpCheck("ready", path="/ready")
ERRORS = QueryCheck("errors", "up", least=0, most=0.01)


def test_the_status_that_is_expected_passes_and_any_other_one_fails():
    assert of_status(READY, "http://pod/ready", 200) == PASSED
    for status in (204, 302, 404, 503):
        assert of_status(READY, "http://pod/ready", status) == (
            "failed",
            f"check ready: http://pod/ready answered {status}, not 200",
        )
    assert of_status(HttpCheck("login", path="/", status=401), "http://pod/", 401) == PASSED


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        ([0.0], "passed"),
        ([0.01], "passed"),
        ([0.001, 0.02], "failed"),
        ([-1.0], "failed"),
        ([math.inf], "failed"),
        ([], "unknown"),
        ([0.0, math.nan], "unknown"),
    ],
)
def test_every_sample_must_be_between_the_limits_and_none_is_no_result(samples, word):
    assert of_samples(ERRORS, samples).word == word


def test_a_limit_that_is_not_given_limits_nothing():
    assert of_samples(QueryCheck("q", "up", least=1), [1e9]) == PASSED
    assert of_samples(QueryCheck("q", "up", most=1), [-1e9]) == PASSED


def test_a_failure_counts_more_than_what_is_unknown():
    failed, unknown = Verdict("failed", "a"), Verdict("unknown", "b")
    assert worst([PASSED, unknown, failed]) == failed
    assert worst([PASSED, unknown]) == unknown
    assert worst([PASSED]) == PASSED
