"""Figures of rounds, and what is made of them. Values in and out; nothing is measured here."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["GIB", "KIB", "MIB", "Figures", "Outcome", "Summary", "crossover", "run_rounds", "summarize"]

KIB, MIB, GIB = 1024, 1024**2, 1024**3

#: One measurement: figures by their names.
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a figure's values in all rounds come to.

    Attributes:
        mean, median, least, most: Of the values, in their unit.
        deviation: The sample's standard deviation; 0.0 of a single value.
    """

    mean: float
    deviation: float
    median: float
    least: float
    most: float


def summarize(values: Sequence[float]) -> Summary:
    """Sum up a figure's values.

    Raises:
        ValueError: There are none.
    """
    if not values:
        raise ValueError("values: there are none")
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Summary(statistics.fmean(values), deviation, statistics.median(values), min(values), max(values))


@dataclass(slots=True)
class Outcome:
    """What rounds have measured.

    Attributes:
        figures: By peer and name, one value for each round.
    """

    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, peer: str, figures: Mapping[str, float]) -> None:
        """Put a round's figures of one peer behind those of the rounds before."""
        for name, value in figures.items():
            self.figures.setdefault(peer, {}).setdefault(name, []).append(value)

    def names(self) -> list[str]:
        """The names of the figures, in the order in which they were first measured."""
        return list(dict.fromkeys(name for figures in self.figures.values() for name in figures))

    def summary(self, peer: str, name: str) -> Summary:
        """Sum up one peer's figure.

        Raises:
            KeyError: It was not measured.
        """
        return summarize(self.figures[peer][name])

    def ratio(self, peer: str, other: str, name: str) -> float | None:
        """The median over the rounds of one peer's figure divided by the other's in the same round.

        None where that says nothing: of a peer and itself, of what was not measured, or by 0.
        """
        if peer == other:
            return None
        own, others = (self.figures.get(each, {}).get(name, []) for each in (peer, other))
        if not own or len(own) != len(others) or min(others) <= 0:
            return None
        return statistics.median(a / b for a, b in zip(own, others, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Every value, and the summary of each figure, for a JSON file."""
        return {
            peer: {name: {"values": values, **asdict(summarize(values))} for name, values in figures.items()}
            for peer, figures in self.figures.items()
        }


def run_rounds(
    peers: Sequence[str],
    rounds: int,
    measure: Callable[[str], Mapping[str, float]],
    on_progress: Callable[[int, str], object] = lambda number, peer: None,
) -> Outcome:
    """Measure peers in turn, each once in every round, so that what changes on the machine meets them all.

    Args:
        peers: Their names. Each round has an order of its own, the same in every run, so that none always follows the
            same neighbour.
        rounds: How many.
        measure: One measurement of one peer. What it raises ends the rounds.
        on_progress: Called before each measurement with the number of the round, from 0, and the peer's name.
    """
    outcome = Outcome({peer: {} for peer in peers})
    for number in range(rounds):
        for peer in random.Random(number).sample(peers, len(peers)):
            on_progress(number, peer)
            outcome.add(peer, measure(peer))
    return outcome


def crossover(first: Mapping[int, float], second: Mapping[int, float]) -> int | None:
    """The size from which on the second way takes no longer than the first, at every size that was measured.

    Args:
        first, second: What each way takes, by size in bytes; of the same sizes.

    Returns:
        The size in bytes, or None when the first way is the faster one even at the largest.
    """
    found = None
    for size in sorted(first, reverse=True):
        if second[size] > first[size]:
            break
        found = size
    return found
