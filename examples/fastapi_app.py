"""FastAPI: a view that returns a path, and one that returns a response.

DOWNLOAD_TOKEN=secret uvicorn examples.fastapi_app:app --http zcresponse.uvicorn:ZeroCopyProtocol
"""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from zcresponse.starlette import ZeroCopyFileResponse

SITE = Path(__file__).parent / "site"
DOWNLOADS = {"welcome": SITE / "index.html", "notes": SITE / "notes.txt"}


def check_token(given: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> None:
    """Let those pass who carry the token; put your own check here."""
    if not hmac.compare_digest(given.credentials.encode(), os.environ["DOWNLOAD_TOKEN"].encode()):
        raise HTTPException(401)


app = FastAPI()


@app.get("/", response_class=ZeroCopyFileResponse)
async def welcome() -> Path:
    """A returned path becomes the response."""
    return SITE / "index.html"


@app.get("/downloads/{name}", dependencies=[Depends(check_token)])
async def download(name: str) -> ZeroCopyFileResponse:
    """The check runs before the view, the file is opened after it."""
    path = DOWNLOADS.get(name)
    if path is None:
        raise HTTPException(404)
    return ZeroCopyFileResponse(path, filename=path.name)
