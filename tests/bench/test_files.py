"""Sizes as people write them, and the files of a benchmark."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from zcresponse.bench.files import check_space, lend, make_file, parse_size, read_through


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


def test_how_far_it_is_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    path = make_file(tmp_path / "a.bin", 9_000_000, told.append)
    assert told == [4 * 1024**2, 8 * 1024**2, 9_000_000]
    read_through(path, told.append)
    assert told[:3] == told[3:]


def test_what_does_not_fit_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path, 1)
    with pytest.raises(OSError, match="do not fit") as caught:
        make_file(tmp_path / "a.bin", free)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("refused", [(), ("symlink_to",), ("symlink_to", "hardlink_to")])
def test_a_file_is_lent_as_far_as_the_file_system_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    for name in refused:
        monkeypatch.setattr(Path, name, refuse)
    (tmp_path / "given").write_bytes(b"content")
    lend(tmp_path / "given", tmp_path / "lent")
    assert (tmp_path / "lent").read_bytes() == b"content"
    assert (tmp_path / "lent").is_symlink() is (refused == ())
