"""What an outcome looks like: a table, a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.peers import PEERS
from tests.benchmarks.scenarios import Scenario
from zcresponse.bench.figures import Outcome
from zcresponse.bench.measure import SWITCHES, SYSCALLS
from zcresponse.bench.plots import draw_boxes, draw_lines

__all__ = ["draw", "table"]


def table(scenario: Scenario, outcome: Outcome) -> str:
    """The medians of a scenario and what they are of the others'."""
    names = outcome.names()
    spread = ("seconds",) if scenario.spread else ()
    ratios = [(name, other) for name in scenario.ratios for other in ("stock", *scenario.against)]
    headings = ["", *names, *(f"{which} of {name}" for name in spread for which in ("mean", "deviation"))]
    rows = [[*headings, *(f"{name} / {other}" for name, other in ratios)]]
    for peer, figures in outcome.figures.items():
        row = [peer, *(f"{statistics.median(figures[name]):.4g}" if name in figures else "-" for name in names)]
        for name in spread:
            summary = outcome.summary(peer, name)
            row += [f"{summary.mean:.4g}", f"{summary.deviation:.2g}"]
        for name, other in ratios:
            ratio = outcome.ratio(peer, PEERS[peer].stock if other == "stock" else other, name)
            row.append("-" if ratio is None else f"{ratio:.2f}")
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [scenario.title]
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]))
    if scenario.conclude:
        lines.append(scenario.conclude(outcome))
    return "\n".join([*lines, ""])


#: What the kernel was asked for, which is drawn beside the figures that are compared.
_KERNEL = (SWITCHES, SYSCALLS)


def draw(path: Path, scenario: Scenario, outcome: Outcome, subtitle: str) -> None:
    """Draw how the figures grow, or box plots of those that are compared.

    Context switches and system calls, as far as they were counted, have a plot of their own: `NAME-kernel.svg`.
    """
    if scenario.growth:
        growth = scenario.growth
        lines = {
            peer: {float(x): statistics.median(figures[name]) for name, x in growth.points.items() if name in figures}
            for peer, figures in outcome.figures.items()
        }
        draw_lines(path, scenario.title, (growth.label, growth.unit), growth.points, lines, subtitle)
    else:
        draw_boxes(path, scenario.title, _panels(outcome, scenario.ratios), subtitle)
    if counted := [name for name in _KERNEL if name in outcome.names()]:
        draw_boxes(path.with_stem(f"{path.stem}-kernel"), scenario.title, _panels(outcome, counted), subtitle)


def _panels(outcome: Outcome, names: Iterable[str]) -> dict[str, dict[str, list[float]]]:
    return {name: {peer: figures.get(name, []) for peer, figures in outcome.figures.items()} for name in names}
