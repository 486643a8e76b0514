"""A plan to an ASGI server: choose how to deliver it, and say why."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Final, NamedTuple, Unpack

from zcresponse import events
from zcresponse.asgi.chunks import Count, SendFailed, marking, send_chunks
from zcresponse.asgi.daphne import paced
from zcresponse.asgi.dialect import KEY, PATHSEND, Offer, Shipment, offer_in
from zcresponse.asgi.exchange import Exchange
from zcresponse.asgi.servers import cuts_paths
from zcresponse.asgi.types import Message, Receive, Scope, Send
from zcresponse.environment import read_switch
from zcresponse.events import CLIENT_LEFT, OnTransfer, Transfer, Way
from zcresponse.files import FileRegion, OpenedFile, open_file_async
from zcresponse.files.opened import FileSource
from zcresponse.http.negotiation import names_coding
from zcresponse.http.request import RequestHead
from zcresponse.plan import Offload, PlanOptions, ResponsePlan, plan_file_response
from zcresponse.plan.offload import offload_of

__all__ = [
    "OFFLOAD",
    "TAKEN_OUT",
    "Delivery",
    "choose_delivery",
    "deliver",
    "deliver_at_once",
    "offload_for",
    "part_in_chunks",
    "reports_departure",
    "request_head",
    "send_file",
]

#: Where a middleware tells responses below what a front server sends: an `Offload`, or False for nothing.
OFFLOAD: Final = "zcresponse.offload"
#: Where it tells them which fields it takes out of them: a frozenset of lower-case names.
TAKEN_OUT: Final = "zcresponse.taken_out"

# A mistake in the environment is told when the application is loaded, not to its first client.
offload_of()

# Names of the fields that plans make, ready for the wire.
_RAW_NAMES: dict[str, bytes] = {}


class Delivery(NamedTuple):
    """How a body will travel, and why not in a better way."""

    way: Way
    reason: str
    #: Who takes a Shipment; without it the message is plain.
    offer: Offer | None = None


def choose_delivery(
    scope: Scope,
    plan: ResponsePlan,
    file: OpenedFile | None,
    *,
    sendfile: bool | None = None,
    removed_later: bool = False,
) -> Delivery:
    """Choose among what the server of `scope` offers.

    Args:
        sendfile: whether zero-copy may be used; None: as `ZCRESPONSE_SENDFILE` says, else yes.
        removed_later: whether the file may be gone once `send` has returned. Some servers open a path only after that.
    """
    if plan.offloaded is not None:
        return Delivery("offload", "the front server sends the file")
    if not plan.segments:
        return Delivery("none", "")
    if file is None:
        return Delivery("chunks", "the body is not a file")
    if sendfile is False:
        return Delivery("chunks", "switched off by sendfile=False")
    entry = (scope.get("extensions") or {}).get(PATHSEND)
    if entry is None:
        for switch in ("ZCRESPONSE_SENDFILE", "ZCRESPONSE_PATHSEND"):
            if not read_switch(switch, default=True):
                return Delivery("chunks", f"switched off by {switch}")
        return Delivery("chunks", "the server offers no http.response.pathsend")
    offer = offer_in(scope)
    if offer is not None:
        # Whoever made the offer has asked the environment.
        return Delivery("sendfile", "", offer)
    if sendfile is None and not read_switch("ZCRESPONSE_SENDFILE", default=True):
        return Delivery("chunks", "switched off by ZCRESPONSE_SENDFILE")
    if cuts_paths():
        return Delivery("chunks", "anycorn on asyncio cuts bodies")
    if len(plan.segments) != 1:
        return Delivery("chunks", "plain pathsend cannot send several ranges")
    (region,) = plan.segments
    if not isinstance(region, FileRegion) or file.path is None:
        return Delivery("chunks", "plain pathsend needs a path, and the file was given open")
    if not _is_utf8(file.path):
        return Delivery("chunks", "plain pathsend cannot name the file: its path is not UTF-8")
    if removed_later:
        return Delivery("chunks", "a file that may be removed after sending needs its descriptor")
    whole = region.offset == 0 and region.count == file.stat.st_size
    if not whole and not (isinstance(entry, dict) and entry.get("ranges") is True):
        return Delivery("chunks", "plain pathsend cannot send a part of a file")
    return Delivery("pathsend", "the server opens and moves the file")


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def request_head(scope: Scope) -> RequestHead:
    """Return the part of the request that file responses read."""
    return RequestHead.from_raw_fields(scope["method"], scope["headers"])


def offload_for(scope: Scope, setting: object = None) -> Offload | None:
    """Return what a front server sends, as the deployer has chosen.

    Args:
        setting: what a framework's own setting says, see `offload_of`; without one a middleware above counts, then
            the environment.

    Raises:
        SettingError: one of them cannot be meant, also where a middleware above takes out what it would say.
    """
    if setting is None or setting == "":
        setting = scope.get(OFFLOAD)
    # Most often somebody above has looked already and found nothing.
    return None if setting is False else offload_of(setting, taken_out=scope.get(TAKEN_OUT, ()))


def raw_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return header fields as ASGI wants them: lower-case names, bytes."""
    raw = []
    for name, value in fields:
        key = _RAW_NAMES.get(name)
        if key is None:
            key = name.lower().encode("latin-1")
            if len(_RAW_NAMES) < 256:
                _RAW_NAMES[name] = key
        raw.append((key, value.encode("latin-1")))
    return raw


async def send_file(
    scope: Scope,
    receive: Receive,
    send: Send,
    path_or_file: FileSource,
    *,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (),
    offset: int = 0,
    count: int | None = None,
    closefd: bool = True,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    removed_later: bool = False,
    **options: Unpack[PlanOptions],
) -> None:
    """Answer an HTTP request with a file: conditions, ranges and the best way to move the bytes that the server has.

    Args:
        path_or_file, offset, count, closefd: as for `zcresponse.open_file`.
        status: status of a plain answer.
        headers: further header fields; see `plan_file_response` for which win.
        on_transfer: called with a `Transfer` at the end.
        sendfile: False: read and send chunks, whatever the server offers.
        removed_later: the file may be deleted once this has returned, so no server is merely told its path.
        options: `PlanOptions`.

    Raises:
        FileNotFoundError, PermissionError, NotARegularFileError: nothing was sent yet.
        FileTruncatedError: the file ended before the promised length; the server ends the connection.
    """
    # What may be gone by then is not left to a front server.
    offload = None if sendfile is False or removed_later else offload_for(scope)
    file = await open_file_async(path_or_file, offset=offset, count=count, closefd=closefd)
    try:
        plan = plan_file_response(request_head(scope), file, status=status, fields=headers, offload=offload, **options)
    except BaseException:
        file.close()
        raise
    await deliver(
        plan,
        file,
        scope,
        receive,
        send,
        on_transfer=on_transfer,
        sendfile=sendfile,
        removed_later=removed_later,
    )


def _exchange_behind(
    plan: ResponsePlan, file: OpenedFile | None, scope: Scope, send: Send, sendfile: bool | None
) -> Exchange | None:
    """Return the exchange that takes a plan's file by a call instead of messages, because nobody stands between."""
    exchange = getattr(send, "__self__", None)
    if (
        not isinstance(exchange, Exchange)
        or file is None
        or not plan.segments
        or sendfile is False
        or (scope.get("extensions") or {}).get(PATHSEND) is not exchange.entry
    ):
        return None
    return exchange


def deliver_at_once(
    plan: ResponsePlan,
    file: OpenedFile,
    scope: Scope,
    send: Send,
    *,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
) -> bool:
    """`deliver` where it takes no wait; False: nothing was done."""
    exchange = _exchange_behind(plan, file, scope, send, sendfile)
    return exchange is not None and exchange.respond_at_once(
        _start(plan), file, plan.segments, on_transfer, plan.not_offloaded
    )


async def deliver(
    plan: ResponsePlan,
    file: OpenedFile | None,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    removed_later: bool = False,
) -> None:
    """Send a planned response. Takes `file` over: it is closed here, or by whoever the message reaches.

    A plan without a file (an error, a redirect, a listing) holds its whole body as bytes.
    """
    exchange = _exchange_behind(plan, file, scope, send, sendfile)
    if exchange is not None and file is not None:
        start = _start(plan)
        if not exchange.respond_at_once(start, file, plan.segments, on_transfer, plan.not_offloaded):
            await exchange.respond(start, file, plan.segments, on_transfer, plan.not_offloaded)
        return
    try:
        delivery = choose_delivery(scope, plan, file, sendfile=sendfile, removed_later=removed_later)
    except BaseException:
        if file is not None:
            file.close()
        raise
    if delivery.offer is not None and file is not None:
        # Said first: the head is then kept for the file's first write.
        delivery.offer.announce(plan.status, plan.body_length, on_transfer)
        try:
            await send(_start(plan))
        except BaseException as error:
            file.close()
            delivery.offer.report_failure(events.reason_of(error))
            raise
        # From here on the file is the message's: `send` may return, or fail, before or after it was delivered.
        shipment = Shipment(file, plan.segments, on_transfer, plan.not_offloaded)
        await send({"type": PATHSEND, "path": file.path or "", KEY: shipment})
        return
    began = time.perf_counter()
    sent = Count()
    ending = ""
    completed: bool | None = False
    marked = marking(send)
    try:
        with file or nullcontext():
            start = _start(plan)
            await marked(part_in_chunks(start, scope) if delivery.way == "chunks" else start)
            if delivery.way in ("none", "offload"):
                await marked({"type": "http.response.body", "body": b"", "more_body": False})
                completed = True if delivery.way == "none" else None
            elif delivery.way == "pathsend" and file is not None:
                # Not marked: an OSError here may be that of the server's own opening of the path.
                await send(_plain_pathsend(plan, file))
                # The server does not say how it went, nor when.
                completed = None
            else:
                with paced(send) as paced_send:
                    marked = marking(paced_send)
                    completed = await send_chunks(plan.segments, plan.body_length, receive, marked, sent)
                ending = "" if completed else CLIENT_LEFT
    except SendFailed as failure:
        if not reports_departure(scope):
            ending = events.reason_of(failure.error)
            raise failure.error
        ending = CLIENT_LEFT
    except BaseException as error:
        ending = events.reason_of(error)
        raise
    finally:
        if events.wanted(on_transfer):
            told = completed is not None
            events.report(
                Transfer(
                    delivery.way,
                    "; ".join(filter(None, (plan.not_offloaded, delivery.reason, ending))),
                    plan.status,
                    plan.promised,
                    sent.bytes if told else None,
                    time.perf_counter() - began if told else None,
                    completed,
                ),
                on_transfer,
            )


def reports_departure(scope: Scope) -> bool:
    """Whether an OSError of `send` means that the client has left (ASGI 2.4, "Disconnected Client")."""
    version = scope.get("asgi", {}).get("spec_version", "2.0")
    return tuple(map(int, version.split("."))) >= (2, 4)


def part_in_chunks(start: Message, scope: Scope) -> Message:
    """Return the start of a response whose body goes in chunks, such that no compressor above touches a part of a file.

    Only a 206 is changed, to a client that names a coding, so that somebody may compress for it.
    """
    if start["status"] != 206:
        return start
    fields: list[tuple[bytes, bytes]] = start["headers"]
    if any(name.lower() == b"content-encoding" for name, _ in fields):
        return start
    if not names_coding(RequestHead.from_raw_fields("GET", scope["headers"]).accept_encoding):
        return start
    # RFC 9110 §8.4.1: `identity` "SHOULD NOT be included in the Content-Encoding header". It is the lesser evil.
    # brotli-asgi, zstd-asgi and the GZipMiddleware of older Starlettes compress parts like anything else, and a client
    # takes what they make of them for the plain bytes that Content-Range speaks of: a broken file that nobody notices.
    # They were seen to leave alone what has a Content-Encoding, whatever it says.
    return {**start, "headers": [*fields, (b"content-encoding", b"identity")]}


def _start(plan: ResponsePlan) -> Message:
    return {"type": "http.response.start", "status": plan.status, "headers": _raw_fields_of(plan)}


# What was made of the fields of plain answers, which are most often the same again.
_known: Final[dict[tuple[tuple[str, str], ...], list[tuple[bytes, bytes]]]] = {}
_REMEMBERED: Final = 1024


def _raw_fields_of(plan: ResponsePlan) -> list[tuple[bytes, bytes]]:
    if plan.status != 200:
        return raw_fields(plan.fields)
    key = tuple(plan.fields)
    known = _known.get(key)
    if known is None:
        known = raw_fields(plan.fields)
        if any(name == b"set-cookie" for name, _ in known):
            # Of each client another one, and nobody else's to keep.
            return known
        if len(_known) >= _REMEMBERED:
            _known.clear()
        _known[key] = known
    # Middleware may add to it.
    return known.copy()


def _plain_pathsend(plan: ResponsePlan, file: OpenedFile) -> Message:
    (region,) = plan.segments
    assert isinstance(region, FileRegion)
    message: Message = {"type": PATHSEND, "path": file.path}
    if region.offset != 0 or region.count != file.stat.st_size:
        message["offset"] = region.offset
        message["count"] = region.count
    return message
