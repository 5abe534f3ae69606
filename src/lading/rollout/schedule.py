"""Windows, which open by a cron expression in a time zone.

https://pubs.opengroup.org/onlinepubs/9699919799/utilities/crontab.html
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

from lading.errors import UsageError
from lading.text.printable import printable

_EXAMPLE = "write minute, hour, day, month and day of the week, for example 0 2 * * 1-5"
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
# The next 29th of February is at most eight years away.
_MOST_DAYS = 8 * 366 + 1


class Cron(NamedTuple):
    """The five fields of a cron expression; if days of the month and weekdays are restricted, one must match."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> "Cron":
        """Read a cron expression of five fields in numbers; ``UsageError`` for anything else."""
        fields = text.split()
        try:
            minutes, hours, days, months, weekdays = (
                _numbers(field, *bounds) for field, bounds in zip(fields, _BOUNDS, strict=True)
            )
        except ValueError as error:
            raise UsageError(f"{printable(text)!r} is not a cron expression", hint=_EXAMPLE) from error
        # Sunday is both 0 and 7.
        weekdays = frozenset(day % 7 for day in weekdays)
        return cls(minutes, hours, days, months, weekdays, not any(fields[place].startswith("*") for place in (2, 4)))

    def has(self, day: date) -> bool:
        """Whether the expression matches any minute of this day."""
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (by_day or by_weekday if self.either_day else by_day and by_weekday)


class Window(NamedTuple):
    """Open for ``length_s`` from each minute that ``cron`` names in ``zone``."""

    cron: Cron
    length_s: float
    zone: tzinfo

    def opens_s(self, now_s: float) -> float:
        """Unix time of the last opening if it is open now, else of the next one; infinity if there is none."""
        for opening_s in self._openings(now_s - self.length_s):
            if opening_s + self.length_s > now_s:
                return opening_s
        return float("inf")

    def _openings(self, after_s: float) -> Iterator[float]:
        """Openings (Unix time) from about a day before ``after_s`` on.

        When clocks are put forward, a skipped hour means the hour after it; when they are put back, the first of the
        two equal hours counts.
        """
        day = datetime.fromtimestamp(after_s, UTC).date() - timedelta(days=1)
        for _ in range(_MOST_DAYS):
            if self.cron.has(day):
                for hour in sorted(self.cron.hours):
                    for minute in sorted(self.cron.minutes):
                        yield datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone).timestamp()
            day += timedelta(days=1)


def time_zone(name: str) -> tzinfo:
    """The zone with this name in IANA's database; ``UsageError`` if this machine does not know it."""
    # Here, and not above: few windows have a zone.
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"{printable(name)!r} is no time zone here", hint="for example: Europe/Berlin, UTC") from error


def _numbers(field: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        begin, end = (low, high) if span == "*" else (_number(first), _number(last) if dash else _number(first))
        if slash and not dash and span != "*":
            end = high
        every = _number(step) if slash else 1
        if not low <= begin <= end <= high or every < 1:
            raise ValueError(part)
        found.update(range(begin, end + 1, every))
    return frozenset(found)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 2):
        raise ValueError(text)
    return int(text)
