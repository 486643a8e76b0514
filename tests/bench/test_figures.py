"""What is made of figures: tables of values, none of them measured."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.bench.figures import Outcome, Summary, crossover, run_rounds, summarize


@pytest.mark.parametrize(
    ("values", "summary"),
    [
        ([3.0], Summary(mean=3.0, deviation=0.0, median=3.0, least=3.0, most=3.0)),
        ([1.0, 3.0], Summary(mean=2.0, deviation=math.sqrt(2), median=2.0, least=1.0, most=3.0)),
        # The textbook's: the sample's deviation, whose squares are divided by one less than there are values.
        ([2, 4, 4, 4, 5, 5, 7, 9], Summary(mean=5.0, deviation=math.sqrt(32 / 7), median=4.5, least=2, most=9)),
        ([1.0, 1.0, 1.0, 97.0], Summary(mean=25.0, deviation=48.0, median=1.0, least=1.0, most=97.0)),
    ],
)
def test_values_are_summed_up(values: list[float], summary: Summary) -> None:
    assert asdict(summarize(values)) == pytest.approx(asdict(summary))


def test_no_values_have_no_summary() -> None:
    with pytest.raises(ValueError, match="there are none"):
        summarize([])


@given(st.lists(st.floats(0, 1e9), min_size=1))
def test_a_summary_lies_within_its_values(values: list[float]) -> None:
    found = summarize(values)
    slack = found.most * 1e-9
    assert found.least - slack <= found.mean <= found.most + slack
    assert found.least <= found.median <= found.most
    assert 0 <= found.deviation <= (found.most - found.least) * 1.0001 + slack


@pytest.mark.parametrize(
    ("peer", "other", "ratio"),
    [
        # 2/1, 6/2, 4/4: of each round, and not of the medians (4/2).
        ("ours", "theirs", 2.0),
        ("theirs", "ours", 0.5),
        ("ours", "ours", None),
        ("ours", "absent", None),
        ("absent", "ours", None),
        ("ours", "shorter", None),
        ("ours", "nothing", None),
        ("ours", "", None),
    ],
)
def test_ratios_are_of_the_same_round(peer: str, other: str, ratio: float | None) -> None:
    outcome = Outcome(
        {
            "ours": {"ms": [2.0, 6.0, 4.0]},
            "theirs": {"ms": [1.0, 2.0, 4.0]},
            "shorter": {"ms": [1.0]},
            "nothing": {"ms": [1.0, 0.0, 4.0]},
        }
    )
    assert outcome.ratio(peer, other, "ms") == ratio


def test_a_figure_that_was_not_measured_has_no_ratio() -> None:
    outcome = Outcome({"a": {"ms": [1.0]}, "b": {"s": [1.0]}})
    assert outcome.ratio("a", "b", "ms") is None
    assert outcome.names() == ["ms", "s"]


def test_rounds_take_turns_and_nobody_follows_the_same_neighbour_always() -> None:
    asked: list[str] = []
    told: list[tuple[int, str]] = []

    def measure(peer: str) -> dict[str, float]:
        asked.append(peer)
        return {"n": len(asked)}

    outcome = run_rounds(["a", "b", "c"], 40, measure, lambda number, peer: told.append((number, peer)))
    assert told == [(number // 3, peer) for number, peer in enumerate(asked)]
    assert all(set(asked[first : first + 3]) == {"a", "b", "c"} for first in range(0, 120, 3))
    assert set(itertools.pairwise(asked)) >= {(a, b) for a in "abc" for b in "abc" if a != b}
    for peer, figures in outcome.figures.items():
        assert [asked[int(place) - 1] for place in figures["n"]] == [peer] * 40
    again = run_rounds(["a", "b", "c"], 40, lambda peer: {"n": 0}, lambda number, peer: asked.remove(peer))
    assert (again.names(), asked) == (["n"], [])


def test_nobody_is_measured_in_no_time() -> None:
    assert run_rounds([], 3, lambda peer: {}).figures == {}


def test_what_a_measurement_raises_ends_the_rounds() -> None:
    def measure(peer: str) -> dict[str, float]:
        raise ConnectionError(peer)

    with pytest.raises(ConnectionError, match="a"):
        run_rounds(["a"], 3, measure)


def test_a_json_file_has_every_value_and_its_summary() -> None:
    outcome = Outcome({"a": {"ms": [1.0, 3.0]}})
    assert outcome.as_json() == {
        "a": {
            "ms": {
                "values": [1.0, 3.0],
                "mean": 2.0,
                "deviation": pytest.approx(math.sqrt(2)),
                "median": 2.0,
                "least": 1.0,
                "most": 3.0,
            }
        }
    }


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0}, {1: 2.0, 2: 2.0, 4: 2.0}, 2),
        ({1: 1.0, 2: 2.0, 4: 4.0}, {1: 0.5, 2: 0.5, 4: 0.5}, 1),
        ({1: 1.0, 2: 2.0, 4: 4.0}, {1: 2.0, 2: 3.0, 4: 5.0}, None),
        # Won once, and then lost again: only what holds from there on counts.
        ({1: 1.0, 2: 2.0, 4: 4.0}, {1: 0.5, 2: 3.0, 4: 1.0}, 4),
        ({}, {}, None),
    ],
)
def test_the_crossover_is_where_the_second_way_wins_for_good(
    first: dict[int, float], second: dict[int, float], size: int | None
) -> None:
    assert crossover(first, second) == size
