"""What a run was made on, as a file that is whole or not there."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from zcresponse import __version__
from zcresponse.bench.report import describe, write


def test_a_report_tells_what_it_was_made_on() -> None:
    found = describe(["pytest", "no-such-distribution"])
    assert found["zcresponse"] == __version__
    assert found["machine"]["processors"] == os.cpu_count()
    assert found["machine"]["processor"]
    assert found["packages"]["starlette"] == version("starlette")
    assert found["packages"]["pytest"] == version("pytest")
    assert "no-such-distribution" not in found["packages"]


def test_a_report_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write(path, {"a": 1})
    write(path, {"b": [1.5, None]})
    assert json.loads(path.read_text()) == {"b": [1.5, None]}
    assert os.listdir(tmp_path) == ["run.json"]


def test_what_cannot_be_told_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write(path, {"a": 1})
    with pytest.raises(TypeError):
        write(path, {"b": object()})
    assert json.loads(path.read_text()) == {"a": 1}
