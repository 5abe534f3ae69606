"""When a window is open."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.errors import UsageError
from lading.rollout.schedule import Cron, Window, time_zone

BERLIN = "Europe/Berlin"


def unix(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def opens(cron: str, now: str, *, hours: float = 1, zone: str = "UTC") -> str:
    found = Window(Cron.parse(cron), hours * 3600, time_zone(zone)).opens_s(unix(now, zone))
    return datetime.fromtimestamp(found, ZoneInfo(zone)).isoformat(" ", "minutes")[:16]


@pytest.mark.parametrize(
    ("cron", "now", "opening"),
    [
        ("0 2 * * *", "2026-11-29 01:59", "2026-11-29 02:00"),
        ("0 2 * * *", "2026-11-29 02:59", "2026-11-29 02:00"),
        ("0 2 * * *", "2026-11-29 03:00", "2026-11-30 02:00"),
        # A Sunday.
        ("0 2 * * 1-5", "2026-11-29 02:30", "2026-11-30 02:00"),
        ("0 2 * * 7", "2026-11-29 02:30", "2026-11-29 02:00"),
        ("0 2 * * 0", "2026-11-29 02:30", "2026-11-29 02:00"),
        ("*/20 * * * *", "2026-11-29 02:30", "2026-11-29 01:40"),
        ("10/25 9-17/4 * * *", "2026-11-29 18:40", "2026-11-30 09:10"),
        # POSIX: where both kinds of day are restricted, either will do.
        ("0 0 13 * 5", "2026-11-29 02:30", "2026-12-04 00:00"),
        ("0 0 1,13 * 5", "2026-11-29 02:30", "2026-12-01 00:00"),
        ("0 0 29 2 *", "2026-11-29 02:30", "2028-02-29 00:00"),
    ],
)
def test_a_window_is_open_from_each_minute_that_cron_names(cron, now, opening):
    assert opens(cron, now) == opening


def test_a_window_may_reach_over_midnight():
    assert opens("0 23 * * *", "2026-11-30 04:30", hours=6) == "2026-11-29 23:00"


def test_an_hour_that_the_clocks_leave_out_is_the_one_after_it():
    assert opens("30 2 * * *", "2026-03-29 00:00", zone=BERLIN) == "2026-03-29 03:30"


def test_an_hour_that_the_clocks_have_twice_counts_once():
    first = unix("2026-10-25 02:30", BERLIN)
    window = Window(Cron.parse("30 2 * * *"), 1800, time_zone(BERLIN))
    assert window.opens_s(first + 60) == first
    assert window.opens_s(first + 3600) == unix("2026-10-26 02:30", BERLIN)


def test_a_day_that_never_comes_never_opens_a_window():
    assert Window(Cron.parse("0 0 31 2 *"), 60, time_zone("UTC")).opens_s(0) == float("inf")


@pytest.mark.parametrize(
    "text",
    [
        *("", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8"),
        *("5-1 * * * *", "*/0 * * * *", "a * * * *", "@daily", "1, * * * *", "* * * * mon", "1--2 * * * *"),
        *("-1 * * * *", "\N{FULLWIDTH DIGIT ONE} * * * *"),
    ],
)
def test_what_is_no_cron_expression_is_refused(text):
    with pytest.raises(UsageError, match="is not a cron expression"):
        Cron.parse(text)


@pytest.mark.parametrize("name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "a\0b"])
def test_what_is_no_time_zone_is_refused(name):
    with pytest.raises(UsageError, match="is no time zone here"):
        time_zone(name)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(0, 6), st.integers(0, 10**6))
def test_an_opening_is_a_minute_that_cron_names_and_none_is_left_out(minute, hour, weekday, later_min):
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=later_min)
    window = Window(Cron.parse(f"{minute} {hour} * * {weekday}"), 60, time_zone("UTC"))
    opening = datetime.fromtimestamp(window.opens_s(now.timestamp()), UTC)
    assert (opening.minute, opening.hour, opening.isoweekday() % 7) == (minute, hour, weekday)
    assert now - timedelta(minutes=1) < opening < now + timedelta(days=7, minutes=1)
