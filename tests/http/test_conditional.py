from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.http import conditional
from zcresponse.http.conditional import Verdict, evaluate_preconditions, range_applies
from zcresponse.http.dates import format_http_date
from zcresponse.http.etags import ETag
from zcresponse.http.request import RequestHead

MODIFIED = 784_111_777
SAME = "Sun, 06 Nov 1994 08:49:37 GMT"
SAME_RFC850 = "Sunday, 06-Nov-94 08:49:37 GMT"
SAME_ASCTIME = "Sun Nov  6 08:49:37 1994"
EARLIER = "Sun, 06 Nov 1994 08:49:36 GMT"
LATER = "Sun, 06 Nov 1994 08:49:38 GMT"
NOW = 1_767_225_600
TAG = ETag("xyzzy")
WEAK = ETag("xyzzy", weak=True)
SEND, NOT_MODIFIED, FAILED = Verdict.SEND, Verdict.NOT_MODIFIED, Verdict.PRECONDITION_FAILED


def test_the_module_says_what_is_public() -> None:
    assert conditional.__all__ == ["Verdict", "evaluate_preconditions", "range_applies"]


def judge(
    method: str = "GET", *, etag: ETag | None = TAG, last_modified: int | None = MODIFIED, **fields: str
) -> Verdict:
    head = RequestHead(method, **fields)
    return evaluate_preconditions(head, etag=etag, last_modified=last_modified, now=NOW)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_request_without_conditions_is_answered(method: str) -> None:
    assert judge(method, range="bytes=0-1", if_range='"other"', accept_encoding="gzip") is SEND


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("field", "etag", "expected"),
    [
        # RFC 9110 §13.1.1
        ('"xyzzy"', TAG, SEND),
        ('"xyzzy", "r2d2xxxx", "c3piozzzz"', TAG, SEND),
        ("*", TAG, SEND),
        ('"r2d2xxxx"', TAG, FAILED),
        # the strong comparison
        ('W/"xyzzy"', TAG, FAILED),
        ('"xyzzy"', WEAK, FAILED),
        ('W/"xyzzy"', WEAK, FAILED),
        ('W/"xyzzy", "xyzzy"', TAG, SEND),
        # a representation without a tag exists but equals none
        ("*", None, SEND),
        ('"xyzzy"', None, FAILED),
        # nothing readable: no listed tag matches
        ("", TAG, FAILED),
        ("xyzzy", TAG, FAILED),
        ('*, "other"', TAG, FAILED),
        ('xyzzy, "xyzzy"', TAG, SEND),
    ],
)
def test_if_match_asks_for_one_of_the_tags(method: str, field: str, etag: ETag | None, expected: Verdict) -> None:
    assert judge(method, etag=etag, if_match=field) is expected


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("field", "etag", "expected"),
    [
        # RFC 9110 §13.1.2
        ('"xyzzy"', TAG, NOT_MODIFIED),
        ('W/"xyzzy"', TAG, NOT_MODIFIED),
        ('"xyzzy", "r2d2xxxx", "c3piozzzz"', TAG, NOT_MODIFIED),
        ('W/"xyzzy", W/"r2d2xxxx", W/"c3piozzzz"', TAG, NOT_MODIFIED),
        ("*", TAG, NOT_MODIFIED),
        ('"r2d2xxxx"', TAG, SEND),
        # the weak comparison
        ('"xyzzy"', WEAK, NOT_MODIFIED),
        ('W/"xyzzy"', WEAK, NOT_MODIFIED),
        ('"XYZZY"', TAG, SEND),
        ("*", None, NOT_MODIFIED),
        ('"xyzzy"', None, SEND),
        ("", TAG, SEND),
        ("xyzzy", TAG, SEND),
        ('*, "other"', TAG, SEND),
        ('xyzzy, "xyzzy"', TAG, NOT_MODIFIED),
    ],
)
def test_if_none_match_asks_for_none_of_the_tags(method: str, field: str, etag: ETag | None, expected: Verdict) -> None:
    assert judge(method, etag=etag, if_none_match=field) is expected


UNREADABLE = [
    "",
    "0",
    "yesterday",
    "Sun, 06 Nov 1994 08:49:36",
    f"{EARLIER}, {EARLIER}",
    "Sun, 31 Nov 1994 08:49:36 GMT",
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (SAME, NOT_MODIFIED),
        (SAME_RFC850, NOT_MODIFIED),
        (SAME_ASCTIME, NOT_MODIFIED),
        (LATER, NOT_MODIFIED),
        ("Fri, 31 Dec 9999 23:59:59 GMT", NOT_MODIFIED),
        (EARLIER, SEND),
        *((text, SEND) for text in UNREADABLE),
    ],
)
def test_if_modified_since_asks_for_a_later_modification(method: str, field: str, expected: Verdict) -> None:
    assert judge(method, if_modified_since=field) is expected


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (SAME, SEND),
        (SAME_RFC850, SEND),
        (SAME_ASCTIME, SEND),
        (LATER, SEND),
        (EARLIER, FAILED),
        ("Sunday, 06-Nov-93 08:49:37 GMT", FAILED),
        *((text, SEND) for text in UNREADABLE),
    ],
)
def test_if_unmodified_since_asks_for_no_later_modification(method: str, field: str, expected: Verdict) -> None:
    assert judge(method, if_unmodified_since=field) is expected


@pytest.mark.parametrize("date", [EARLIER, SAME, LATER])
def test_without_a_modification_date_dates_are_ignored(date: str) -> None:
    assert judge(last_modified=None, if_modified_since=date) is SEND
    assert judge(last_modified=None, if_unmodified_since=date) is SEND


def test_if_match_takes_precedence_over_if_unmodified_since() -> None:
    assert judge(if_match='"xyzzy"', if_unmodified_since=EARLIER) is SEND
    assert judge(if_match='"other"', if_unmodified_since=LATER) is FAILED


def test_if_none_match_takes_precedence_over_if_modified_since() -> None:
    assert judge(if_none_match='"other"', if_modified_since=LATER) is SEND
    assert judge(if_none_match='"xyzzy"', if_modified_since=EARLIER) is NOT_MODIFIED


def test_an_unreadable_if_none_match_still_hides_if_modified_since() -> None:
    assert judge(if_none_match="unreadable", if_modified_since=LATER) is SEND


def test_a_failed_precondition_comes_before_not_modified() -> None:
    assert judge(if_match='"other"', if_none_match='"xyzzy"') is FAILED
    assert judge(if_unmodified_since=EARLIER, if_modified_since=LATER) is FAILED


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", ""])
def test_other_methods_have_no_preconditions(method: str) -> None:
    assert judge(method, if_match='"other"', if_none_match="*", if_modified_since=LATER) is SEND


@pytest.mark.parametrize(
    ("match", "unmodified", "none_match", "modified"), [*itertools.product([None, True, False], repeat=4)]
)
def test_the_steps_are_taken_in_the_order_of_the_rfc(
    match: bool | None, unmodified: bool | None, none_match: bool | None, modified: bool | None
) -> None:
    """Each argument says whether that field is absent, or what its condition comes to."""
    head = RequestHead(
        "GET",
        if_match={None: None, True: '"xyzzy"', False: '"other"'}[match],
        if_unmodified_since={None: None, True: SAME, False: EARLIER}[unmodified],
        if_none_match={None: None, True: '"other"', False: '"xyzzy"'}[none_match],
        if_modified_since={None: None, True: EARLIER, False: SAME}[modified],
    )
    if match is False or (match is None and unmodified is False):  # steps 1 and 2
        expected = FAILED
    elif none_match is False or (none_match is None and modified is False):  # steps 3 and 4
        expected = NOT_MODIFIED
    else:
        expected = SEND
    assert evaluate_preconditions(head, etag=TAG, last_modified=MODIFIED, now=NOW) is expected


def applies(
    if_range: str | None,
    *,
    method: str = "GET",
    etag: ETag | None = TAG,
    last_modified: int | None = MODIFIED,
    now: int = NOW,
) -> bool:
    head = RequestHead(method, range="bytes=0-1", if_range=if_range)
    return range_applies(head, etag=etag, last_modified=last_modified, now=now)


@pytest.mark.parametrize(
    ("if_range", "etag", "expected"),
    [
        (None, TAG, True),
        (None, None, True),
        ('"xyzzy"', TAG, True),
        (' "xyzzy"\t', TAG, True),
        ('"other"', TAG, False),
        # RFC 9110 §13.1.5: the strong comparison
        ('W/"xyzzy"', TAG, False),
        ('"xyzzy"', WEAK, False),
        ('W/"xyzzy"', WEAK, False),
        ('"xyzzy"', None, False),
        # one validator, not a list and not a star
        ('"xyzzy", "other"', TAG, False),
        ("*", TAG, False),
        ('"xyzzy', TAG, False),
        ("xyzzy", TAG, False),
        ("", TAG, False),
    ],
)
def test_an_if_range_tag_must_be_the_strong_tag(if_range: str | None, etag: ETag | None, expected: bool) -> None:
    assert applies(if_range, etag=etag) is expected


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [
        (SAME, True),
        (SAME_RFC850, True),
        (SAME_ASCTIME, True),
        (f" {SAME} ", True),
        # exactly, not "no later than"
        (EARLIER, False),
        (LATER, False),
        ("Fri, 31 Dec 9999 23:59:59 GMT", False),
        *((text, False) for text in UNREADABLE),
    ],
)
def test_an_if_range_date_must_be_exactly_last_modified(if_range: str, expected: bool) -> None:
    assert applies(if_range) is expected


@pytest.mark.parametrize(("age", "expected"), [(-1, False), (0, False), (1, False), (2, True), (3, True)])
def test_an_if_range_date_is_a_strong_validator_only_after_two_seconds(age: int, expected: bool) -> None:
    assert applies(SAME, now=MODIFIED + age) is expected


def test_an_if_range_date_needs_a_modification_date() -> None:
    assert not applies(SAME, last_modified=None)


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "get", ""])
def test_ranges_are_for_get_only(method: str) -> None:
    assert not applies(None, method=method)
    assert not applies('"xyzzy"', method=method)


@pytest.mark.parametrize("if_range", [None, '"xyzzy"', SAME])
def test_without_range_there_is_nothing_to_apply(if_range: str | None) -> None:
    assert not range_applies(RequestHead("GET", if_range=if_range), etag=TAG, last_modified=MODIFIED, now=NOW)


field_values = st.none() | st.text() | st.sampled_from(["*", '"xyzzy"', 'W/"xyzzy"', SAME, EARLIER, LATER, '"'])
heads = st.builds(
    RequestHead,
    st.sampled_from(["GET", "HEAD", "POST"]),
    range=field_values,
    if_range=field_values,
    if_match=field_values,
    if_none_match=field_values,
    if_modified_since=field_values,
    if_unmodified_since=field_values,
)


@given(heads, st.sampled_from([None, TAG, WEAK]), st.none() | st.integers(), st.integers())
def test_no_request_raises(head: RequestHead, etag: ETag | None, last_modified: int | None, now: int) -> None:
    verdict = evaluate_preconditions(head, etag=etag, last_modified=last_modified, now=now)
    applied = range_applies(head, etag=etag, last_modified=last_modified, now=now)
    if head.method == "POST":
        assert verdict is SEND
    assert not applied or (head.method == "GET" and head.range is not None)


@given(st.integers(0, 253_402_300_799), st.booleans())
def test_a_client_that_echoes_the_validators_is_not_sent_the_same_again(last_modified: int, weak: bool) -> None:
    etag = ETag("xyzzy", weak)
    echoed = RequestHead("GET", if_none_match=str(etag), if_modified_since=format_http_date(last_modified))
    assert evaluate_preconditions(echoed, etag=etag, last_modified=last_modified, now=NOW) is NOT_MODIFIED
    dated = RequestHead("GET", if_modified_since=format_http_date(last_modified))
    assert evaluate_preconditions(dated, etag=None, last_modified=last_modified, now=NOW) is NOT_MODIFIED
