"""How a response was handed over, and why not in a better way.

Whoever delivers a body reports one `Transfer`: to the logger `zcresponse` (level DEBUG), to the response's
`on_transfer=` callable and to every `subscribe`d one. A callable that raises is logged and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["OnTransfer", "Transfer", "Way", "logger", "report", "subscribe"]

logger: Final = logging.getLogger("zcresponse")

#: The one list of ways a body can travel.
#:
#: - `none`: there was no body to send (HEAD, 304, 412, 416, an empty file)
#: - `sendfile`: the kernel moved the bytes from the page cache to the socket, counted
#: - `joined`: a small cached body left in one write together with the head
#: - `pathsend`: the server was given a path and moves the bytes as it likes
#: - `file_wrapper`: the server was given an open file through `wsgi.file_wrapper` and moves the bytes as it likes
#: - `offload`: a front server was told to send the file in our place
#: - `chunks`: the bytes were read and given to the server block by block
Way: TypeAlias = Literal["none", "sendfile", "joined", "pathsend", "file_wrapper", "offload", "chunks"]


#: The reason of the most common ending.
CLIENT_LEFT: Final = "the client left"


@dataclass(frozen=True, slots=True)
class Transfer:
    """The account of one response body.

    Attributes:
        way: how the bytes travelled, see `Way`.
        reason: why no better way was taken, or why the body was not completed; empty when there is nothing to tell.
        status: the response's status code.
        bytes_promised: length of the body in bytes, as the response's framing announced it; of the whole file where a
            front server sends it.
        bytes_sent: bytes accepted by the socket or the server; None where the server does not tell.
        duration_s: seconds from the hand-over to the end; None where the server does not tell.
        completed: whether all that was promised was accepted; None where the server does not tell.
    """

    way: Way
    reason: str
    status: int
    bytes_promised: int
    bytes_sent: int | None
    duration_s: float | None
    completed: bool | None


def reason_of(error: BaseException) -> str:
    """Return what an error says of a body that was not completed, in words for `Transfer.reason`."""
    if type(error).__name__ in ("CancelledError", "Cancelled"):  # asyncio's, trio's
        return "the response was cancelled"
    return str(error) or type(error).__name__


OnTransfer: TypeAlias = Callable[[Transfer], object]

_subscribers: list[OnTransfer] = []


@contextmanager
def subscribe(on_transfer: OnTransfer) -> Iterator[None]:
    """Call `on_transfer` for every transfer of this process while the block runs, in whichever thread it ends."""
    _subscribers.append(on_transfer)
    try:
        yield
    finally:
        _subscribers.remove(on_transfer)


def wanted(on_transfer: OnTransfer | None) -> bool:
    """Whether anybody would hear of a transfer: a report that nobody reads need not be made."""
    return on_transfer is not None or bool(_subscribers) or logger.isEnabledFor(logging.DEBUG)


def report(transfer: Transfer, on_transfer: OnTransfer | None = None) -> None:
    """Tell the log, the response's own callable and the subscribers of `transfer`. Never raises."""
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "%d by %s%s: %s of %d bytes%s",
            transfer.status,
            transfer.way,
            f" ({transfer.reason})" if transfer.reason else "",
            "unknown" if transfer.bytes_sent is None else transfer.bytes_sent,
            transfer.bytes_promised,
            "" if transfer.completed is not False else ", not completed",
            extra={"transfer": transfer},
        )
    for listener in (*_subscribers, on_transfer) if on_transfer is not None else tuple(_subscribers):
        try:
            listener(transfer)
        except Exception:
            logger.exception("on_transfer=%r failed", listener)
