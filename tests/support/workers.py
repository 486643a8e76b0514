"""gunicorn's worker class for uvicorn, told to use our protocol classes: once per loop and parser."""

from __future__ import annotations

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker


class AsyncioH11(UvicornWorker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "asyncio", "http": "zcresponse.uvicorn:ZeroCopyH11Protocol"}


class AsyncioHttpTools(UvicornWorker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "asyncio",
        "http": "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol",
    }


class UvloopH11(UvicornWorker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "uvloop", "http": "zcresponse.uvicorn:ZeroCopyH11Protocol"}


class UvloopHttpTools(UvicornWorker):
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {"loop": "uvloop", "http": "zcresponse.uvicorn:ZeroCopyHttpToolsProtocol"}
