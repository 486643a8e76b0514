"""Starlette: downloads for those who may have them.

DOWNLOAD_TOKEN=secret uvicorn examples.starlette_app:app --http zcresponse.uvicorn:ZeroCopyProtocol
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from zcresponse.starlette import ZeroCopyFileResponse

SITE = Path(__file__).parent / "site"
# What can be had, by name. A table, or a row of a database: never a path that the client wrote.
DOWNLOADS = {"welcome": SITE / "index.html", "notes": SITE / "notes.txt"}


def may_download(request: Request) -> bool:
    """Whether the request carries the token; put your own check here."""
    given = request.headers.get("authorization", "")
    wanted = f"Bearer {os.environ['DOWNLOAD_TOKEN']}"
    return hmac.compare_digest(given.encode(), wanted.encode())


async def download(request: Request) -> Response:
    """Check first, then return the file."""
    if not may_download(request):
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
    path = DOWNLOADS.get(request.path_params["name"])
    if path is None:
        raise HTTPException(404)
    return ZeroCopyFileResponse(path, filename=path.name)


app = Starlette(routes=[Route("/downloads/{name}", download)])
