"""A stock Starlette application with the two views of the table, to measure the machinery and for comparisons.

Files come from the directory named by the environment variable `TABLE_FILES`.
"""

from __future__ import annotations

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from tests.support.table import CACHE_CONTROL, DOWNLOAD_NAME

_DIRECTORY = Path(os.environ.get("TABLE_FILES", "."))


async def plain(request: Request) -> Response:
    """The file as it is."""
    return FileResponse(_DIRECTORY / request.path_params["name"])


async def dressed(request: Request) -> Response:
    """The file as a download with a caching field."""
    return FileResponse(
        _DIRECTORY / request.path_params["name"], filename=DOWNLOAD_NAME, headers={"Cache-Control": CACHE_CONTROL}
    )


_METHODS = ["GET", "HEAD", "POST"]

app = Starlette(
    routes=[Route("/plain/{name}", plain, methods=_METHODS), Route("/dressed/{name}", dressed, methods=_METHODS)]
)
