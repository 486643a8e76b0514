"""A Starlette response whose body is a file, and a switch for a whole application."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Unpack

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zcresponse.arguments import check_delivery, check_text
from zcresponse.asgi.middleware import MiddlewareOptions, ZeroCopyMiddleware
from zcresponse.asgi.transport import OFFLOAD, deliver, deliver_at_once, offload_for
from zcresponse.events import OnTransfer
from zcresponse.files import OpenedFile, open_file_async
from zcresponse.files.opened import FileSource, check_source, check_window, open_at_once
from zcresponse.http.disposition import check_disposition, format_content_disposition
from zcresponse.http.mediatype import guess_media_type
from zcresponse.http.request import RequestHead
from zcresponse.plan import FileOptions, Offload, plan_file_response
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

    # Of the class, not of each: most are made with a path alone.
    stat_result = None
    _offset = 0
    _count: int | None = None
    _closefd = True
    _on_transfer: OnTransfer | None = None
    _sendfile: bool | None = None
    _removed_later: bool | None = None
    _etag: str | bool = True
    _last_modified: datetime | float | bool = True

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
        if filename is not None:
            check_text("filename", filename)
        if content_disposition_type != "attachment":
            check_disposition("content_disposition_type", content_disposition_type)
        self.path: Any = path
        self.status_code = status_code
        self.filename = filename
        if media_type is None:
            self.media_type = guess_media_type(filename or (path if type(path) is str else _name_of(path)))
        else:
            self.media_type = check_value("media_type", media_type)
        if offset != 0 or count is not None:
            check_window(offset, count)
            self._offset, self._count = offset, count
        # Most are a str; a union is built anew each time it is asked about.
        if type(path) is not str:
            check_source(path)
        if on_transfer is not None or sendfile is not None:
            check_delivery(on_transfer, sendfile)
            self._on_transfer, self._sendfile = on_transfer, sendfile
        if not closefd:
            self._closefd = False
        if removed_later is not None:
            self._removed_later = removed_later
        self.background = background
        if headers is None and media_type is None:
            # What Starlette makes of it, which takes a hundredth of an answer's time.
            self.raw_headers = [(b"content-type", self.media_type.encode("ascii"))]
        else:
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
            # The header has the others, and whoever takes them out wants none.
            self._etag = options.get("etag", True)
            self._last_modified = options.get("last_modified", True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, send = (
            (RequestHead("GET"), _denial(send)) if scope["type"] == "websocket" else (self._request_head(scope), send)
        )
        # The usual background task of a download deletes the file. FastAPI sets one after this was made.
        removed_later = self.background is not None if self._removed_later is None else self._removed_later
        # Most often somebody above has looked already and found nothing.
        offload = None if removed_later or scope.get(OFFLOAD) is False else self._offload_for(scope)
        file = self._open_at_once() or await self._open()
        try:
            fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers]
            plan = plan_file_response(
                request,
                file,
                status=self.status_code,
                fields=fields,
                etag=self._etag,
                last_modified=self._last_modified,
                offload=offload,
            )
        except BaseException:
            file.close()
            raise
        if not deliver_at_once(plan, file, scope, send, on_transfer=self._on_transfer, sendfile=self._sendfile):
            await deliver(
                plan,
                file,
                scope,
                receive,
                send,
                on_transfer=self._on_transfer,
                sendfile=self._sendfile,
                removed_later=removed_later,
            )
        if self.background is not None:
            await self.background()

    def _open_at_once(self) -> OpenedFile | None:
        if type(self.path) is str and self._offset == 0 and self._count is None:
            return open_at_once(self.path)
        return None

    async def _open(self) -> OpenedFile:
        return await open_file_async(self.path, offset=self._offset, count=self._count, closefd=self._closefd)

    def _request_head(self, scope: Scope) -> RequestHead:
        return RequestHead.from_raw_fields(scope["method"], scope["headers"])

    def _offload_for(self, scope: Scope) -> Offload | None:
        # A front server has nothing to do with an answer to a handshake.
        return None if self._sendfile is False or scope["type"] == "websocket" else offload_for(scope)


def install(app: Starlette, **options: Unpack[MiddlewareOptions]) -> None:
    """Put `zcresponse.asgi.ZeroCopyMiddleware` around a Starlette or FastAPI application: sendfile without `--http`.

    It goes around the whole middleware stack: `app.add_middleware` would put it below Starlette's own error handler,
    where the server can no longer be recognised. A second call changes nothing.

    Args:
        options: those of the middleware.

    Raises:
        RuntimeError: the application has handled a request already.
        TypeError, ValueError, FileNotFoundError, NotADirectoryError: as the middleware.
    """
    if app.middleware_stack is not None:
        raise RuntimeError("install(app) must be called before the application handles its first request")
    build = app.build_middleware_stack
    if not isinstance(build, _Build):
        app.build_middleware_stack = _Build(build, options)  # type: ignore[method-assign]


class _Build:
    def __init__(self, build: Callable[[], ASGIApp], options: MiddlewareOptions) -> None:
        self._build = build
        # Made now, so that what cannot be meant is told now, not to the first client.
        self._middleware = ZeroCopyMiddleware(self._run, **options)
        self._stack: ASGIApp | None = None

    def __call__(self) -> ASGIApp:
        self._stack = self._build()
        return self._middleware

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._stack is not None
        await self._stack(scope, receive, send)


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
