"""A Starlette application, and a test of how a file leaves it."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from zcresponse.starlette import ZeroCopyFileResponse
from zcresponse.testing import PathsendServer, record_transfers

FILE = Path(__file__)


async def download(request: Request) -> Response:
    """A file."""
    return ZeroCopyFileResponse(FILE)


app = Starlette(routes=[Route("/download", download)])


def test_a_part_is_given_to_the_server() -> None:
    """As to `zcresponse.uvicorn`."""
    with record_transfers() as transfers:
        response = TestClient(PathsendServer(app)).get("/download", headers={"Range": "bytes=5-9"})
    assert response.status_code == 206
    assert response.content == FILE.read_bytes()[5:10]
    assert [(transfer.way, transfer.bytes_sent) for transfer in transfers] == [("pathsend", 5)]
