"""Plots, by matplotlib: without its global state, so that neither a display nor a setting of the user's matters."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from zcresponse.bench.output import write_whole

__all__ = ["FORMATS", "draw_boxes", "draw_lines"]

#: What a plot's file may be called, by its end.
FORMATS: Final = (".png", ".svg", ".pdf")

_WIDTH_IN: Final = 6.0
_DOTS_PER_IN: Final = 130


def draw_boxes(path: Path, title: str, panels: Mapping[str, Mapping[str, Sequence[float]]], subtitle: str = "") -> None:
    """Draw box plots: a panel for each figure, a row for each peer.

    A box has the middle half of the values with a line at the median; the whiskers reach as far as 1.5 times the box,
    and what lies beyond is drawn by itself.

    Args:
        path: The file; its suffix, one of `FORMATS`, says which format.
        title, subtitle: Above all panels.
        panels: By figure and peer, the values of all rounds.

    Raises:
        OSError: It cannot be written.
    """
    rows = max(map(len, panels.values()))
    figure = _figure(title, subtitle, len(panels), 0.35 * rows + 1.8)
    for number, (name, values) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        # The first on top; every panel has the same peers.
        axes.boxplot(
            list(values.values())[::-1],
            tick_labels=list(values)[::-1] if number == 1 else [""] * len(values),
            orientation="horizontal",
            widths=0.6,
            flierprops={"markersize": 3},
        )
        axes.set_xlim(left=0)
        axes.set_xlabel(name)
        axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def draw_lines(
    path: Path,
    title: str,
    labels: tuple[str, str],
    ticks: Mapping[str, float],
    lines: Mapping[str, Mapping[float, float]],
    subtitle: str = "",
) -> None:
    """Draw how a figure grows, on logarithmic scales.

    Args:
        path, title, subtitle: As for `draw_boxes`.
        labels: Of the two axes.
        ticks: What is written at the first axis, and where.
        lines: By peer, the values by what they depend on. What is not above 0 has no place on such a scale.

    Raises:
        OSError: It cannot be written.
    """
    figure = _figure(title, subtitle, 1, 5.0)
    axes = figure.add_subplot()
    for name, points in lines.items():
        shown = [(x, y) for x, y in points.items() if x > 0 and y > 0]
        axes.plot([x for x, _ in shown], [y for _, y in shown], marker="o", markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1])
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    _save(figure, path)


def _figure(title: str, subtitle: str, panels: int, height_in: float) -> Figure:
    figure = Figure(figsize=(2 + _WIDTH_IN * panels, height_in), layout="constrained")
    figure.suptitle(f"{title}\n{subtitle}" if subtitle else title, fontsize="medium")
    return figure


def _save(figure: Figure, path: Path) -> None:
    # Without the time of its making, so that the same figures make the same file.
    suffix = path.suffix.lower()
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=suffix[1:], dpi=_DOTS_PER_IN, metadata=metadata)
    write_whole(path, drawn.getvalue())
