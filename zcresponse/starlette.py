"""The door for Starlette and FastAPI: a drop-in for `starlette.responses.FileResponse`, and a switch for an app."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Unpack, cast

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zcresponse.asgi.middleware import ZeroCopyMiddleware
from zcresponse.asgi.transport import deliver, request_head
from zcresponse.events import OnTransfer
from zcresponse.files import open_file_async
from zcresponse.files.opened import FileSource, check_source, check_window
from zcresponse.http.disposition import format_content_disposition
from zcresponse.http.mediatype import guess_media_type
from zcresponse.http.request import RequestHead
from zcresponse.plan import FileOptions, plan_file_response
from zcresponse.plan.response import check_fields, check_options, check_value

__all__ = ["ZeroCopyFileResponse", "install"]


class ZeroCopyFileResponse(FileResponse):
    """A file as the answer to a request, with conditions and ranges, moved by the kernel where the server can.

    Takes Starlette's parameters in Starlette's order. The file is opened when the response is sent; headers and
    cookies that were set on the response by then are kept, in a 206 and a 304 too.

    Args:
        path: a path, an open binary file or a descriptor.
        status_code, headers, media_type, background, filename, content_disposition_type: as in Starlette. Without
            `media_type` the type is told from the name by a table that is the same on every machine. `background`
            runs also when the client left early.
        stat_result: accepted and not used: what is promised is taken from the descriptor that is sent.
        offset, count: send only this window of the file, in bytes.
        closefd: for an open file or descriptor: whether it is closed after sending.
        on_transfer: called with a `zcresponse.Transfer` at the end.
        sendfile: False: read and send chunks, whatever the server offers.
        removed_later: whether the file may be deleted once it was sent, so that no server is merely told its path and
            opens it too late; None: when there is a `background`.
        options: `etag`, `last_modified`, `max_age`, `immutable`, `private` and the like: see
            `zcresponse.plan.FileOptions`.

    Raises:
        TypeError, ValueError: an argument that cannot be meant; it is named. At once.
        FileNotFoundError, PermissionError, NotARegularFileError: when called by the server; nothing was sent yet.
    """

    def __init__(
        self,
        path: FileSource,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
        background: BackgroundTask | None = None,
        filename: str | None = None,
        stat_result: os.stat_result | None = None,
        content_disposition_type: str = "attachment",
        *,
        offset: int = 0,
        count: int | None = None,
        closefd: bool = True,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
        removed_later: bool | None = None,
        **options: Unpack[FileOptions],
    ) -> None:
        # Not super().__init__: it would tell the type from the machine's tables and promise what stat_result says.
        self.path = cast("Any", path)
        self.status_code = status_code
        self.filename = filename
        if media_type is None:
            self.media_type = guess_media_type(filename or _name_of(path))
        else:
            self.media_type = check_value("media_type", media_type)
        check_window(offset, count)
        check_source(path)
        if on_transfer is not None and not callable(on_transfer):
            raise TypeError(f"on_transfer: a callable is needed, not {type(on_transfer).__name__}")
        self.background = background
        self.stat_result = None
        if headers is not None:
            check_fields(headers.items())
        self.init_headers(headers)
        if filename is not None:
            disposition = format_content_disposition(content_disposition_type, filename)
            self.headers.setdefault("content-disposition", disposition)
        if options:
            cache_control = check_options(options)
            if cache_control is not None:
                self.headers.setdefault("cache-control", cache_control)
        self._offset = offset
        self._count = count
        self._closefd = closefd
        self._on_transfer = on_transfer
        self._sendfile = sendfile
        self._removed_later = removed_later
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, send = (
            (RequestHead("GET"), _denial(send)) if scope["type"] == "websocket" else (request_head(scope), send)
        )
        file = await open_file_async(self.path, offset=self._offset, count=self._count, closefd=self._closefd)
        try:
            fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers]
            plan = plan_file_response(request, file, status=self.status_code, fields=fields, **self._options)
        except BaseException:
            file.close()
            raise
        await deliver(
            plan,
            file,
            scope,
            receive,
            send,
            on_transfer=self._on_transfer,
            sendfile=self._sendfile,
            # The usual background task of a download deletes the file. FastAPI sets one after this was made.
            removed_later=self.background is not None if self._removed_later is None else self._removed_later,
        )
        if self.background is not None:
            await self.background()


def install(app: Starlette) -> None:
    """Give a Starlette or FastAPI application kernel sendfile on stock uvicorn, where `--http` cannot be set.

    Wraps the whole middleware stack in `zcresponse.asgi.ZeroCopyMiddleware`: `app.add_middleware` would put it below
    Starlette's own error handler, where uvicorn can no longer be recognised. A second call changes nothing.

    Raises:
        RuntimeError: the application has handled a request already.
    """
    if app.middleware_stack is not None:
        raise RuntimeError("install(app) must be called before the application handles its first request")
    build = app.build_middleware_stack
    if not isinstance(build, _Build):
        app.build_middleware_stack = _Build(build)  # type: ignore[method-assign]


class _Build:
    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        self._build = build

    def __call__(self) -> ASGIApp:
        return ZeroCopyMiddleware(self._build())


def _name_of(path: FileSource) -> str:
    if isinstance(path, str | bytes | os.PathLike):
        return os.fsdecode(path)
    name = getattr(path, "name", None)
    return name if isinstance(name, str) else ""


def _denial(send: Send) -> Send:
    """Return a `send` for an HTTP answer to a WebSocket handshake (asgiref, `websocket.http.response`)."""

    async def denial_send(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return denial_send
