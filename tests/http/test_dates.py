from __future__ import annotations

import calendar
import email.utils
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zcresponse.http import dates
from zcresponse.http.dates import format_http_date, parse_http_date

NOW = 1_767_225_600  # 2026-01-01 00:00:00
FIRST = -62_135_596_800  # year 1
LAST = 253_402_300_799  # year 9999


def seconds(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return calendar.timegm((year, month, day, hour, minute, second))


def test_the_module_says_what_is_public() -> None:
    assert dates.__all__ == ["format_http_date", "parse_http_date"]


@pytest.mark.parametrize(
    "text",
    [
        # RFC 9110 §5.6.7: one moment in the three forms
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        # what field values bring along
        "  Sun, 06 Nov 1994 08:49:37 GMT\t",
        "Sun Nov 06 08:49:37 1994",
        # a weekday that is not the day's: still one moment
        "Mon, 06 Nov 1994 08:49:37 GMT",
        "Monday, 06-Nov-94 08:49:37 GMT",
    ],
)
def test_the_three_forms_name_one_moment(text: str) -> None:
    assert parse_http_date(text, now=NOW) == 784_111_777


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Tue, 29 Feb 2000 12:00:00 GMT", seconds(2000, 2, 29, 12)),
        ("Tue, 19 Jan 2038 03:14:08 GMT", 2**31),
        ("Sat, 31 Dec 2016 23:59:60 GMT", seconds(2017, 1, 1)),
        ("Mon, 01 Jan 0001 00:00:00 GMT", FIRST),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LAST),
        ("Fri, 31 Dec 9999 23:59:60 GMT", LAST + 1),
    ],
)
def test_the_ends_of_the_calendar_are_read(text: str, expected: int) -> None:
    assert parse_http_date(text, now=NOW) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0",
        "784111777",
        "yesterday",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,  06 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov   6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun Nov  6 08:49:37 94",
        "1994-11-06T08:49:37Z",
        # case counts
        "sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 gmt",
        # no such moment
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 30 Feb 2000 08:49:37 GMT",
        "Thu, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sunday, 31-Feb-94 08:49:37 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Xyz 1994 08:49:37 GMT",
        # digits that are none of ASCII's, ends that are no ends, more than one
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov \uff11\uff19\uff19\uff14 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "\nSun, 06 Nov 1994 08:49:37 GMT",
        "\u00a0Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT; length=5",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 -8:49:37 GMT",
        "Sun, +6 Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_timestamp_is_none(text: str) -> None:
    assert parse_http_date(text, now=NOW) is None


@pytest.mark.parametrize(
    ("now", "date", "year"),
    [
        (seconds(2026, 1, 1), "06-Nov-94", 1994),
        (seconds(2026, 1, 1), "06-Nov-25", 2025),
        (seconds(2026, 1, 1), "06-Nov-27", 2027),
        # at most 50 years ahead is the future, a second more is the past
        (seconds(2026, 6, 15, 8, 49, 37), "15-Jun-76", 2076),
        (seconds(2026, 6, 15, 8, 49, 36), "15-Jun-76", 1976),
        (seconds(2026, 6, 15, 8, 49, 37), "16-Jun-76", 1976),
        (seconds(2026, 6, 15, 8, 49, 37), "06-Nov-77", 1977),
        # the turn of a century, from either side
        (seconds(1999, 12, 31), "01-Jan-00", 2000),
        (seconds(2000, 1, 1), "31-Dec-99", 1999),
        (seconds(2080, 1, 1), "01-Jan-10", 2110),
        (seconds(2080, 1, 1), "01-Jan-31", 2031),
        # 2100 has no such day
        (seconds(2080, 1, 1), "29-Feb-00", 2000),
        (FIRST, "01-Jan-50", 50),
        (LAST, "01-Jan-99", 9999),
    ],
)
def test_a_two_digit_year_is_at_most_fifty_years_ahead(now: int, date: str, year: int) -> None:
    parsed = parse_http_date(f"Monday, {date} 08:49:37 GMT", now=now)
    month = {"Jan": 1, "Feb": 2, "Jun": 6, "Nov": 11, "Dec": 12}[date[3:6]]
    assert parsed == int(datetime(year, month, int(date[:2]), 8, 49, 37, tzinfo=UTC).timestamp())


def test_a_two_digit_year_before_all_years_is_none() -> None:
    assert parse_http_date("Monday, 01-Jan-52 08:49:37 GMT", now=FIRST) is None


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (2**31, "Tue, 19 Jan 2038 03:14:08 GMT"),
        (FIRST, "Mon, 01 Jan 0001 00:00:00 GMT"),
        (LAST, "Fri, 31 Dec 9999 23:59:59 GMT"),
        # file systems can store these
        (FIRST - 1, "Mon, 01 Jan 0001 00:00:00 GMT"),
        (LAST + 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (-(2**63), "Mon, 01 Jan 0001 00:00:00 GMT"),
        (2**63 - 1, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ],
)
def test_a_moment_is_written_as_an_imf_fixdate(moment: int, expected: str) -> None:
    assert format_http_date(moment) == expected


@given(st.integers(FIRST, LAST))
def test_what_is_written_is_read_back(moment: int) -> None:
    assert parse_http_date(format_http_date(moment), now=NOW) == moment


@given(st.integers(0, LAST))
def test_the_standard_library_writes_the_same(moment: int) -> None:
    assert format_http_date(moment) == email.utils.formatdate(moment, usegmt=True)


@given(st.datetimes(min_value=datetime(1976, 1, 2), max_value=datetime(2075, 12, 31)))
def test_the_obsolete_forms_are_read_back(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    month = calendar.month_abbr[moment.month]
    day = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[moment.weekday()]
    rfc850 = f"{day}, {moment.day:02}-{month}-{moment.year % 100:02} {moment:%H:%M:%S} GMT"
    asctime = f"{day[:3]} {month} {moment.day:2} {moment:%H:%M:%S} {moment.year}"
    assert parse_http_date(rfc850, now=NOW) == moment.timestamp()
    assert parse_http_date(asctime, now=NOW) == moment.timestamp()


nearly = st.from_regex(r"[A-Z][a-z]{2,8},? [0-9A-Za-z \-]{2,12} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|[0-9]{4})")


@given(st.text() | nearly, st.integers(FIRST, LAST))
@example("Monday, 29-Feb-00 00:00:00 GMT", LAST)
@example("Monday, 29-Feb-00 00:00:00 GMT", FIRST)
def test_no_text_raises(text: str, now: int) -> None:
    result = parse_http_date(text, now=now)
    assert result is None or FIRST <= result <= LAST + 1


@given(st.integers())
def test_no_moment_raises(moment: int) -> None:
    assert len(format_http_date(moment)) == 29


@pytest.mark.parametrize("text", ["9" * 1_000_000, " " * 1_000_000, "Sun, " * 200_000, "Sun Nov  6 " + "0" * 1_000_000])
def test_a_million_characters_are_linear_work(text: str, lines_run: Callable[[Callable[[], object]], int]) -> None:
    # Nothing here loops over the text, and no pattern repeats without bound: the lines run are the same for any length.
    assert parse_http_date(text, now=NOW) is None
    assert lines_run(lambda: parse_http_date(text, now=NOW)) < 50


def test_the_locale_and_the_clock_are_not_asked() -> None:
    assert {"time", "locale"}.isdisjoint(vars(sys.modules["zcresponse.http.dates"]))
