"""For the tests of applications that send files: see which way a response took, with the framework's own client.

```python
from starlette.testclient import TestClient
from zcresponse.testing import PathsendServer, record_transfers

def test_the_download_is_handed_to_the_server():
    with record_transfers() as transfers:
        response = TestClient(PathsendServer(app)).get("/download")
    assert response.status_code == 200
    assert [transfer.way for transfer in transfers] == ["pathsend"]
```

`FileWrapperServer` is the same for WSGI. With pytest, `pytest_plugins = ["zcresponse.testing"]` in a conftest gives the
same list as the fixture `transfers`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from zcresponse import events
from zcresponse.asgi.dialect import KEY, PATHSEND, Offer, Shipment, extensions_with
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope, Send
from zcresponse.errors import FileTruncatedError
from zcresponse.events import Transfer
from zcresponse.files import FileRegion, open_file_async, reading
from zcresponse.plan.response import Fields, values_of
from zcresponse.wsgi.servers import Server, Takes, made_by
from zcresponse.wsgi.types import Environ, StartResponse, WSGIApp
from zcresponse.wsgi.wrappers import FileWrapper

__all__ = ["FileWrapperServer", "HandedOver", "PathsendServer", "record_transfers"]

_CHUNK = 256 * 1024


class PathsendServer:
    """Makes any ASGI test client look like a server that offers `http.response.pathsend`.

    The extension is advertised to the application, and what it sends is expanded into body messages, which test
    clients understand. A transfer that was expanded is reported as `pathsend`.

    Args:
        app: the application under test.
        ranges: offer parts of files and opened files too, as `zcresponse.uvicorn` does; False: whole files by their
            path alone, as granian does.
    """

    def __init__(self, app: ASGIApp, *, ranges: bool = True) -> None:
        self.app = app
        self.ranges = ranges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def expand(message: Message) -> None:
            nonlocal status
            if message["type"] == PATHSEND:
                # A plain message was reported by our response already, unless it is somebody else's.
                await _expand(message, status, send, no_body=scope["method"] == "HEAD", told=not self.ranges)
                return
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        if self.ranges:
            extensions = extensions_with(scope, Offer())
        else:
            extensions = {**(scope.get("extensions") or {}), PATHSEND: {}}
        await self.app({**scope, "extensions": extensions}, receive, expand)


async def _expand(message: Message, status: int, send: Send, *, no_body: bool, told: bool) -> None:
    began = time.perf_counter()
    shipment = message.get(KEY)
    if isinstance(shipment, Shipment):
        file, segments, on_transfer = shipment.file, shipment.segments, shipment.on_transfer
    else:
        file = await open_file_async(message["path"], offset=message.get("offset") or 0, count=message.get("count"))
        segments, on_transfer = (file.region(),), None
    promised = 0 if no_body else sum(map(len, segments))
    sent = 0
    with file:
        for segment in () if no_body else segments:
            for start in range(0, len(segment), _CHUNK):
                length = min(_CHUNK, len(segment) - start)
                if isinstance(segment, FileRegion):
                    data = await reading.read(segment.file, segment.offset + start, length)
                else:
                    data = segment[start : start + length]
                sent += length
                await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
    if not told:
        duration_s = time.perf_counter() - began
        events.report(
            Transfer("pathsend", "expanded by zcresponse.testing", status, promised, sent, duration_s, True),
            on_transfer,
        )


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a server was given through `wsgi.file_wrapper`, and sends.

    Attributes:
        path: the file's path; None: it has none, or nobody tells (a file that was given open, outside of Linux).
        offset: the first byte of the file, in bytes.
        count: how many bytes.
    """

    path: str | None
    offset: int
    count: int


class FileWrapperServer:
    """Makes any WSGI test client look like a server that sends files which it is given through `wsgi.file_wrapper`.

    The descriptor is read where the kernel would, the client sees the bytes, and what was given is closed when the
    client closes the response.

    Args:
        app: the application under test.
        ranges: begin where the descriptor stands, and send as much as Content-Length says, as gunicorn does; False:
            send every file from its first byte to its end, as uWSGI does. Such a server is given no file that was
            written to in the last 2 seconds.

    Attributes:
        handed_over: what was given so far.
    """

    def __init__(self, app: WSGIApp, *, ranges: bool = True) -> None:
        self.app = app
        self.ranges = ranges
        self.handed_over: list[HandedOver] = []
        self._row = Server("the test's server", "", Takes.REGION if ranges else Takes.WHOLE)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        fields: Fields = []

        def start(status: str, headers: Fields, *exc_info: Any) -> Any:
            fields[:] = headers
            return start_response(status, headers, *exc_info)

        row = self._row
        if self.ranges:
            row = replace(row, shows=lambda region: _ends_as_told(region, fields))
        body = self.app(made_by(row, _ServersWrapper, environ), start)
        if type(body) is not _ServersWrapper:
            return body
        try:
            given = self._take(body.filelike, values_of(fields, "Content-Length"))
        except (AttributeError, OSError):
            # No file on a disk: servers read it.
            return body
        self.handed_over.append(given)
        # As the newest servers: an answer to HEAD has no body (RFC 9110 §9.3.2).
        return _Sent(body, given.offset, 0 if environ["REQUEST_METHOD"] == "HEAD" else given.count)

    def _take(self, file: Any, lengths: list[str]) -> HandedOver:
        fd: int = file.fileno()
        offset = os.lseek(fd, 0, os.SEEK_CUR) if self.ranges else 0
        count = os.fstat(fd).st_size - offset
        if self.ranges and lengths:
            count = int(lengths[0])
        return HandedOver(_path_of(file, fd), offset, count)


def _ends_as_told(region: FileRegion, fields: Fields) -> bool:
    """Whether the server stops where the region does: it goes on to the file's end where it was told no length."""
    at_end = region.offset + region.count == os.fstat(region.file.fileno()).st_size
    return at_end or values_of(fields, "Content-Length") == [str(region.count)]


def _path_of(file: Any, fd: int) -> str | None:
    path = getattr(file, "name", None)
    if isinstance(path, str):
        return path
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None


class _ServersWrapper(FileWrapper):
    """The server's own, which nobody looks into."""


class _Sent:
    """What a server has been given, as the bytes that it sends."""

    def __init__(self, body: FileWrapper, offset: int, count: int) -> None:
        self._body = body
        self._position = offset
        self._left = count

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._left:
            raise StopIteration
        data = reading.read_blocking(self._body.filelike.fileno(), self._position, min(self._left, _CHUNK))
        if not data:
            raise FileTruncatedError(f"the file ended {self._left} bytes before the promised end")
        self._position += len(data)
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._body.close()


@contextmanager
def record_transfers() -> Iterator[list[Transfer]]:
    """Collect the transfers of this process while the block runs, whichever thread they end in."""
    transfers: list[Transfer] = []
    with events.subscribe(transfers.append):
        yield transfers


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture(name="transfers")
    def transfers_fixture() -> Iterator[list[Transfer]]:
        """The transfers of the test, in the order in which they ended."""
        with record_transfers() as transfers:
            yield transfers
