"""The best that a server has for the files of an application that knows nothing of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from zcresponse.arguments import check_callable, check_delivery, check_switch
from zcresponse.events import OnTransfer
from zcresponse.files import MemoryFile, OpenedFile
from zcresponse.files.named import NamedFiles
from zcresponse.files.positioned import PositionedFile
from zcresponse.http.request import RequestHead
from zcresponse.plan import ResponsePlan
from zcresponse.plan.directory import plan_error
from zcresponse.plan.offload import Offload, check_named
from zcresponse.plan.response import Fields, plan_as_said
from zcresponse.plan.upgrade import may_name_file, plan_named_file, plan_upgrade
from zcresponse.wsgi.bodies import open_body
from zcresponse.wsgi.chunks import Chunks
from zcresponse.wsgi.servers import best_wrapper, server_behind
from zcresponse.wsgi.transport import (
    OFFLOAD,
    SENDFILE,
    TAKEN_OUT,
    make_body,
    missing_date,
    open_beside,
    request_head,
    status_line,
)
from zcresponse.wsgi.types import Environ, StartResponse, WSGIApp
from zcresponse.wsgi.wrappers import FileWrapper, ShownFileWrapper

__all__ = ["ZeroCopyMiddleware"]


class ZeroCopyMiddleware:
    """WSGI middleware that sends the files of the application below as `zcresponse.wsgi.send_file` would.

    Put it outermost, directly below the server. It recognises the bodies that Flask, Werkzeug, Django and WhiteNoise
    make of files and of parts of them, and whatever `wsgi.file_wrapper` has made. Those are sent exactly, by the server
    where it can, and an answer to HEAD has no body. Everything else passes through as it is.

    Args:
        app: the application.
        conditional: answer conditions and ranges for whole files that are sent with status 200, with the validators
            that the application gives, or else the file's own.
        x_sendfile: directories of which the application may name files by `X-Sendfile`, see
            `zcresponse.files.named.NamedFiles`. The field never leaves the process; with a 200 or 206 the file is sent
            in the place of the body, with conditions and ranges. Without directories it is left to a front server.
        x_accel_redirect: beginnings of URIs that the application may name by `X-Accel-Redirect`, and the directory
            that stands for each.
        follow_symlinks: follow links beneath these directories as long as they stay inside.
        offload: what a front server sends in the place of zcresponse's own responses below; False: nothing; None: as
            `ZCRESPONSE_OFFLOAD` says, else nothing.
        on_transfer: called with a `zcresponse.Transfer` at the end of each file response.
        sendfile: False: read and give blocks, whatever the server offers, zcresponse's own responses below included;
            None: as `ZCRESPONSE_SENDFILE` says, else True.

    Raises:
        TypeError, ValueError, FileNotFoundError, NotADirectoryError: an argument that cannot be meant; it is named.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        conditional: bool = False,
        x_sendfile: Iterable[str | os.PathLike[str]] = (),
        x_accel_redirect: Mapping[str, str | os.PathLike[str]] | None = None,
        follow_symlinks: bool = False,
        offload: Offload | bool | None = None,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
    ) -> None:
        check_callable("app", app)
        check_switch("conditional", conditional)
        check_delivery(on_transfer, sendfile)
        self.app = app
        self._shown = ShownFileWrapper(app, FileWrapper)
        self._conditional = conditional
        self._files = NamedFiles(x_sendfile, x_accel_redirect, follow_symlinks=follow_symlinks)
        check_named(offload, self._files.fields)
        self._offload = offload
        self._on_transfer = on_transfer
        self._sendfile = sendfile

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self._offload is not None:
            environ[OFFLOAD] = self._offload
        if self._files.fields:
            environ[TAKEN_OUT] = self._files.fields | environ.get(TAKEN_OUT, frozenset())
        if self._sendfile is not None and environ.get(SENDFILE) is not False:
            environ[SENDFILE] = self._sendfile
        head = _Head(start_response, self._files)
        body = self._shown(environ, head)
        if head.said is None and not head.passes and self._files.fields:
            # A generator starts the response when its first block is asked for, and may name a file (PEP 3333, "The
            # start_response() Callable").
            body = _Begun(body)
        if head.said is None:
            # It has been written to already; or the response is started later.
            head.passes = True
            return body
        try:
            answer, said = self._answer(environ, head, head.said, body)
        except BaseException:
            _close(body)
            raise
        try:
            head.start(said)
        except BaseException:
            _close(answer)
            raise
        return answer

    def _answer(
        self, environ: Environ, head: _Head, said: _Said, body: Iterable[bytes]
    ) -> tuple[Iterable[bytes], _Said]:
        """Return the body for the server, and what to start the response with. Closing it closes the application's."""
        named = _named(said.fields, self._files)
        if named:
            said = said._replace(fields=[field for field in said.fields if field not in named])
            if may_name_file(said.status):
                return self._send(environ, head, *self._find(environ, named, said), said, body)
        content = open_body(body)
        if content is not None:
            try:
                plan = self._decide(request_head(environ), content, said)
            except BaseException:
                content.close()
                raise
            if plan is not None:
                return self._send(environ, head, plan, content, said, body)
            content.close()
        return _for_server(environ, body), said

    def _find(self, environ: Environ, named: Fields, said: _Said) -> tuple[ResponsePlan, OpenedFile | None]:
        request = request_head(environ)
        hub = server_behind(environ).hub
        try:
            if hub is None:
                file = self._files.lookup(named)
            else:
                file = open_beside(hub, self._files.lookup, named)
        except OSError as error:
            plan = plan_error(request, error)
            if plan is None:
                raise
            return plan, None
        try:
            return plan_named_file(request, file, fields=said.fields), file
        except BaseException:
            file.close()
            raise

    def _decide(self, request: RequestHead, content: OpenedFile | MemoryFile, said: _Said) -> ResponsePlan | None:
        if self._conditional:
            plan = plan_upgrade(request, content, status=said.status, fields=said.fields)
            if plan is not None:
                return plan
        return plan_as_said(request, content, status=said.status, fields=said.fields)

    def _send(
        self,
        environ: Environ,
        head: _Head,
        plan: ResponsePlan,
        content: OpenedFile | MemoryFile | None,
        said: _Said,
        body: Iterable[bytes],
    ) -> tuple[Iterable[bytes], _Said]:
        if isinstance(content, OpenedFile):
            # A server or middleware that drops the body without closing it leaves that to the finalizer.
            content.hand_over()
        try:
            answer = make_body(
                plan,
                content,
                environ,
                on_close=_Both(content, body),
                start_response=head,
                on_transfer=self._on_transfer,
                sendfile=self._sendfile,
            )
        except BaseException:
            _close(content)
            raise
        line = said.line if plan.status == said.status else status_line(plan.status)
        return answer, _Said(line, [*plan.fields, *missing_date(environ, plan.fields)], said.exc_info)


class _Said(NamedTuple):
    """What an application gives to `start_response`."""

    line: str
    fields: Fields
    exc_info: Any

    @property
    def status(self) -> int:
        """The status code; 0 where it is none."""
        code = self.line[:3]
        return int(code) if code.isdecimal() and code.isascii() else 0


class _Head:
    """The application's `start_response`: what it says is kept until its body is known.

    Attributes:
        passes: whether the server hears at once what the application says.
        passes_lengths_to: the server's own.
        said: what it said last, until the server has heard it.
    """

    __slots__ = ("_files", "_server_write", "passes", "passes_lengths_to", "said")

    def __init__(self, start_response: StartResponse, files: NamedFiles) -> None:
        self.passes_lengths_to = start_response
        self._files = files
        self.passes = False
        self.said: _Said | None = None

    def __call__(self, status: str, headers: Fields, exc_info: Any = None) -> Callable[[bytes], object]:
        # A list of ours: the application may do with its own what it likes.
        said = _Said(status, list(headers), exc_info)
        if self.passes:
            return self._tell(said)
        if self.said is not None and exc_info is None:
            # PEP 3333, "The start_response() Callable": a fatal error.
            raise AssertionError("start_response was called before, and without exc_info this time")
        self.said = said
        return self._write

    def start(self, said: _Said) -> None:
        """Let the server hear how the response starts."""
        self.passes = True
        # It may hold a traceback, and with it all its frames.
        self.said = None
        self._server_write = self._tell(said)

    def _tell(self, said: _Said) -> Callable[[bytes], object]:
        line, fields, exc_info = said
        named = _named(fields, self._files)
        if named:
            # Too late to send the file in the place of what was written, but never the client's to see.
            fields = [field for field in fields if field not in named]
        more = () if exc_info is None else (exc_info,)
        write: Callable[[bytes], object] = self.passes_lengths_to(line, fields, *more)
        return write

    def _write(self, data: bytes) -> object:
        if self.said is not None:
            if _named(self.said.fields, self._files) and may_name_file(self.said.status):
                # The file comes in its place.
                return None
            self.start(self.said)
        return self._server_write(data)


class _Begun:
    """A body whose first block has been asked for."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body
        try:
            self._rest = iter(body)
            self._first = list(islice(self._rest, 1))
        except BaseException:
            _close(body)
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._first.pop() if self._first else next(self._rest)

    def close(self) -> None:
        _close(self._body)


class _Both:
    """Closes what was opened for an answer, and the body that it stands for."""

    __slots__ = ("_body", "_content")

    def __init__(self, content: object, body: object) -> None:
        self._content = content
        self._body = body

    def __call__(self) -> None:
        try:
            _close(self._content)
        finally:
            _close(self._body)


def _named(fields: Fields, files: NamedFiles) -> Fields:
    """Return the fields that name a file."""
    return [field for field in fields if field[0].lower() in files.fields] if files.fields else []


def _for_server(environ: Environ, body: Iterable[bytes]) -> Iterable[bytes]:
    """Return a body that is to be sent as it is."""
    if type(body) is FileWrapper:
        if type(body.filelike) is PositionedFile:
            # One of our own responses has chosen it for the server's wrapper, in the place of which Django found this.
            wrapper = best_wrapper(environ) or FileWrapper
            own: Iterable[bytes] = wrapper(body.filelike, body.blksize)
            return own
        if environ["REQUEST_METHOD"] == "HEAD":
            # Not every server leaves it out.
            return Chunks((), None, lambda *_: body.close())
    return body


def _close(body: object) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
