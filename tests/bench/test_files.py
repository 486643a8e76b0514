"""Sizes as people write them, and the files of a benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from zcresponse.bench.files import make_file, parse_size, read_through


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("300", 300),
        ("7B", 7),
        ("64KiB", 65_536),
        ("64 MiB", 67_108_864),
        ("1GiB", 1_073_741_824),
        ("4GB", 4_000_000_000),
        ("4gb", 4_000_000_000),
        ("1 kb", 1000),
        (" 2TiB ", 2_199_023_255_552),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0GiB", "-1", "1.5GiB", "GiB", "1 Gi", "1XB", "1GiBs", "١", "9" * 20, "1\n2"]
)
def test_what_is_no_size_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


def test_a_file_is_made_once_and_anew_when_its_size_is_another(tmp_path: Path) -> None:
    path = make_file(tmp_path / "folder" / "a.bin", 5_000_000)
    first = path.read_bytes()
    assert len(first) == 5_000_000
    assert len(set(first)) == 256
    assert make_file(path, 5_000_000).read_bytes() == first
    assert make_file(path, 10).stat().st_size == 10


def test_reading_a_file_through_leaves_it_as_it_is(tmp_path: Path) -> None:
    path = make_file(tmp_path / "a.bin", 9_000_000)
    before = path.read_bytes()
    read_through(path)
    assert path.read_bytes() == before
