"""FastAPI."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from zcresponse.bench.apps import path_of
from zcresponse.starlette import ZeroCopyFileResponse

__all__ = ["stock", "zero_copy"]

zero_copy = FastAPI()
stock = FastAPI()


@zero_copy.get("/empty/{name}")
@stock.get("/empty/{name}")
async def empty(name: str) -> Response:
    """Nothing."""
    path_of(name)
    return Response()


@zero_copy.get("/{name}")
async def zero_copy_view(name: str) -> ZeroCopyFileResponse:
    """Our `ZeroCopyFileResponse`."""
    return ZeroCopyFileResponse(path_of(name))


@stock.get("/{name}")
async def stock_view(name: str) -> FileResponse:
    """FastAPI's own `FileResponse`, which is Starlette's."""
    return FileResponse(path_of(name))
