"""Which coding a client would have: the examples of RFC 9110 §12.5.3, what clients send, and nonsense."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.http.negotiation import Acceptable, names_coding, negotiate_codings, parse_accept_encoding

OFFERED = ("br", "zstd", "gzip")


@pytest.mark.parametrize(
    ("text", "codings", "identity"),
    [
        # The RFC's own examples.
        ("compress, gzip", "gzip", True),
        ("", "", True),
        ("*", "br zstd gzip", True),
        ("compress;q=0.5, gzip;q=1.0", "gzip", True),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", "gzip", True),
        # What clients send.
        ("gzip, deflate, br, zstd", "br zstd gzip", True),
        ("gzip, deflate", "gzip", True),
        ("identity;q=1, *;q=0", "", True),
        ("identity", "", True),
        ("deflate", "", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "br gzip zstd", True),
        # The client's weights go first, then the server's order.
        ("gzip, br;q=0.9, zstd;q=0.9", "gzip br zstd", True),
        ("gzip;q=0.001", "gzip", True),
        ("gzip;q=0.5, identity", "", True),
        ("gzip;q=0.5, identity;q=0.6", "", True),
        ("gzip;q=0.5, identity;q=0.5", "gzip", True),
        ("gzip;q=0.5, *", "br zstd", True),
        ("*;q=0.5, gzip;q=0.1", "br zstd", True),
        ("br;q=0, *", "zstd gzip", True),
        # What must not be sent.
        ("gzip;q=0", "", True),
        ("gzip;q=0.000", "", True),
        ("identity;q=0", "", False),
        ("*;q=0", "", False),
        ("gzip, identity;q=0", "gzip", False),
        ("gzip;q=0, identity;q=0", "", False),
        ("*;q=0, gzip", "gzip", False),
        # Letters, blanks, old names.
        ("GZIP", "gzip", True),
        ("x-gzip", "gzip", True),
        ("X-GZip;Q=0.5, br;q=0.4", "gzip br", True),
        ("\tbr \t;\t q=1.0\t,\tgzip;q=0 ", "br", True),
        (",,gzip,, ,", "gzip", True),
        # Malformed elements are passed over, the others count.
        ("gzip;q=1.5, br", "br", True),
        ("gzip;q=0.1234, br", "br", True),
        ("gzip;q=-1", "", True),
        ("gzip;q=1.001", "", True),
        ("gzip;q=.5", "", True),
        ("gzip;q=", "", True),
        ("gzip;q", "", True),
        ("gzip;", "", True),
        ("gzip;level=9", "", True),
        ("gzip;q=1;q=0", "", True),
        ("gz ip, br", "br", True),
        ('"gzip"', "", True),
        ("gzip;q=\uff11", "", True),
        ("gzip;q=0 , gzip;q=0.0", "", True),
        # The last word counts.
        ("gzip;q=0, gzip", "gzip", True),
        ("gzip, x-gzip;q=0", "", True),
        ("gzip;q=1.", "gzip", True),
        ("gzip;q=0.", "", True),
    ],
)
def test_a_client_gets_what_it_would_have(text: str, codings: str, identity: bool) -> None:
    assert negotiate_codings(text, OFFERED) == Acceptable(tuple(codings.split()), identity)


def test_a_client_that_says_nothing_gets_the_plain_content() -> None:
    assert negotiate_codings(None, OFFERED) == Acceptable((), identity=True)


def test_the_order_of_the_offer_decides_between_equals() -> None:
    assert negotiate_codings("gzip, br, zstd", ("gzip", "br")).codings == ("gzip", "br")
    assert negotiate_codings("*", ("zstd", "gzip", "br")).codings == ("zstd", "gzip", "br")


def test_weights_are_told_in_thousandths() -> None:
    assert parse_accept_encoding("gzip;q=0.333, *;q=1.000, br;q=0") == {"gzip": 333, "*": 1000, "br": 0}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, False),
        ("", False),
        (" , ", False),
        ("identity", False),
        ("Identity;q=0.5, ", False),
        ("identity;q=0", False),
        ("*", True),
        ("gzip, identity", True),
        ("identity ; q=1 , BR ;q=0.1", True),
        ("gzip;q=0", True),
        ("br;q=many", True),
        ("x", True),
    ],
)
def test_any_coding_that_is_named_may_be_taken_for_a_wish(text: str | None, names: bool) -> None:
    assert names_coding(text) is names


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    found = negotiate_codings(text, OFFERED)
    assert set(found.codings) <= set(OFFERED)


@given(st.lists(st.tuples(st.sampled_from(["br", "zstd", "gzip", "identity", "*"]), st.integers(0, 1000))))
def test_nothing_is_given_that_was_refused_and_the_weights_are_kept(weights: list[tuple[str, int]]) -> None:
    said = dict(weights)
    found = negotiate_codings(", ".join(f"{name};q={weight / 1000:.3f}" for name, weight in weights), OFFERED)
    ranks = [said.get(coding, said.get("*", 0)) for coding in found.codings]
    assert ranks == sorted(ranks, reverse=True)
    assert all(rank > 0 and rank >= said.get("identity", 0) for rank in ranks)


def test_a_long_field_costs_its_length_and_no_more(lines_run: Callable[[Callable[[], object]], int]) -> None:
    def cost(count: int) -> int:
        return lines_run(lambda: negotiate_codings("gzip;q=1.5," * count, OFFERED))

    assert cost(4000) < 5 * cost(1000)
