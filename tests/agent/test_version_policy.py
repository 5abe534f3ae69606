"""Which version may be taken, and when."""

import pytest

from lading.agent.version_policy import held_s, is_canary, refused_s
from lading.errors import UsageError
from lading.settings.agent import Canary, Delivery
from lading.settings.ranges import Semver, in_range

NAMES = ["v1.0.0", "1.2", "1.10.0", "2.0.0-rc.1", "2.0.0", "2.1.0", "nightly", "3"]
WEEK = Delivery("m", "s3://b/m", "/m")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (">=1.2, <2", ["1.10.0", "1.2"]),
        ("<2", ["1.10.0", "1.2", "v1.0.0"]),
        (">=2.0.0-rc.1, <=2.0.0", ["2.0.0", "2.0.0-rc.1"]),
        (">2", ["3", "2.1.0"]),
        ("=1.2.0", ["1.2"]),
        (">=9", []),
        ("", ["3", "2.1.0", "2.0.0", "1.10.0", "1.2", "v1.0.0"]),
    ],
)
def test_a_range_holds_the_versions_between_its_bounds_the_highest_first(text, found):
    assert in_range(text, NAMES) == found


@pytest.mark.parametrize("text", ["1.2", ">=x", "^1.2", ">= 1 <2", ">=1.2.3.4", ">=1 || <0"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(UsageError, match="not a range"):
        in_range(text, NAMES)


def test_versions_are_in_the_order_of_semver_org():
    # https://semver.org/#spec-item-11
    names = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
    ]
    versions = [Semver.parse(name) for name in names]
    assert versions == sorted(versions)
    assert len(set(versions)) == len(names)
    assert Semver.parse("1.0.0+build.1") == Semver.parse("v1.0")
    assert Semver.parse("01.0.0") is None


def test_a_share_of_the_hosts_goes_first_and_always_the_same():
    hosts = [f"web-{number}" for number in range(1000)]
    first = [host for host in hosts if is_canary(host, "m", 0.1)]
    assert 60 < len(first) < 140
    assert first == [host for host in hosts if is_canary(host, "m", 0.1)]
    assert first != [host for host in hosts if is_canary(host, "other", 0.1)]


def test_news_is_held_and_longer_where_it_is_not_tried_first():
    first = next(host for host in map(str, range(1000)) if is_canary(host, "m", 0.1))
    other = next(host for host in map(str, range(1000)) if not is_canary(host, "m", 0.1))
    delivery = WEEK._replace(hold_s=60.0, canary=Canary(0.1, 600.0))
    assert held_s(delivery, first, seen_s=1000.0, now_s=1000.0) == 60.0
    assert held_s(delivery, first, seen_s=1000.0, now_s=1060.0) == 0.0
    assert held_s(delivery, other, seen_s=1000.0, now_s=1060.0) == 600.0
    assert held_s(WEEK, other, seen_s=1000.0, now_s=1000.0) == 0.0


def test_a_refused_version_is_left_alone_for_longer_each_time_a_day_at_most():
    assert [refused_s(times) for times in (1, 2, 3)] == [300.0, 600.0, 1200.0]
    assert refused_s(10_000) == 24 * 3600.0
