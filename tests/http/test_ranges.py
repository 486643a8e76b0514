from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.http import ranges
from zcresponse.http.ranges import (
    MAX_RANGES,
    ByteRange,
    NoRanges,
    RangeResult,
    format_content_range,
    format_unsatisfied_range,
    parse_range,
)

IGNORED, UNSATISFIABLE = NoRanges.IGNORED, NoRanges.UNSATISFIABLE


def test_the_module_says_what_is_public() -> None:
    assert ranges.__all__ == [
        "MAX_RANGES",
        "ByteRange",
        "NoRanges",
        "RangeResult",
        "format_content_range",
        "format_unsatisfied_range",
        "parse_range",
    ]


def pairs(result: RangeResult) -> list[tuple[int, int]] | NoRanges:
    return result if isinstance(result, NoRanges) else [(part.start, part.stop) for part in result]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # RFC 9110 §14.1.2
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(9500, 10000)]),
        ("bytes=9500-", [(9500, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 10000)]),
        ("bytes= 0-999, 4500-5499, -1000", [(0, 1000), (4500, 5500), (9000, 10000)]),
        ("bytes=500-600,601-999", [(500, 1000)]),
        ("bytes=500-700,601-999", [(500, 1000)]),
        # realistic
        ("bytes=0-", [(0, 10000)]),
        ("bytes=0-9999", [(0, 10000)]),
        ("bytes=0-10000", [(0, 10000)]),
        ("bytes=9999-", [(9999, 10000)]),
        ("bytes=-10000", [(0, 10000)]),
        ("bytes=-20000", [(0, 10000)]),
        ("bytes=5-5", [(5, 6)]),
        ("BYTES=0-1", [(0, 2)]),
        ("Bytes=0-1", [(0, 2)]),
        (" bytes=0-1\t", [(0, 2)]),
        ("bytes=0-1 ,\t4-5", [(0, 2), (4, 6)]),
        ("bytes=,0-1,, ,4-5,", [(0, 2), (4, 6)]),
        ("bytes=0000000000000000000000000-0001", [(0, 2)]),
        # as asked, not as they lie
        ("bytes=100-199,0-9", [(100, 200), (0, 10)]),
        ("bytes=-10,0-9,50-59", [(9990, 10000), (0, 10), (50, 60)]),
        # merged where the first of them stood
        ("bytes=100-199,0-9,200-299", [(100, 300), (0, 10)]),
        ("bytes=200-299,0-9,100-199", [(100, 300), (0, 10)]),
        ("bytes=0-9,20-29,5-24", [(0, 30)]),
        ("bytes=50-59,20-29,0-9,10-19", [(50, 60), (0, 30)]),
        ("bytes=0-99,10-19,50-59", [(0, 100)]),
        ("bytes=0-0,0-0,0-0", [(0, 1)]),
        ("bytes=0-9,11-19", [(0, 10), (11, 20)]),
        # satisfiable in part
        ("bytes=0-1,10000-", [(0, 2)]),
        ("bytes=10000-10001,5-6,-0", [(5, 7)]),
        # exactly as much as there is
        ("bytes=0-4999,5000-9999", [(0, 10000)]),
        ("bytes=5000-,0-4999", [(0, 10000)]),
    ],
)
def test_valid_sets_are_read_in_the_order_asked(text: str, expected: list[tuple[int, int]]) -> None:
    assert pairs(parse_range(text, 10000)) == expected


@pytest.mark.parametrize(
    "text",
    ["bytes=10000-", "bytes=10000-10000", "bytes=10001-20000", "bytes=-0", "bytes=-000", "bytes=10000-,-0, 99999-"],
)
def test_a_valid_set_without_a_byte_of_the_file_is_unsatisfiable(text: str) -> None:
    assert parse_range(text, 10000) is UNSATISFIABLE


@pytest.mark.parametrize(
    "text",
    [
        # other units
        "",
        "bytes",
        "0-1",
        "=0-1",
        "items=0-1",
        "seconds=0-1",
        "byte=0-1",
        "bytess=0-1",
        "bytes =0-1",
        "bytes:0-1",
        "b\u0443tes=0-1",
        # no member at all
        "bytes=",
        "bytes= ",
        "bytes=,",
        "bytes=, \t,,",
        # malformed members
        "bytes=-",
        "bytes=--",
        "bytes=--1",
        "bytes=1",
        "bytes=abc",
        "bytes=a-b",
        "bytes=1-b",
        "bytes=0x0-0x1",
        "bytes=5-3",
        "bytes=500-3",
        "bytes=20000-10000",
        "bytes=0-1-2",
        "bytes=0--1",
        "bytes=+0-1",
        "bytes=0-+1",
        "bytes=0.0-1.0",
        "bytes=1e3-",
        "bytes=1_0-2_0",
        "bytes=0 -1",
        "bytes=0- 1",
        "bytes=0-1 2-3",
        "bytes=0-1;2-3",
        "bytes=0-1/2",
        "bytes=*",
        "bytes=0-*",
        "bytes==0-1",
        "bytes=bytes=0-1",
        "bytes=\u0660-\u0661",
        "bytes=\u00b2-\u00b3",
        "bytes=\uff10-\uff11",
        "bytes=0\u22121",
        "bytes=0-1\x00",
        "bytes=0-1\n",
        "bytes=\x0b0-1",
        "bytes=\u00a00-1",
        # one malformed member spoils the set
        "bytes=0-1,x",
        "bytes=x,0-1",
        "bytes=0-1,5-3",
        "bytes=0-1,-",
        "bytes=10000-,5-3",
    ],
)
def test_other_units_and_malformed_sets_are_ignored(text: str) -> None:
    assert parse_range(text, 10000) is IGNORED
    assert parse_range(text, 0) is IGNORED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=-1", IGNORED),
        ("bytes=-5", IGNORED),
        ("bytes=-" + "9" * 5000, IGNORED),
        ("bytes=0-,-5", IGNORED),
        ("bytes=-5,0-", IGNORED),
        ("bytes=-5,x", IGNORED),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=0-", UNSATISFIABLE),
        ("bytes=0-0", UNSATISFIABLE),
        ("bytes=0-5,7-", UNSATISFIABLE),
        ("bytes=5-3", IGNORED),
    ],
)
def test_of_an_empty_file_a_suffix_is_ignored_and_the_rest_unsatisfiable(text: str, expected: NoRanges) -> None:
    assert parse_range(text, 0) is expected


HUGE = "9" * 20_000
HUGER = "1" + "0" * 20_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"bytes=0-{HUGE}", [(0, 10)]),
        (f"bytes=3-{HUGE}", [(3, 10)]),
        (f"bytes=-{HUGE}", [(0, 10)]),
        (f"bytes={HUGE}-", UNSATISFIABLE),
        (f"bytes={HUGE}-{HUGER}", UNSATISFIABLE),
        (f"bytes={HUGE}-{HUGE}", UNSATISFIABLE),
        (f"bytes={HUGER}-{HUGE}", IGNORED),
        (f"bytes={HUGE}-0", IGNORED),
        (f"bytes={HUGE}-000{HUGE}", UNSATISFIABLE),
        (f"bytes=000{HUGE}-{HUGE}", UNSATISFIABLE),
        ("bytes=" + "0" * 20_000 + "3-" + "0" * 30_000 + "4", [(3, 5)]),
        ("bytes=-" + "0" * 20_000, UNSATISFIABLE),
        (f"bytes=0-{2**63 - 1}", [(0, 10)]),
        (f"bytes=0-{2**64}", [(0, 10)]),
        (f"bytes={2**64}-", UNSATISFIABLE),
    ],
)
def test_numbers_have_no_largest_one(text: str, expected: list[tuple[int, int]] | NoRanges) -> None:
    assert pairs(parse_range(text, 10)) == expected


def test_large_files_are_as_good_as_small_ones() -> None:
    size = 2**62
    assert pairs(parse_range(f"bytes={size - 2}-,0-0", size)) == [(size - 2, size), (0, 1)]


def asked(count: int, size: int = 10_000) -> RangeResult:
    return parse_range("bytes=" + ",".join(f"{2 * index}-{2 * index}" for index in range(count)), size)


def test_a_hundred_ranges_are_served_and_one_more_is_not() -> None:
    assert MAX_RANGES == 100
    assert pairs(asked(100)) == [(2 * index, 2 * index + 1) for index in range(100)]
    assert asked(101) is IGNORED
    assert asked(10_000) is IGNORED


def test_the_number_of_ranges_is_limited_before_they_are_dropped_or_merged() -> None:
    assert asked(101, size=1) is IGNORED
    assert asked(101, size=0) is IGNORED
    assert parse_range("bytes=" + ",".join(["0-0"] * 101), 1000) is IGNORED


def test_empty_members_do_not_count() -> None:
    assert pairs(parse_range("bytes=" + "," * 1000 + "0-1" + ", " * 1000, 10)) == [(0, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "bytes=0-,0-",
        "bytes=0-,-1",
        "bytes=0-5,5-9",
        "bytes=0-9,0-0",
        "bytes=-10,-1",
        "bytes=-6,0-4",
        "bytes=0-,20-,5-6",
    ],
)
def test_more_bytes_than_the_file_has_is_the_whole_file(text: str) -> None:
    assert parse_range(text, 10) is IGNORED


def test_what_cannot_be_satisfied_does_not_count_as_bytes() -> None:
    assert pairs(parse_range("bytes=0-,10-99999", 10)) == [(0, 10)]


@pytest.mark.parametrize("size", [-1, -(2**63)])
def test_a_negative_size_is_the_callers_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_range("bytes=0-1", size)
    with pytest.raises(ValueError, match="size"):
        format_unsatisfied_range(size)


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (5, 4), (-1, 4), (-2, -1)])
def test_a_range_is_never_empty_or_before_the_file(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="start"):
        ByteRange(start, stop)


def test_a_range_knows_its_length() -> None:
    assert ByteRange(3, 10).count == 7


@pytest.mark.parametrize(
    ("start", "stop", "size", "expected"),
    [
        # RFC 9110 §14.4
        (42, 1234, 1234, "bytes 42-1233/1234"),
        (0, 500, 1234, "bytes 0-499/1234"),
        (500, 1000, 1234, "bytes 500-999/1234"),
        (500, 1234, 1234, "bytes 500-1233/1234"),
        (734, 1234, 1234, "bytes 734-1233/1234"),
        (0, 1, 1, "bytes 0-0/1"),
        (0, 2**62, 2**62, f"bytes 0-{2**62 - 1}/{2**62}"),
    ],
)
def test_content_range_names_the_last_byte(start: int, stop: int, size: int, expected: str) -> None:
    assert format_content_range(ByteRange(start, stop), size) == expected


@pytest.mark.parametrize("size", [0, 9, -1])
def test_a_content_range_beyond_the_file_is_the_callers_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="r must"):
        format_content_range(ByteRange(0, 10), size)


@pytest.mark.parametrize(("size", "expected"), [(1234, "bytes */1234"), (0, "bytes */0")])
def test_the_content_range_of_a_miss_tells_the_size(size: int, expected: str) -> None:
    assert format_unsatisfied_range(size) == expected


def slow_parse_range(text: str, size: int) -> list[tuple[int, int]] | NoRanges:
    """Say the same by lists of single bytes."""
    head = re.fullmatch(r"[ \t]*[bB][yY][tT][eE][sS]=(.*)", text, re.DOTALL)
    if head is None:
        return IGNORED
    members = [member.strip(" \t") for member in head[1].split(",")]
    members = [member for member in members if member]
    if not members or len(members) > 100:
        return IGNORED
    wanted: list[list[int]] = []
    suffix_of_nothing = False
    for member in members:
        if suffix := re.fullmatch("-([0-9]+)", member):
            wanted.append([position for position in range(size) if position >= size - int(suffix[1])])
            suffix_of_nothing |= size == 0 and int(suffix[1]) > 0
        elif interval := re.fullmatch("([0-9]+)-([0-9]*)", member):
            first = int(interval[1])
            last = int(interval[2]) if interval[2] else max(first, size)
            if last < first:
                return IGNORED
            wanted.append([position for position in range(size) if first <= position <= last])
        else:
            return IGNORED
    if suffix_of_nothing or sum(map(len, wanted)) > size:
        return IGNORED
    if not any(wanted):
        return UNSATISFIABLE
    covered = {position for positions in wanted for position in positions}
    answer = []
    seen: set[int] = set()
    for positions in wanted:
        if positions and positions[0] not in seen:
            start = stop = positions[0]
            while start - 1 in covered:
                start -= 1
            while stop in covered:
                stop += 1
            seen.update(range(start, stop))
            answer.append((start, stop))
    return answer


numbers = st.integers(0, 60).map(str) | st.from_regex("0{0,3}[0-9]{1,3}", fullmatch=True)
valid_members = (
    st.tuples(st.integers(0, 60), st.integers(0, 10)).map(lambda pair: f"{pair[0]}-{sum(pair)}")
    | numbers.map("-{}".format)
    | numbers.map("{}-".format)
    | st.sampled_from(["", " "])
)
any_members = valid_members | st.tuples(numbers, numbers).map("-".join) | st.text("0123456789- \tx", max_size=6)
fields = (
    st.lists(valid_members, max_size=8).map(lambda members: "bytes=" + ",".join(members))
    | st.lists(any_members, max_size=6).map(lambda members: "Bytes=" + " ,\t".join(members))
    | st.text("bytes=0123456789-, \t", max_size=30)
    | st.text()
)


@given(fields, st.integers(0, 60) | st.integers(0, 3))
def test_a_slow_reading_byte_by_byte_agrees(text: str, size: int) -> None:
    assert pairs(parse_range(text, size)) == slow_parse_range(text, size)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 5)), min_size=1, max_size=110), st.integers(0, 2000))
def test_a_slow_reading_agrees_on_many_ranges(members: list[tuple[int, int]], size: int) -> None:
    text = "bytes=" + ",".join(f"{first}-{first + more}" for first, more in members)
    assert pairs(parse_range(text, size)) == slow_parse_range(text, size)


@given(fields, st.integers(0, 2**63))
def test_ranges_are_disjoint_inside_the_file_and_do_not_touch(text: str, size: int) -> None:
    result = parse_range(text, size)
    if isinstance(result, NoRanges):
        return
    assert result
    in_place = sorted(result, key=lambda part: part.start)
    assert in_place[-1].stop <= size
    assert all(left.stop < right.start for left, right in itertools.pairwise(in_place))


@given(st.integers(0, 2**63), st.integers(1, 2**63), st.integers(0, 2**63))
def test_a_content_range_asks_for_itself(start: int, count: int, more: int) -> None:
    part = ByteRange(start, start + count)
    size = part.stop + more
    interval, _, total = format_content_range(part, size).removeprefix("bytes ").partition("/")
    assert int(total) == size
    assert parse_range(f"bytes={interval}", size) == (part,)


PATHOLOGICAL = ["9", "0", ",", " ", "-", "0-0,", "0-,", "-1,", "x,", ", ,", "=", "0-0 ,"]


@pytest.mark.parametrize("unit", PATHOLOGICAL)
def test_a_long_field_is_linear_work(unit: str, lines_run: Callable[[Callable[[], object]], int]) -> None:
    once = lines_run(lambda: parse_range("bytes=" + unit * 2_000, 10))
    twice = lines_run(lambda: parse_range("bytes=" + unit * 4_000, 10))
    assert twice <= 2.1 * once + 20


@pytest.mark.parametrize(
    ("unit", "start", "expected"),
    [
        ("9", "bytes=", IGNORED),
        ("9", "bytes=-", [(0, 10)]),
        ("9", "bytes=3-", [(3, 10)]),
        ("0", "bytes=-", UNSATISFIABLE),
        ("0", "bytes=0-", [(0, 1)]),
        (",", "bytes=", IGNORED),
        (",", "bytes=0-1", [(0, 2)]),
        (" ", "bytes=", IGNORED),
        (" ", "bytes=0-1", [(0, 2)]),
        (", ", "bytes=0-1", [(0, 2)]),
        ("-", "bytes=", IGNORED),
        ("0-0,", "bytes=", IGNORED),
        ("bytes=0-0,", "", IGNORED),
        ("x", "", IGNORED),
    ],
)
def test_a_million_characters_are_read(unit: str, start: str, expected: list[tuple[int, int]] | NoRanges) -> None:
    # Converting a numeral of this length would raise; comparing members with one another would not come to an end.
    assert pairs(parse_range(start + unit * (1_000_000 // len(unit)), 10)) == expected
