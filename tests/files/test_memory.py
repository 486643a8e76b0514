from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any, cast

import pytest

from zcresponse.errors import NotARegularFileError
from zcresponse.files import MemoryFile, OpenedFile, open_content
from zcresponse.files.memory import ContentSource

CONTENT = b"0123456789"


@pytest.mark.parametrize(
    ("offset", "count", "interval"),
    [(0, None, (0, 10)), (3, None, (3, 10)), (3, 4, (3, 7)), (10, None, (10, 10)), (0, 0, (0, 0)), (4, 6, (4, 10))],
)
def test_a_window_is_an_interval_of_the_content(offset: int, count: int | None, interval: tuple[int, int]) -> None:
    start, stop = interval
    file = MemoryFile(CONTENT, offset=offset, count=count)
    assert (file.offset, file.size) == (start, stop - start)
    assert file.region() == CONTENT[start:stop]
    assert file.windowed == (offset != 0 or count is not None)


def test_a_region_is_an_interval_of_the_window() -> None:
    file = MemoryFile(CONTENT, offset=2, count=6)
    assert file.region(1, 3) == b"34"
    assert file.region(1) == b"34567"
    assert file.region(stop=2) == b"23"
    assert file.region(6) == file.region(2, 2) == b""


def test_nobody_knows_its_name_or_its_times() -> None:
    file = MemoryFile(CONTENT)
    assert (file.path, file.mtime_ns) == (None, None)


def test_the_whole_content_is_not_copied() -> None:
    content = os.urandom(100_000)
    assert MemoryFile(content).region() is content
    with io.BytesIO(content) as buffer:
        opened = open_content(buffer)
        assert opened.region() is content
        opened.close()


WINDOWS_THAT_CANNOT_BE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"offset": -1}, ValueError, "offset"),
    ({"offset": 11}, ValueError, "offset"),
    ({"offset": 1.0}, TypeError, "offset"),
    ({"offset": True}, TypeError, "offset"),
    ({"count": -1}, ValueError, "count"),
    ({"count": 11}, ValueError, "count"),
    ({"offset": 5, "count": 6}, ValueError, "count"),
    ({"offset": 11, "count": 0}, ValueError, "offset"),
    ({"count": "3"}, TypeError, "count"),
]


@pytest.mark.parametrize("make", [MemoryFile, lambda data, **window: open_content(io.BytesIO(data), **window)])
@pytest.mark.parametrize(("window", "error", "named"), WINDOWS_THAT_CANNOT_BE, ids=str)
def test_a_window_that_cannot_be_is_named(make: Any, window: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        make(CONTENT, **window)


def test_closing_twice_closes_once() -> None:
    closed: list[int] = []
    file = MemoryFile(CONTENT, close=lambda: closed.append(1))
    file.close()
    file.close()
    assert closed == [1]
    MemoryFile(CONTENT).close()


# --- open_content -----------------------------------------------------------------------------------------------------


def spooled(size: int = 10, max_size: int = 1000) -> tempfile.SpooledTemporaryFile[bytes]:
    file = tempfile.SpooledTemporaryFile(max_size=max_size)  # noqa: SIM115 - closed by what is tested
    file.write((CONTENT * (size // 10 + 1))[:size])
    return file


@pytest.mark.parametrize("make", [lambda: io.BytesIO(CONTENT), spooled])
@pytest.mark.parametrize("closefd", [True, False])
def test_a_buffer_is_taken_and_closed_if_it_was_given_away(make: Any, closefd: bool) -> None:
    buffer = make()
    buffer.seek(4)
    file = open_content(buffer, offset=2, count=5, closefd=closefd)
    assert isinstance(file, MemoryFile)
    assert file.region() == CONTENT[2:7]
    assert buffer.tell() == 4
    file.close()
    assert buffer.closed is closefd
    buffer.close()


def test_what_is_written_later_is_not_sent() -> None:
    with io.BytesIO(CONTENT) as buffer:
        file = open_content(buffer)
        buffer.write(b"abc")
        buffer.seek(0, os.SEEK_END)
        buffer.write(b"def")
        assert (file.size, file.region()) == (10, CONTENT)


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_a_buffer_of_any_size_is_taken_whole(size: int) -> None:
    content = os.urandom(size)
    file = open_content(io.BytesIO(content))
    assert (file.size, file.region()) == (size, content)


def test_a_buffer_stays_the_callers_on_an_error() -> None:
    buffer = io.BytesIO(CONTENT)
    for window, error, _ in WINDOWS_THAT_CANNOT_BE:
        with pytest.raises(error):
            open_content(buffer, **window)
    assert not buffer.closed
    buffer.close()
    with pytest.raises(ValueError, match="closed"):
        open_content(buffer)


def test_a_spooled_file_that_is_on_disk_is_a_file() -> None:
    given = spooled(2000)
    with cast("OpenedFile", open_content(cast("ContentSource", given), offset=5, count=10)) as file:
        assert isinstance(file, OpenedFile)
        assert os.pread(file.fileno(), file.size, file.offset) == CONTENT[5:] + CONTENT[:5]
    assert given.closed


def test_a_spooled_file_may_go_to_disk_while_it_is_held() -> None:
    with spooled() as given:
        file = open_content(cast("ContentSource", given), closefd=False)
        given.write(b"x" * 5000)
        assert file.region() == CONTENT


def test_every_other_source_is_opened_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    sources: list[ContentSource] = [path, str(path), bytes(path), os.open(path, os.O_RDONLY), path.open("rb")]
    for source in sources:
        with cast("OpenedFile", open_content(source, offset=1, count=2)) as file:
            assert isinstance(file, OpenedFile)
            assert (file.offset, file.size) == (1, 2)
            assert open_content(file) is file
    with pytest.raises(FileNotFoundError):
        open_content(tmp_path / "missing")
    with pytest.raises(NotARegularFileError):
        open_content(tmp_path)


def text_in_memory() -> Any:
    return tempfile.SpooledTemporaryFile(mode="w+")


@pytest.mark.parametrize("make", [io.StringIO, text_in_memory, lambda: b"123", lambda: bytearray(b"123"), object])
def test_what_holds_no_bytes_is_no_content(make: Any) -> None:
    given = make()
    with pytest.raises((TypeError, OSError)):
        open_content(given)
    if hasattr(given, "close"):
        assert not given.closed
        given.close()


def test_content_is_content_already() -> None:
    file = MemoryFile(CONTENT, offset=2, count=3)
    assert open_content(file) is file


def test_content_that_has_its_window_takes_no_other() -> None:
    window: Any
    for window in ({"offset": 3}, {"count": 1}, {"offset": 3, "count": 1}):
        with pytest.raises(ValueError, match="window already"):
            open_content(MemoryFile(CONTENT), **window)


def test_content_that_is_lent_is_not_closed() -> None:
    window: Any
    for window in ({}, {"offset": 3}, {"count": 3}, {"offset": 3, "count": 4}):
        buffer = io.BytesIO(CONTENT)
        file = open_content(buffer, **window)
        lent = open_content(file, closefd=False)
        assert (lent.offset, lent.size, lent.windowed) == (file.offset, file.size, file.windowed)
        assert lent.region() == file.region()
        lent.close()
        assert not buffer.closed
        file.close()
        assert buffer.closed
