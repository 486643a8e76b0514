"""aiohttp, which is a framework and a server; run as a program it serves until it is ended."""

from __future__ import annotations

import asyncio

from aiohttp import web

from zcresponse.bench.apps import path_of

__all__ = ["application"]


async def stock(request: web.Request) -> web.FileResponse:
    """aiohttp's own `FileResponse`."""
    return web.FileResponse(path_of(request.match_info["name"]))


def application() -> web.Application:
    """Make the application."""
    made = web.Application()
    made.router.add_get("/{name}", stock)
    return made


async def _serve() -> None:
    runner = web.AppRunner(application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    # On asyncio's loop: uvloop has no sendfile, and there it reads.
    asyncio.run(_serve())
