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

With pytest, `pytest_plugins = ["zcresponse.testing"]` in a conftest gives the same list as the fixture `transfers`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from zcresponse import events
from zcresponse.asgi.dialect import KEY, PATHSEND, Offer, Shipment, extensions_with
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope, Send
from zcresponse.events import Transfer
from zcresponse.files import FileRegion, open_file_async, reading

__all__ = ["PathsendServer", "record_transfers"]

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
