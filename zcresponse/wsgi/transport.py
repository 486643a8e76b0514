"""A plan to a WSGI server: choose how to deliver it, and say why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Unpack

from zcresponse import events
from zcresponse.environment import read_switch
from zcresponse.errors import FileTruncatedError
from zcresponse.events import OnTransfer, Transfer, Way
from zcresponse.files import FileRegion, MemoryFile, OpenedFile, open_content
from zcresponse.files.linux import Storage
from zcresponse.files.memory import ContentSource
from zcresponse.files.opened import check_window, open_and_learn, open_at_once
from zcresponse.files.places import is_remote
from zcresponse.files.positioned import PositionedFile
from zcresponse.http.dates import format_http_date
from zcresponse.http.request import RequestHead
from zcresponse.plan import Offload, PlanOptions, ResponsePlan, plan_file_response
from zcresponse.plan.offload import offload_of
from zcresponse.plan.response import Fields, values_of
from zcresponse.wsgi.chunks import BLOCK, Block, Chunks, read_whole
from zcresponse.wsgi.hubs import Hub, close_fd, run_in_thread, start_in_thread
from zcresponse.wsgi.servers import Takes, best_wrapper, server_behind
from zcresponse.wsgi.types import Environ, StartResponse
from zcresponse.wsgi.wrappers import file_wrapper

__all__ = [
    "OFFLOAD",
    "SENDFILE",
    "START_RESPONSE",
    "TAKEN_OUT",
    "Delivery",
    "choose_delivery",
    "deliver",
    "make_body",
    "make_content",
    "missing_date",
    "offload_for",
    "open_beside",
    "open_for",
    "request_head",
    "send_file",
    "status_line",
]


#: Where a middleware tells responses below what a front server sends: an `Offload`, or False for nothing.
OFFLOAD: Final = "zcresponse.offload"
#: Where it tells them which fields it takes out of them: a frozenset of lower-case names.
TAKEN_OUT: Final = "zcresponse.taken_out"
#: Where it tells them whether zero-copy may be used: a bool.
SENDFILE: Final = "zcresponse.sendfile"
#: Where an application leaves the `start_response` that it was given, for doors that never see it.
START_RESPONSE: Final = "zcresponse.start_response"

#: The variables of conditions and ranges.
_CONDITIONS: Final = frozenset(
    ("HTTP_RANGE", "HTTP_IF_RANGE", "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE",
     "HTTP_IF_UNMODIFIED_SINCE")
)  # fmt: skip

#: Up to here, in bytes, a body that a server takes as bytes is read when the answer is made.
_SMALL: Final = 64 * 1024

# A mistake in the environment is told when the application is loaded, not to its first client.
offload_of()


class Delivery(NamedTuple):
    """How a body will travel, and why not in a better way."""

    way: Way
    reason: str


def choose_delivery(
    environ: Environ,
    plan: ResponsePlan,
    file: OpenedFile | MemoryFile | None,
    *,
    start_response: StartResponse | None = None,
    sendfile: bool | None = None,
) -> Delivery:
    """Choose among what the server of `environ` offers.

    Args:
        start_response: what is given the plan's header fields; None: nobody here knows.
        sendfile: whether zero-copy may be used; None: as a middleware above says, or `ZCRESPONSE_SENDFILE`, else yes.
            Nothing is used that a middleware above has switched off.
    """
    if plan.offloaded is not None:
        return Delivery("offload", "the front server sends the file")
    if not plan.segments:
        return Delivery("none", "")
    if not isinstance(file, OpenedFile):
        return Delivery("chunks", "the body is not a file")
    above: bool | None = environ.get(SENDFILE)
    if sendfile is False or above is False:
        return Delivery("chunks", "switched off by sendfile=False")
    if sendfile is None and above is None and not read_switch("ZCRESPONSE_SENDFILE", default=True):
        return Delivery("chunks", "switched off by ZCRESPONSE_SENDFILE")
    server = server_behind(environ)
    if file_wrapper(environ) is None:
        return Delivery("chunks", server.reason or "somebody has taken wsgi.file_wrapper out")
    if len(plan.segments) != 1:
        return Delivery("chunks", "wsgi.file_wrapper cannot send several ranges")
    (region,) = plan.segments
    if not isinstance(region, FileRegion):
        return Delivery("chunks", "the body is not a file")
    if server.takes is Takes.NOTHING:
        return Delivery("chunks", server.reason)
    if region.count < server.wrapper_from:
        return Delivery("chunks", f"a small body costs {server.name} less as bytes")
    if server.reads_in_loop and file.storage is Storage.UNKNOWN:
        return Delivery("chunks", f"{server.name} would let everybody wait for the file's file system")
    if server.takes is Takes.WHOLE:
        if region.offset != 0 or region.count != file.stat.st_size:
            return Delivery("chunks", f"{server.name} sends every file from its beginning to its end")
        if not file.is_settled():
            return Delivery("chunks", f"{server.name} sends every file to its end, and this one may be growing")
    elif region.offset + region.count != file.stat.st_size and not server.hears(start_response):
        return Delivery("chunks", f"{server.name} would go on behind the part, had a middleware taken its length out")
    reads = server.reads_in_loop and best_wrapper(environ) is file_wrapper(environ)
    return Delivery("file_wrapper", "the server reads the file" if reads else "the server moves the file")


def request_head(environ: Environ) -> RequestHead:
    """Return the part of the request that file responses read.

    A field that was sent on several lines comes joined by commas, as PEP 3333's CGI variables have it.
    """
    get = environ.get
    if environ.keys().isdisjoint(_CONDITIONS):
        return RequestHead.without_conditions(environ["REQUEST_METHOD"], get("HTTP_ACCEPT_ENCODING"))
    return RequestHead(
        environ["REQUEST_METHOD"],
        range=get("HTTP_RANGE"),
        if_range=get("HTTP_IF_RANGE"),
        if_match=get("HTTP_IF_MATCH"),
        if_none_match=get("HTTP_IF_NONE_MATCH"),
        if_modified_since=get("HTTP_IF_MODIFIED_SINCE"),
        if_unmodified_since=get("HTTP_IF_UNMODIFIED_SINCE"),
        accept_encoding=get("HTTP_ACCEPT_ENCODING"),
    )


def offload_for(environ: Environ, setting: object = None) -> Offload | None:
    """Return what a front server sends, as the deployer has chosen.

    Args:
        setting: what a framework's own setting says, see `offload_of`; without one a middleware above counts, then
            the environment.

    Raises:
        SettingError: one of them cannot be meant, also where a middleware above takes out what it would say.
    """
    if setting is None or setting == "":
        setting = environ.get(OFFLOAD)
    return offload_of(setting, taken_out=environ.get(TAKEN_OUT, ()))


def open_for(
    environ: Environ, source: ContentSource, *, offset: int = 0, count: int | None = None, closefd: bool = True
) -> OpenedFile | MemoryFile:
    """`open_content` that does not stop the other greenlets of the server of `environ`, where there are any."""
    hub = server_behind(environ).hub
    if hub is None or not isinstance(source, (str, bytes, os.PathLike)):
        return open_content(source, offset=offset, count=count, closefd=closefd)
    check_window(offset, count)
    path = os.fspath(source)
    file = open_at_once(path, offset, count)
    if file is None:
        file = open_beside(hub, open_and_learn, path, offset, count, remote=is_remote(path))
    return file


def open_beside(hub: Hub, opener: Callable[..., OpenedFile], *args: Any, remote: bool = False) -> OpenedFile:
    """Return `opener(*args)`, run in a thread while other greenlets go on; see `run_in_thread`."""
    file = run_in_thread(hub, opener, *args, remote=remote, discard=_close)
    if file.storage is Storage.UNKNOWN:
        file.close_by(partial(start_in_thread, hub, close_fd))
    return file


def send_file(
    environ: Environ,
    start_response: StartResponse,
    path_or_file: ContentSource,
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
    offset: int = 0,
    count: int | None = None,
    closefd: bool = True,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    **options: Unpack[PlanOptions],
) -> Iterable[bytes]:
    """Answer a request with a file: conditions, ranges and the best way to move the bytes that the server has.

    Return the result to the server as it is, unless somebody must have the bytes: a middleware that iterates over it
    gets the right ones, only not zero-copy.

    Args:
        path_or_file, offset, count, closefd: as for `zcresponse.open_file`; or a BytesIO.
        status: status of a plain answer.
        headers: further header fields; see `plan_file_response` for which win.
        on_transfer: called with a `Transfer` at the end.
        sendfile: False: read and give blocks, whatever the server offers.
        options: `PlanOptions`.

    Raises:
        FileNotFoundError, PermissionError, NotARegularFileError: `start_response` was not called yet.
    """
    offload = None if sendfile is False else offload_for(environ)
    file = open_for(environ, path_or_file, offset=offset, count=count, closefd=closefd)
    try:
        plan = plan_file_response(
            request_head(environ), file, status=status, fields=headers, offload=offload, **options
        )
    except BaseException:
        file.close()
        raise
    return deliver(plan, file, environ, start_response, on_transfer=on_transfer, sendfile=sendfile)


def deliver(
    plan: ResponsePlan,
    file: OpenedFile | MemoryFile | None,
    environ: Environ,
    start_response: StartResponse,
    *,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
) -> Iterable[bytes]:
    """Start a planned response and return its body. Takes `file` over: closing the body closes it.

    A plan without a file (an error, a redirect, a listing) holds its whole body as bytes.
    """
    on_close = _nothing if file is None else file.close
    try:
        body = make_body(
            plan,
            file,
            environ,
            on_close=on_close,
            start_response=start_response,
            on_transfer=on_transfer,
            sendfile=sendfile,
        )
    except BaseException:
        on_close()
        raise
    if isinstance(file, OpenedFile):
        # A server or middleware that drops the body without closing it leaves that to the finalizer.
        file.hand_over()
    try:
        start_response(status_line(plan.status), [*plan.fields, *missing_date(environ, plan.fields)])
    except BaseException:
        if hasattr(body, "close"):
            body.close()
        raise
    return body


def make_body(
    plan: ResponsePlan,
    file: OpenedFile | MemoryFile | None,
    environ: Environ,
    *,
    on_close: Callable[[], object],
    start_response: StartResponse | None = None,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
) -> Iterable[bytes]:
    """Return the body of a planned response for the server of `environ`.

    Args:
        on_close: called when it is done.
        start_response, sendfile: as for `choose_delivery`.
        on_transfer: called with a `Transfer` at the end.
    """
    content = make_content(
        plan,
        file,
        environ,
        on_close=on_close,
        start_response=start_response,
        on_transfer=on_transfer,
        sendfile=sendfile,
    )
    if not isinstance(content, PositionedFile):
        return content
    wrapper = best_wrapper(environ)
    assert wrapper is not None
    # Unbuffered and positioned; the size is for whoever reads it after all.
    body: Iterable[bytes] = wrapper(content, BLOCK)
    return body


def make_content(
    plan: ResponsePlan,
    file: OpenedFile | MemoryFile | None,
    environ: Environ,
    *,
    on_close: Callable[[], object],
    start_response: StartResponse | None = None,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
) -> PositionedFile | Block | Chunks:
    """Return what `make_body` would: a file for the server's `wsgi.file_wrapper`, or the body itself."""
    server = server_behind(environ)
    if len(plan.segments) == 1 and not events.wanted(on_transfer):
        (segment,) = plan.segments
        if len(segment) <= _SMALL and server.reads_small(len(segment)):
            # What cannot be read now is tried again when it is sent, and fails then.
            with suppress(OSError):
                data = read_whole(segment)
                joins = server.joins
                return Block(data, on_close, None if joins is None else partial(joins, start_response, len(data)))
    delivery = choose_delivery(environ, plan, file, start_response=start_response, sendfile=sendfile)
    account = _Account(plan, on_close, on_transfer)
    if delivery.way == "file_wrapper":
        (region,) = plan.segments
        assert isinstance(region, FileRegion)
        try:
            positioned = PositionedFile(region, account.close_wrapped, server.shows)
        except OSError:
            delivery = Delivery("chunks", "the descriptor is shared and cannot be opened a second time")
        else:
            account.delivery = delivery
            return positioned
    account.delivery = delivery
    return Chunks(plan.segments, server.hub, account.close, partial(server.hang_up, environ))


class _Account:
    """Ends a body and tells how it went."""

    __slots__ = ("_began", "_on_close", "_on_transfer", "_plan", "delivery")

    def __init__(self, plan: ResponsePlan, on_close: Callable[[], object], on_transfer: OnTransfer | None) -> None:
        self.delivery = Delivery("none", "")
        self._plan = plan
        self._on_close = on_close
        self._on_transfer = on_transfer
        self._began = time.perf_counter()

    def close_wrapped(self, missing: int | None) -> None:
        """End a body that the server has moved: it does not say how much of it."""
        if missing == 0:
            self.close(None, None, None)
            return
        words = "cannot be read any more" if missing is None else f"ended {missing} bytes before the promised end"
        error = FileTruncatedError(f"the file {words}")
        self.close(None, False, error)
        # A server that has not noticed would take another request on the connection on which it owes these bytes.
        raise error

    def close(self, taken: int | None, completed: bool | None, error: BaseException | None) -> None:
        """End a body of which the server has taken so many bytes."""
        try:
            self._on_close()
        finally:
            if events.wanted(self._on_transfer):
                if error is not None:
                    ending = events.reason_of(error)
                else:
                    ending = "the server asked for no more, as when the client has left" if completed is False else ""
                plan = self._plan
                ours = plan.offloaded is None
                events.report(
                    Transfer(
                        self.delivery.way,
                        "; ".join(filter(None, (plan.not_offloaded, self.delivery.reason, ending))),
                        plan.status,
                        plan.promised,
                        taken if ours else None,
                        time.perf_counter() - self._began if ours else None,
                        completed if ours else None,
                    ),
                    self._on_transfer,
                )


def _close(file: OpenedFile) -> None:
    file.close_by(close_fd)
    file.close()


def missing_date(environ: Environ, fields: Iterable[tuple[str, str]]) -> Fields:
    """Return the Date that an answer must have (RFC 9110 §6.6.1), where neither the server nor the caller gives it."""
    if server_behind(environ).dates or values_of(fields, "Date"):
        return []
    return [("Date", format_http_date(int(time.time())))]


def status_line(status: int) -> str:
    """Return the status with its reason phrase, which PEP 3333 does not let be empty."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"


def _nothing() -> None:
    pass
