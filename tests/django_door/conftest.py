"""What the Django door's tests may use: a file of their own, and an eye on what is left open."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.signals import request_finished
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from tests.support.django_project import descriptors_of
from tests.support.table import FILES
from zcresponse.django import ZeroCopyFileResponse

_DATA = FILES["data.bin"]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file of its own, old enough for a strong tag; nothing in its folder may be open when the test has ended."""
    path = tmp_path / "report.txt"
    path.write_bytes(_DATA.content)
    os.utime(path, ns=(_DATA.mtime_ns, _DATA.mtime_ns))
    yield path
    gc.collect()
    if os.path.isdir("/proc/self/fd"):
        assert descriptors_of(tmp_path) == 0


@pytest.fixture
def finished() -> Iterator[list[Any]]:
    """Who has said that a request is finished."""
    senders: list[Any] = []

    def receiver(sender: Any, **more: Any) -> None:
        senders.append(sender)

    request_finished.connect(receiver)
    yield senders
    request_finished.disconnect(receiver)


@pytest.fixture
def view(path: Path) -> Callable[[HttpRequest], HttpResponseBase]:
    """A view of the file, with the tag "v1"."""

    def view(request: HttpRequest) -> HttpResponseBase:
        return ZeroCopyFileResponse(path, etag="v1")

    return view
