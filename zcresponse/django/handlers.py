"""Where the answers of file responses are decided and handed to the server: a middleware, and Django's applications."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

import django
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import FileResponse, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from zcresponse.asgi.daphne import paced
from zcresponse.asgi.transport import deliver, deliver_at_once
from zcresponse.django.bodies import in_threads, iterates_as
from zcresponse.django.response import ZeroCopyFileResponse, fields_of, may_be_removed, offload_setting
from zcresponse.django.sources import Content, closes_plainly, open_by_path, plain_file
from zcresponse.files import MemoryFile, OpenedFile, open_content
from zcresponse.plan import ResponsePlan
from zcresponse.plan.offload import offload_of
from zcresponse.wsgi.chunks import Chunks
from zcresponse.wsgi.transport import START_RESPONSE
from zcresponse.wsgi.wrappers import FileWrapper

if TYPE_CHECKING:
    from zcresponse.asgi.types import Message, Receive, Scope, Send
    from zcresponse.wsgi.types import Environ, StartResponse

__all__ = ["ZeroCopyMiddleware", "get_asgi_application", "get_wsgi_application"]


class ZeroCopyMiddleware:
    """Decides the answers of `ZeroCopyFileResponse`s, under Django's own WSGI and ASGI applications.

    To HEAD they have no body, also where that would be a stream or compressed: not every server leaves it out.

    Put it first in `MIDDLEWARE`: it then sees what the others have made of a response. Further down it works too; a
    middleware above it that wraps the body, as GZipMiddleware does, then gets the whole file in place of a part.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        _check_settings()
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self._is_async:
            return self._call_async(request)
        return _decided(self.get_response(request), request)

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        return _decided(await self.get_response(request), request)


def _decided(response: Any, request: HttpRequest) -> Any:
    if isinstance(response, ZeroCopyFileResponse):
        response.decide(request)
    return response


class ZeroCopyWSGIHandler(WSGIHandler):
    """Django's WSGI application, which decides what `ZeroCopyFileResponse`s answer. To HEAD nothing has a body."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Any:
        environ[START_RESPONSE] = start_response
        try:
            body = super().__call__(environ, start_response)
        finally:
            # It may know environ in its turn.
            del environ[START_RESPONSE]
        if environ["REQUEST_METHOD"] == "HEAD" and type(body) is not FileWrapper:
            # Not every server leaves it out: the client would take it for the next answer. Nor is a stream read for it,
            # which may be a whole download from elsewhere.
            return Chunks((), None, lambda *_: body.close())
        return body

    def get_response(self, request: Any) -> Any:
        response = _decided(super().get_response(request), request)
        if request.META.get("REQUEST_METHOD") == "HEAD" and request.META.get("wsgi.file_wrapper") is not FileWrapper:
            # A server may take note of what its own is called with. `zcresponse.wsgi.ZeroCopyMiddleware`, whose this
            # one is, has validators to tell of the file. Closing the response closes it.
            response.file_to_stream = None
        return response


class ZeroCopyASGIHandler(ASGIHandler):
    """Django's ASGI application, which hands files to the server and never holds more than a few blocks of one.

    To HEAD nothing has a body.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        listening = _Receive(receive)
        with paced(send) as paced_send:
            try:
                await super().__call__(scope, listening, paced_send)
            finally:
                listening.forget()

    async def listen_for_disconnect(self, receive: Any) -> None:
        try:
            await super().listen_for_disconnect(receive)
        except RequestAborted as error:
            if isinstance(receive, _Receive):
                receive.aborted = error
            raise

    async def run_get_response(self, request: Any) -> Any:
        response = _decided(await super().run_get_response(request), request)
        if isinstance(response, FileResponse) or request.scope["method"] == "HEAD":
            response._zcresponse_request = request
        return response

    async def send_response(self, response: Any, send: Send) -> None:
        request = getattr(response, "_zcresponse_request", None)
        if request is None:
            await super().send_response(response, send)
            return
        try:
            if isinstance(response, FileResponse) and not response.is_async:
                await self._send_file_response(response, request, send)
            else:
                await self._send_other(response, request, send)
        except Exception:
            # Django closes a response whose client has left, but none that failed. Should we be cancelled over it, what
            # went wrong first is still what the server has to hear.
            with suppress(asyncio.CancelledError):
                await sync_to_async(response.close)()
            raise

    async def _send_file_response(self, response: Any, request: Any, send: Send) -> None:
        if isinstance(response, ZeroCopyFileResponse):
            content, plan = _answer(response)
            on_transfer, sendfile = response._on_transfer, response._sendfile
        else:
            content, plan = _stock(response, request.scope["method"])
            on_transfer, sendfile = None, None
        if content is None or plan is None:
            if response.streaming and iterates_as(type(response), FileResponse):
                # Block by block, as ours: Django would read all of it before it sends the first.
                response.streaming_content = in_threads(response.streaming_content)
            await self._send_other(response, request, send)
            return
        fields = fields_of(response)
        if response.cookies:
            fields += [("Set-Cookie", cookie.output(header="").strip()) for cookie in response.cookies.values()]
        if fields != plan.fields or response.status_code != plan.status:
            plan = ResponsePlan(response.status_code, fields, plan.segments, plan.offloaded, plan.not_offloaded)
        file = content if isinstance(content, OpenedFile) else None
        if file is not None and deliver_at_once(
            plan, file, request.scope, send, on_transfer=on_transfer, sendfile=sendfile
        ):
            return
        await deliver(
            plan,
            file,
            request.scope,
            # Django itself listens for the client's departure, and cancels us.
            _never,
            send,
            on_transfer=on_transfer,
            sendfile=sendfile,
            removed_later=may_be_removed(response, request),
        )

    async def _send_other(self, response: Any, request: Any, send: Send) -> None:
        if request.scope["method"] == "HEAD":
            # As in Django, but for the body.
            bare = HttpResponse()
            bare.status_code, bare.headers, bare.cookies = response.status_code, response.headers, response.cookies
            response = bare
        await super().send_response(response, send)


#: What is left of a file that was given away. It has nothing to close.
_NOTHING: Final = MemoryFile(b"")


def _answer(response: ZeroCopyFileResponse) -> tuple[Content | None, ResponsePlan | None]:
    """Return what the response sends, if it is a file as it was decided: it is its message's from now on."""
    if response._file is None or not response._is_untouched or response._page:
        return None, None
    content = response._file.content
    if isinstance(content, OpenedFile):
        response._file.content = _NOTHING
    return content, response._plan


def _stock(response: FileResponse, method: str) -> tuple[Content | None, ResponsePlan | None]:
    """Return what a response of Django's own sends, if it is a file that nobody has touched."""
    if not iterates_as(type(response), FileResponse):
        return None, None
    try:
        plain = plain_file(response.file_to_stream)
        offset = plain.tell()
        # Django closes the response's own descriptor, and the message may live longer.
        content = open_content(plain, offset=offset, closefd=False)
    except Exception:
        # No file at all, or one that must be read: whatever it may raise.
        return None, None
    if response.headers.get("Content-Length") != str(content.size):
        content.close()
        return None, None
    if isinstance(content, OpenedFile) and closes_plainly(response.file_to_stream):
        content = open_by_path(content, plain, offset, None) or content
    segments = (content.region(),) if content.size and method != "HEAD" else ()
    return content, ResponsePlan(response.status_code, [], segments)


class _Receive:
    """A server's `receive`, and the error by which Django hears that the client has left or, from uvicorn, has got all.

    Its traceback leads to the frame that knows the task whose error it is. With all of the request in it this circle
    would wait for Python's collector: a tenth of what an answer takes.
    """

    __slots__ = ("_receive", "aborted")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.aborted: RequestAborted | None = None

    def __call__(self) -> Awaitable[Message]:
        return self._receive()

    def forget(self) -> None:
        """The request is over: nobody asks any more where it was raised."""
        if self.aborted is not None:
            self.aborted.__traceback__ = None
            self.aborted = None


async def _never() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def _check_settings() -> None:
    """Tell a mistake in the settings now, not to the first client."""
    offload_of(offload_setting())


def get_wsgi_application() -> ZeroCopyWSGIHandler:
    """Return the WSGI application of the project, as `django.core.wsgi.get_wsgi_application`."""
    django.setup(set_prefix=False)
    _check_settings()
    return ZeroCopyWSGIHandler()


def get_asgi_application() -> ZeroCopyASGIHandler:
    """Return the ASGI application of the project, as `django.core.asgi.get_asgi_application`."""
    django.setup(set_prefix=False)
    _check_settings()
    return ZeroCopyASGIHandler()
