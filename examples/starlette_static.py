"""A single page application beside its API: what is no file is for the router of the page.

uvicorn examples.starlette_static:app --http zcresponse.uvicorn:ZeroCopyProtocol
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Scope

from zcresponse.starlette import ZeroCopyStaticFiles


class OnePage(ZeroCopyStaticFiles):
    """Files, and the page for every other path."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file's response, or the page's."""
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            # A script or a picture that is missing is not a page, and nothing in `.git` is.
            folders, _, name = f"/{path}".rpartition("/")
            if error.status_code != 404 or "." in name or "/." in folders:
                raise
            return await super().get_response("index.html", scope)


async def version(request: Request) -> JSONResponse:
    """Answer for the API."""
    return JSONResponse({"version": 1})


files = OnePage(
    directory=Path(__file__).parent / "site",
    html=True,
    not_found=None,
    precompressed=True,
    # app.3f9a1c07.js may be kept for a year; the page is asked for anew each time.
    hashed_names=True,
    no_cache=True,
)
app = Starlette(routes=[Route("/api/version", version), Mount("/", files, name="site")])
