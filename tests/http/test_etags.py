from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.http import etags
from zcresponse.http.etags import (
    ANY_ETAG,
    AnyETag,
    ETag,
    file_etag,
    parse_etag,
    parse_etag_list,
    strong_match,
    weak_match,
)

SECOND = 1_000_000_000
ETAGC = "".join(map(chr, [0x21, *range(0x23, 0x7F), *range(0x80, 0x100)]))


def test_the_module_says_what_is_public() -> None:
    assert etags.__all__ == [
        "ANY_ETAG",
        "AnyETag",
        "ETag",
        "file_etag",
        "parse_etag",
        "parse_etag_list",
        "strong_match",
        "weak_match",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # RFC 9110 §8.8.3
        ('"xyzzy"', ETag("xyzzy")),
        ('W/"xyzzy"', ETag("xyzzy", weak=True)),
        ('""', ETag("")),
        # realistic
        ('"17a2b3c4-5f"', ETag("17a2b3c4-5f")),
        ('W/"5e8-QmF0"', ETag("5e8-QmF0", weak=True)),
        (' "padded"\t', ETag("padded")),
        ('"a,b"', ETag("a,b")),
        ('"back\\slash"', ETag("back\\slash")),
        ("\"'*'\"", ETag("'*'")),
        (f'"{ETAGC}"', ETag(ETAGC)),
        # none at all
        ("", None),
        ("*", None),
        ("xyzzy", None),
        ("'xyzzy'", None),
        ('"xyzzy', None),
        ('xyzzy"', None),
        ('"', None),
        ('w/"xyzzy"', None),
        ("W/xyzzy", None),
        ('W/ "xyzzy"', None),
        ('W"xyzzy"', None),
        ('"a b"', None),
        ('"a"b"', None),
        ('"a\\"b"', None),
        ('"a", "b"', None),
        ('"a"x', None),
        ('"a\x00"', None),
        ('"a\x7f"', None),
        ('"a\r\n"', None),
        ('"a"\n', None),
        ('"\u0100"', None),
        ('"\ud800"', None),
        ("\u201ca\u201d", None),
    ],
)
def test_one_tag_is_read(text: str, expected: ETag | None) -> None:
    assert parse_etag(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # RFC 9110 §13.1.1, §13.1.2
        ('"xyzzy"', (ETag("xyzzy"),)),
        ('"xyzzy", "r2d2xxxx", "c3piozzzz"', (ETag("xyzzy"), ETag("r2d2xxxx"), ETag("c3piozzzz"))),
        (
            'W/"xyzzy", W/"r2d2xxxx", W/"c3piozzzz"',
            (ETag("xyzzy", weak=True), ETag("r2d2xxxx", weak=True), ETag("c3piozzzz", weak=True)),
        ),
        ("*", ANY_ETAG),
        # realistic
        (" * ", ANY_ETAG),
        ('"a","b"', (ETag("a"), ETag("b"))),
        ('"a"\t ,\t "b" ', (ETag("a"), ETag("b"))),
        (',, "a",, ,"b",', (ETag("a"), ETag("b"))),
        ('"a,b", "c"', (ETag("a,b"), ETag("c"))),
        ('"a", "a"', (ETag("a"), ETag("a"))),
        ('"", W/""', (ETag(""), ETag("", weak=True))),
        # members that are no tags
        ("", ()),
        (" \t", ()),
        (",,,", ()),
        ("a, b", ()),
        ('a, "b"', (ETag("b"),)),
        ('"a", b', (ETag("a"),)),
        ('"a", w/"b", "c"', (ETag("a"), ETag("c"))),
        ('"a" "b", "c"', (ETag("c"),)),
        ('"a"b, "c"', (ETag("c"),)),
        ('"a b", "c"', (ETag("c"),)),
        ('"a\x00", "c"', (ETag("c"),)),
        ('"a", "unclosed', (ETag("a"),)),
        ('"a", "b"\n', (ETag("a"),)),
        ('W/, W/"a"', (ETag("a", weak=True),)),
        # a star is one only alone
        ('*, "a"', (ETag("a"),)),
        ('"a", *', (ETag("a"),)),
        ("*, *", ()),
        ("**", ()),
        ('"*"', (ETag("*"),)),
    ],
)
def test_a_list_is_read_and_its_malformed_members_are_skipped(text: str, expected: tuple[ETag, ...] | AnyETag) -> None:
    assert parse_etag_list(text) == expected


@pytest.mark.parametrize(
    ("a", "b", "strong", "weak"),
    [
        # the table of RFC 9110 §8.8.3.2
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', '"1"', True, True),
        # and what it leaves to say
        ('"1"', 'W/"1"', False, True),
        ('"1"', '"2"', False, False),
        ('"a"', '"A"', False, False),
        ('""', '""', True, True),
    ],
)
def test_tags_are_compared_as_the_table_says(a: str, b: str, strong: bool, weak: bool) -> None:
    first, second = parse_etag(a), parse_etag(b)
    assert first is not None
    assert second is not None
    assert strong_match(first, second) is strong
    assert weak_match(first, second) is weak


@pytest.mark.parametrize("opaque", ['"', "a b", "a\r\nSet-Cookie: x", "\x00", "\t", "\x7f", "\u0100", "\ud800", "a\n"])
def test_a_tag_that_could_not_be_sent_cannot_be_made(opaque: str) -> None:
    with pytest.raises(ValueError, match="opaque"):
        ETag(opaque)


MTIME = 0x17A2_B3C4_D5E6_F708


@pytest.mark.parametrize(
    ("size", "window", "expected"),
    [
        (0x5F, None, '"17a2b3c4d5e6f708-5f"'),
        (0, None, '"17a2b3c4d5e6f708-0"'),
        (0x5F, (0, 0x5F), '"17a2b3c4d5e6f708-5f-0-5f"'),
        (0x5F, (0x10, 0x20), '"17a2b3c4d5e6f708-5f-10-20"'),
    ],
)
def test_the_tag_of_a_file_holds_time_size_and_window(size: int, window: tuple[int, int] | None, expected: str) -> None:
    assert str(file_etag(size=size, mtime_ns=MTIME, now_ns=MTIME + 10 * SECOND, window=window)) == expected


@pytest.mark.parametrize(
    ("age_ns", "weak"),
    [
        (-(10**18), True),
        (-1, True),
        (0, True),
        (2 * SECOND - 1, True),
        (2 * SECOND, False),
        (10**18, False),
    ],
)
def test_the_tag_of_a_file_is_weak_while_the_file_is_young_or_of_the_future(age_ns: int, weak: bool) -> None:
    tag = file_etag(size=1, mtime_ns=MTIME, now_ns=MTIME + age_ns)
    assert tag.weak is weak
    assert weak_match(tag, file_etag(size=1, mtime_ns=MTIME, now_ns=MTIME + 10 * SECOND))


integers = st.integers(-(2**63), 2**63)


@given(
    st.lists(
        st.tuples(st.integers(0, 2**63), integers, st.none() | st.tuples(st.integers(0, 2**63), st.integers(0, 2**63))),
        unique=True,
    )
)
def test_files_that_differ_have_tags_that_differ(files: list[tuple[int, int, tuple[int, int] | None]]) -> None:
    tags = {
        file_etag(size=size, mtime_ns=mtime_ns, now_ns=2**70, window=window).opaque for size, mtime_ns, window in files
    }
    assert len(tags) == len(files)


tags = st.builds(ETag, st.text(ETAGC), st.booleans())


@given(tags)
def test_a_tag_that_is_written_is_read_back(tag: ETag) -> None:
    assert parse_etag(str(tag)) == tag


@given(st.lists(tags, max_size=8), st.sampled_from([",", ", ", " ,", "\t,,\t, "]))
def test_a_list_that_is_written_is_read_back(members: list[ETag], separator: str) -> None:
    assert parse_etag_list(separator.join(map(str, members))) == tuple(members)


@given(tags, tags)
def test_both_comparisons_are_symmetric_and_strong_implies_weak(a: ETag, b: ETag) -> None:
    assert strong_match(a, b) is strong_match(b, a)
    assert weak_match(a, b) is weak_match(b, a)
    assert weak_match(a, b) or not strong_match(a, b)


@given(st.text() | st.text('W/"*, \ta\\\x80\u0100\n'))
def test_no_text_raises(text: str) -> None:
    tag, members = parse_etag(text), parse_etag_list(text)
    if tag is not None:
        assert members == (tag,)
    if isinstance(members, tuple):
        assert all(str(member) in text for member in members)


PATHOLOGICAL = ['"', '",', '"a,', 'W/"', '"a", ', "a,", "*,", '"a"b,', '","', '" ', '", x', '"a"  ', "W/,", " ", ","]


@pytest.mark.parametrize("unit", PATHOLOGICAL)
def test_a_long_list_is_linear_work(unit: str, lines_run: Callable[[Callable[[], object]], int]) -> None:
    once = lines_run(lambda: parse_etag_list(unit * 2_000))
    twice = lines_run(lambda: parse_etag_list(unit * 4_000))
    assert twice <= 2.1 * once + 20


@pytest.mark.parametrize("unit", PATHOLOGICAL)
def test_a_million_characters_are_read_to_their_end(unit: str) -> None:
    result = parse_etag_list(unit * (1_000_000 // len(unit)) + ',"last"')
    assert isinstance(result, tuple)
    assert result
    assert result[-1].opaque.endswith("last")
