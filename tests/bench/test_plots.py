"""Plots are files of the format that their name promises, with everybody's name in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zcresponse.bench.plots import FORMATS, draw_boxes, draw_lines

BEGINNINGS = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF-", ".PNG": b"\x89PNG\r\n\x1a\n"}

PANELS = {"seconds": {"one": [1.0, 2.0, 9.0], "another": [3.0]}, "CPU s per GiB": {"one": [0.1, 0.2], "another": [0.3]}}


def texts(svg: Path) -> str:
    # Letters are drawn as shapes; the text itself stands in comments.
    return "\n".join(re.findall(r"<!-- (.*?) -->", svg.read_text()))


def test_every_format_is_drawn(tmp_path: Path) -> None:
    assert set(BEGINNINGS) >= set(FORMATS)
    for suffix, beginning in BEGINNINGS.items():
        path = tmp_path / f"plot{suffix}"
        draw_boxes(path, "A title", PANELS, "and more of it")
        assert path.read_bytes().startswith(beginning)


def test_boxes_have_their_names_and_axes(tmp_path: Path) -> None:
    draw_boxes(tmp_path / "boxes.svg", "A title", PANELS)
    found = texts(tmp_path / "boxes.svg")
    for text in ("A title", "one", "another", "seconds", "CPU s per GiB"):
        assert text in found


def test_lines_have_ticks_where_it_was_measured_and_leave_out_what_no_logarithm_has(tmp_path: Path) -> None:
    lines = {"one": {1.0: 0.0, 1024.0: 5.0}, "nothing": {1.0: 0.0}}
    draw_lines(tmp_path / "lines.svg", "Growth", ("bytes", "requests/s"), {"1 B": 1.0, "1 KiB": 1024.0}, lines)
    found = texts(tmp_path / "lines.svg")
    for text in ("Growth", "bytes", "requests/s", "1 KiB", "one", "nothing"):
        assert text in found


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        draw_boxes(tmp_path / "nowhere" / "plot.png", "A title", PANELS)
