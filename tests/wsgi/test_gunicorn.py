from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import FileWrapper, Response

from zcresponse.files import open_file
from zcresponse.files.positioned import PositionedFile
from zcresponse.wsgi.gunicorn import sends_no_more

SIZE = 100_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    return path


class Connection:
    """Tells what gunicorn would have sent by sendfile."""

    def __init__(self) -> None:
        self.moved: list[tuple[int, int]] = []

    def sendall(self, data: bytes) -> None:
        """The head."""

    def sendfile(self, file: Any, offset: int, count: int) -> None:
        # As `socket.sendfile`, a few calls deeper.
        (lambda: os.fstat(file.fileno()))()
        self.moved.append((offset, count))


def moved(path: Path, start: int, stop: int, length: int | None) -> list[tuple[int, int]]:
    """What gunicorn's own code moves of a region when it was told this Content-Length."""
    connection = Connection()
    request = SimpleNamespace(method="GET", version=(1, 1), should_close=lambda: False)
    response = Response(request, connection, Config())
    response.start_response("206 Partial", [] if length is None else [("Content-Length", str(length))])
    with open_file(path) as file:
        positioned = PositionedFile(file.region(start, stop), lambda _: None, sends_no_more)
        assert response.sendfile(FileWrapper(positioned)) is bool(connection.moved)
        positioned.close()
    return connection.moved


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (5, 1000), (0, SIZE - 1)])
def test_gunicorn_is_given_a_part_whose_length_it_was_told(path: Path, start: int, stop: int) -> None:
    assert moved(path, start, stop, stop - start) == [(start, stop - start)]


@pytest.mark.parametrize("length", [None, 0, 4, 6, SIZE])
def test_gunicorn_is_given_no_part_of_another_length(path: Path, length: int | None) -> None:
    assert moved(path, 5, 10, length) == []


@pytest.mark.parametrize("start", [0, 5])
def test_what_goes_on_to_the_end_of_the_file_needs_no_length(path: Path, start: int) -> None:
    assert moved(path, start, SIZE, None) == [(start, SIZE - start)]


def asked_at_once(file: PositionedFile) -> int:
    return file.fileno()


def asked_deep_down(file: PositionedFile, depth: int = 20) -> int:
    return asked_deep_down(file, depth - 1) if depth else file.fileno()


@pytest.mark.parametrize("asks", [asked_at_once, asked_deep_down])
def test_nobody_else_is_given_a_part(path: Path, asks: Callable[[PositionedFile], int]) -> None:
    with open_file(path) as file:
        part = PositionedFile(file.region(5, 10), lambda _: None, sends_no_more)
        with pytest.raises(io.UnsupportedOperation, match="it is to be read"):
            asks(part)
        assert (part.tell(), len(part.read())) == (5, 5)
        whole = PositionedFile(file.region(), lambda _: None, sends_no_more)
        assert asks(whole) == file.fileno()


def test_a_file_that_has_grown_is_a_part(path: Path) -> None:
    with open_file(path) as file:
        positioned = PositionedFile(file.region(), lambda _: None, sends_no_more)
        path.write_bytes(bytes(SIZE + 1))
        with pytest.raises(io.UnsupportedOperation):
            positioned.fileno()
