"""A FastAPI application whose downloads exist for one answer, for servers and test clients.

Each view makes its file, in the directory named by the environment variable `TEMPORARY_FILES`, and has it deleted in
its own way. `/transfers` tells how the bodies so far travelled.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import fastapi
from fastapi import BackgroundTasks, Depends, FastAPI
from starlette.background import BackgroundTask

from zcresponse import Transfer, events
from zcresponse.starlette import ZeroCopyFileResponse, install

__all__ = ["CONTENT", "DEPENDENCIES_OUTLIVE_THE_ANSWER", "VIEWS", "app", "installed"]

#: What every file holds: enough to travel in several messages.
CONTENT = bytes(range(256)) * 4096

#: Whether a dependency's code after `yield` runs when the answer has been sent. Until FastAPI 0.118 it ran before.
DEPENDENCIES_OUTLIVE_THE_ANSWER = tuple(map(int, fastapi.__version__.split(".")[:2])) >= (0, 118)

#: The views that can be asked.
VIEWS = ["/own-task", "/tasks", "/path-and-tasks", *(["/dependency"] if DEPENDENCIES_OUTLIVE_THE_ANSWER else [])]


def make_file() -> Path:
    """Write a file of its own."""
    with tempfile.NamedTemporaryFile(dir=os.environ["TEMPORARY_FILES"], suffix=".bin", delete=False) as file:
        file.write(CONTENT)
    return Path(file.name)


def file_until_the_end() -> Iterator[Path]:
    """A dependency: the file is there until the request is over."""
    path = make_file()
    try:
        yield path
    finally:
        path.unlink()


FileUntilTheEnd = Annotated[Path, Depends(file_until_the_end)]

app = FastAPI()


@app.api_route("/own-task", methods=["GET", "HEAD"])
async def own_task() -> ZeroCopyFileResponse:
    """The response has a task of its own."""
    path = make_file()
    return ZeroCopyFileResponse(path, background=BackgroundTask(path.unlink))


@app.api_route("/tasks", methods=["GET", "HEAD"])
async def tasks(background_tasks: BackgroundTasks) -> ZeroCopyFileResponse:
    """FastAPI gives its tasks to the returned response."""
    path = make_file()
    background_tasks.add_task(path.unlink)
    return ZeroCopyFileResponse(path)


@app.api_route("/path-and-tasks", methods=["GET", "HEAD"], response_class=ZeroCopyFileResponse)
async def path_and_tasks(background_tasks: BackgroundTasks) -> Path:
    """FastAPI makes the response, with its tasks."""
    path = make_file()
    background_tasks.add_task(path.unlink)
    return path


@app.api_route("/dependency", methods=["GET", "HEAD"])
async def dependency(path: FileUntilTheEnd) -> ZeroCopyFileResponse:
    """Nothing tells the response that somebody will delete the file, so the view does."""
    return ZeroCopyFileResponse(path, removed_later=True)


_told: list[Transfer] = []
_telling = contextlib.ExitStack()
_telling.enter_context(events.subscribe(_told.append))


@app.get("/transfers")
async def transfers() -> list[dict[str, Any]]:
    """The ways and reasons of the bodies so far."""
    return [{"way": transfer.way, "reason": transfer.reason} for transfer in _told]


def installed() -> FastAPI:
    """Return the application with kernel sendfile on stock uvicorn."""
    install(app)
    return app
