"""FastAPI."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response

from zcresponse.bench.apps import path_of
from zcresponse.starlette import ZeroCopyFileResponse

__all__ = ["stock", "zero_copy"]

zero_copy = FastAPI()
stock = FastAPI()


@zero_copy.get("/empty")
@stock.get("/empty")
async def empty() -> Response:
    """Nothing."""
    return Response()


@zero_copy.get("/{name}")
async def zero_copy_view(name: str) -> ZeroCopyFileResponse:
    """Our `ZeroCopyFileResponse`."""
    return ZeroCopyFileResponse(path_of(name))


@stock.get("/{name}")
async def stock_view(name: str) -> FileResponse:
    """FastAPI's own `FileResponse`, which is Starlette's."""
    return FileResponse(path_of(name))
