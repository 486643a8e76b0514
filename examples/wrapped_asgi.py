"""An application with Starlette's own responses, and one file that it only names; the middleware sends them.

uvicorn examples.wrapped_asgi:app
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from zcresponse.asgi import ZeroCopyMiddleware

SITE = Path(__file__).parent / "site"


async def notes(request: Request) -> Response:
    """Starlette's own response, with its own ranges and without conditions."""
    return FileResponse(SITE / "notes.txt")


async def page(request: Request) -> Response:
    """What an application does that leaves its files to a front server."""
    return Response(media_type="text/html", headers={"X-Accel-Redirect": "/site/index.html"})


app = ZeroCopyMiddleware(
    Starlette(routes=[Route("/notes", notes), Route("/page", page)]),
    conditional=True,
    x_accel_redirect={"/site/": SITE},
)
