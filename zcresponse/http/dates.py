"""Timestamps in header fields: three forms are read, one is written (RFC 9110 §5.6.7)."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

__all__ = ["format_http_date", "parse_http_date"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBERS = {name: number for number, name in enumerate(_MONTHS, start=1)}

_DAY = f"(?:{'|'.join(_DAYS)})"
_LONG_DAY = f"(?:{'|'.join(_LONG_DAYS)})"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
# [0-9] and not \d: other scripts' digits are digits to Python, not to HTTP.
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS = (
    re.compile(f"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(f"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)

_SECONDS_PER_DAY = 86_400
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
# The years 1 to 9999, all that four digits (and datetime) can say.
_EARLIEST = (date.min.toordinal() - _EPOCH_ORDINAL) * _SECONDS_PER_DAY
_LATEST = (date.max.toordinal() + 1 - _EPOCH_ORDINAL) * _SECONDS_PER_DAY - 1


def parse_http_date(text: str, *, now: int) -> int | None:
    """Read a timestamp in any of the three forms of RFC 9110 §5.6.7.

    The name of the weekday has to be one but is not compared with the date. A leap second counts as the second
    that follows it. Years before 1970 give negative numbers.

    Args:
        text: The field value. Letters are case-sensitive; blanks around it do not matter.
        now: Seconds since the epoch; decides the century of a two-digit year and nothing else.

    Returns:
        Seconds since the epoch, or None if the text is not a timestamp.
    """
    text = text.strip(" \t")
    for form in _FORMS:
        if found := form.fullmatch(text):
            break
    else:
        return None
    month, day = _MONTH_NUMBERS[found["month"]], int(found["day"])
    hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"])
    if hour > 23 or minute > 59 or second > 60:
        return None
    year = int(found["year"])
    if len(found["year"]) == 4:
        ordinal = _ordinal(year, month, day)
    else:
        ordinal = _ordinal_of_short_year(year, month, day, (hour, minute, second), now)
    if ordinal is None:
        return None
    return (ordinal - _EPOCH_ORDINAL) * _SECONDS_PER_DAY + hour * 3600 + minute * 60 + second


def format_http_date(seconds: int) -> str:
    """Write a timestamp as an IMF-fixdate, like ``Sun, 06 Nov 1994 08:49:37 GMT`` (RFC 9110 §5.6.7).

    Args:
        seconds: Seconds since the epoch. What lies before year 1 or after year 9999 (file systems can store
            such times) is written as the first or last second of those years, since no more can be said.
    """
    # The cached function is kept apart because a cache hides the signature from type checkers.
    return _format(seconds)


# A server says the same few moments again and again: now, and when its busiest files changed.
@lru_cache(maxsize=1024)
def _format(seconds: int) -> str:
    day, second = _civil(seconds)
    hour, second = divmod(second, 3600)
    minute, second = divmod(second, 60)
    # Not strftime: it speaks the language of the process's locale.
    return (
        f"{_DAYS[day.weekday()]}, {day.day:02d} {_MONTHS[day.month - 1]} {day.year:04d}"
        f" {hour:02d}:{minute:02d}:{second:02d} GMT"
    )


def _civil(seconds: int) -> tuple[date, int]:
    """Split a moment into its UTC day and the second of that day, held within the years 1 to 9999."""
    days, second = divmod(min(max(seconds, _EARLIEST), _LATEST), _SECONDS_PER_DAY)
    return date.fromordinal(days + _EPOCH_ORDINAL), second


def _ordinal(year: int, month: int, day: int) -> int | None:
    """Number the days, or None for a day that no calendar has, such as 30 February."""
    try:
        return date(year, month, day).toordinal()
    except ValueError:
        return None


def _ordinal_of_short_year(year: int, month: int, day: int, time: tuple[int, int, int], now: int) -> int | None:
    """Choose the century of a two-digit year.

    RFC 9110 §5.6.7: what appears to be more than 50 years in the future MUST be read as the most recent year in the
    past with the same last two digits. So the answer is the latest such day that is no more than 50 years ahead.
    """
    today, second = _civil(now)
    limit = (today.year + 50, today.month, today.day, second // 3600, second // 60 % 60, second % 60)
    century = today.year - today.year % 100
    for candidate in (century + 100 + year, century + year, century - 100 + year):
        if (candidate, month, day, *time) <= limit:
            ordinal = _ordinal(candidate, month, day)
            # None: a 29 February that this century's year lacks; another century's may have it.
            if ordinal is not None:
                return ordinal
    return None
