"""A FastAPI application, and a test of how a file leaves it."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from zcresponse.starlette import ZeroCopyFileResponse
from zcresponse.testing import PathsendServer, record_transfers

FILE = Path(__file__)

app = FastAPI()


@app.get("/download", response_class=ZeroCopyFileResponse)
async def download() -> Path:
    """A file."""
    return FILE


def test_only_whole_files_are_given_to_a_server_that_takes_no_others() -> None:
    """As to granian."""
    client = TestClient(PathsendServer(app, ranges=False))
    with record_transfers() as transfers:
        assert client.get("/download").content == FILE.read_bytes()
        assert client.get("/download", headers={"Range": "bytes=5-9"}).content == FILE.read_bytes()[5:10]
    assert [transfer.way for transfer in transfers] == ["pathsend", "chunks"]
