"""The words between a file response and a server that can take more than a path.

`http.response.pathsend` (asgiref, docs/extensions.rst) sends one whole file by its path. Its entry in
`scope["extensions"]` may carry information, and unknown keys of a message are ignored, which leaves room for:

- `ranges: True` in the entry: the message may say `offset` and `count` (bytes), as proposed upstream.
- `zcresponse: Offer` in the entry: the message may carry `zcresponse: Shipment`, an opened file and a list of
  segments, whose ownership travels with the message.

It is pathsend because stock middleware lets it through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zcresponse.asgi.types import Scope
from zcresponse.events import OnTransfer, Transfer, report
from zcresponse.files import OpenedFile
from zcresponse.plan import Segment

__all__ = ["KEY", "PATHSEND", "ZEROCOPYSEND", "Offer", "Shipment", "extensions_with", "offer_in"]

PATHSEND = "http.response.pathsend"
ZEROCOPYSEND = "http.response.zerocopysend"
KEY = "zcresponse"


class Offer:
    """What a deliverer puts into the scope of one request: it takes shipments.

    Attributes:
        announced: whether a response has said that its shipment follows, so that the deliverer can tell a message that
            somebody swallowed on the way from an application that sent none.
    """

    # Of the class, not of each: there is one for every request.
    announced = False

    def announce(self, status: int, promised: int, on_transfer: OnTransfer | None) -> None:
        """Say that a shipment of `promised` bytes follows."""
        self.announced = True
        self._status = status
        self._promised = promised
        self._on_transfer = on_transfer

    def report_failure(self, reason: str) -> None:
        """Tell whoever wants to hear that the announced shipment never reached a deliverer."""
        report(Transfer("sendfile", reason, self._status, self._promised, 0, None, False), self._on_transfer)


class Shipment:
    """A body on its way: the segments, the file they lie in, who wants to hear how it went, and why it is sent at all.

    From the moment it is made the file belongs to whoever holds the shipment; the deliverer closes it. If the message
    is dropped, the file is closed with the last reference.
    """

    __slots__ = ("file", "on_transfer", "reason", "segments")

    def __init__(
        self, file: OpenedFile, segments: Sequence[Segment], on_transfer: OnTransfer | None = None, reason: str = ""
    ) -> None:
        file.hand_over()
        self.file = file
        self.segments = segments
        self.on_transfer = on_transfer
        self.reason = reason


def extensions_with(scope: Scope, offer: Offer) -> dict[str, Any]:
    """Return the extensions of `scope`, and pathsend with ranges and shipments."""
    entry = {"ranges": True, KEY: offer}
    others = scope.get("extensions")
    return {**others, PATHSEND: entry} if others else {PATHSEND: entry}


def offer_in(scope: Scope) -> Offer | None:
    """Return the offer to take shipments that some layer above has made, if any."""
    entry = (scope.get("extensions") or {}).get(PATHSEND)
    offer = entry.get(KEY) if isinstance(entry, dict) else None
    return offer if isinstance(offer, Offer) else None
