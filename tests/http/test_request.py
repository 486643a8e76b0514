from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.http import request
from zcresponse.http.request import RequestHead

FIELDS = {
    "Range": "range",
    "If-Range": "if_range",
    "If-Match": "if_match",
    "If-None-Match": "if_none_match",
    "If-Modified-Since": "if_modified_since",
    "If-Unmodified-Since": "if_unmodified_since",
    "Accept-Encoding": "accept_encoding",
}
ABSENT: dict[str, str | None] = dict.fromkeys(FIELDS.values())


def both(method: str, fields: list[tuple[str, str]]) -> RequestHead:
    """Read the fields as text and as bytes, and insist on one answer."""
    head = RequestHead.from_fields(method, fields)
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    assert RequestHead.from_raw_fields(method, raw) == head
    return head


def values(head: RequestHead) -> dict[str, str | None]:
    everything = dataclasses.asdict(head)
    del everything["method"], everything["is_plain"]
    return everything


def test_the_module_says_what_is_public() -> None:
    assert request.__all__ == ["RequestHead"]


def test_every_field_of_interest_is_found_among_others() -> None:
    fields = [("host", "example.org"), *((name.lower(), f"value of {name}") for name in FIELDS), ("cookie", "a=b")]
    head = both("GET", fields)
    assert head.method == "GET"
    assert values(head) == {attribute: f"value of {name}" for name, attribute in FIELDS.items()}


@pytest.mark.parametrize(("name", "attribute"), FIELDS.items())
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title, str.swapcase])
def test_names_are_found_in_any_case(name: str, attribute: str, spell: Callable[[str], str]) -> None:
    assert values(both("GET", [(spell(name), "x")])) == {**ABSENT, attribute: "x"}


@pytest.mark.parametrize("fields", [[], [("host", "example.org"), ("ranges", "x"), ("x-range", "x"), ("", "x")]])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "get", ""])
def test_absent_fields_are_none(method: str, fields: list[tuple[str, str]]) -> None:
    head = both(method, fields)
    assert head.method == method
    assert values(head) == ABSENT


@pytest.mark.parametrize(("name", "attribute"), FIELDS.items())
def test_an_empty_value_is_not_an_absent_one(name: str, attribute: str) -> None:
    assert values(both("GET", [(name, "")])) == {**ABSENT, attribute: ""}


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match", "Accept-Encoding"])
def test_lists_on_several_lines_are_one_list_in_the_order_sent(name: str) -> None:
    head = both("GET", [(name, "a"), ("host", "x"), (name.lower(), ""), (name.upper(), "b, c")])
    assert values(head) == {**ABSENT, FIELDS[name]: "a, , b, c"}


@pytest.mark.parametrize("name", ["Range", "If-Modified-Since", "If-Unmodified-Since"])
@pytest.mark.parametrize("lines", [2, 3])
def test_what_is_no_list_and_comes_twice_is_as_if_absent(name: str, lines: int) -> None:
    assert values(both("GET", [(name, "same")] * lines)) == ABSENT


@pytest.mark.parametrize("lines", [2, 3])
def test_if_range_on_several_lines_is_a_validator_that_nothing_equals(lines: int) -> None:
    head = both("GET", [("range", "bytes=0-1"), *[("if-range", '"a"')] * lines])
    assert (head.range, head.if_range) == ("bytes=0-1", "")


def test_bytes_beyond_ascii_keep_their_value() -> None:
    assert RequestHead.from_raw_fields("GET", [(b"if-match", bytes(range(256)))]).if_match == bytes(range(256)).decode(
        "latin-1"
    )


@pytest.mark.parametrize("encodings", ["gzip", "x" * 10_000])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_bare_request_reads_the_same_each_time(method: str, encodings: str) -> None:
    for _ in range(3):
        assert both(method, [("accept-encoding", encodings)]) == RequestHead(method, accept_encoding=encodings)


def test_what_a_peer_can_make_the_process_remember_is_bounded() -> None:
    for number in range(1000):
        RequestHead.from_raw_fields("GET", [(b"accept-encoding", b"%d" % number)])
        RequestHead.from_raw_fields(f"METHOD{number}", [])
    assert request._bare_head.cache_info().currsize <= 256


def test_fields_can_be_any_iterable() -> None:
    assert RequestHead.from_fields("GET", iter([("range", "x")])).range == "x"
    assert RequestHead.from_raw_fields("GET", iter([(b"range", b"x")])).range == "x"


def test_a_head_is_a_value() -> None:
    head = RequestHead("GET", range="bytes=0-1")
    assert head == RequestHead("GET", range="bytes=0-1")
    assert len({head, RequestHead("GET", range="bytes=0-1")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        head.range = None  # type: ignore[misc]


def test_many_lines_of_one_list_are_linear_work(lines_run: Callable[[Callable[[], object]], int]) -> None:
    lines = [(b"if-none-match", b'"a"')] * 20_000
    once = lines_run(lambda: RequestHead.from_raw_fields("GET", lines[:10_000]))
    twice = lines_run(lambda: RequestHead.from_raw_fields("GET", lines))
    assert twice < 2.1 * once
    head = RequestHead.from_raw_fields("GET", lines * 10)
    assert head.if_none_match is not None
    assert head.if_none_match.count('"a"') == 200_000


names = st.sampled_from([*FIELDS, *(name.upper() for name in FIELDS), "host", "x"]) | st.text(
    st.characters(max_codepoint=255)
)


@given(st.text(), st.lists(st.tuples(names, st.text(st.characters(max_codepoint=255)))))
def test_text_and_bytes_give_one_answer_whatever_is_sent(method: str, fields: list[tuple[str, str]]) -> None:
    head = both(method, fields)
    for name, attribute in FIELDS.items():
        sent = [value for other, value in fields if other.lower() == name.lower()]
        if len(sent) < 2:
            assert getattr(head, attribute) == (sent[0] if sent else None)
