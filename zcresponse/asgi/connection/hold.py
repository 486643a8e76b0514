"""What the client sends while a file is being sent to it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

from zcresponse.events import logger

__all__ = ["InputHold"]

#: How many bytes of the client's next requests are kept during a transfer before reading is paused.
HELD_INPUT: Final = 64 * 1024


class InputHold(asyncio.Protocol):
    """Stands in for a connection's protocol during a transfer.

    What the client sends meanwhile is kept and given to the protocol afterwards: uvicorn would answer garbage with a
    400 in the middle of the body. Reading goes on, so that a reset is seen, and because unread bytes would turn a
    close into a reset that cuts what is queued; only beyond `HELD_INPUT` it is paused. A client that closes its
    sending side still gets its body.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._protocol: Any = transport.get_protocol()
        self._held = bytearray()
        self._paused = False
        self.half_closed = False
        self.lost = False
        self.on_lost: Any = None
        self.on_resume: Any = None

    def __enter__(self) -> InputHold:
        self._transport.set_protocol(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Put the protocol back and give it what was kept, unless the connection ends.

        After an error the connection has to be ended: in a body that was not completed, the bytes of a further answer
        would be taken for the body's. So the protocol hears no more but that the connection is lost.
        """
        if self.lost or kind is not None:
            return
        protocol: Any = self._transport.get_protocol()
        if protocol is self:
            protocol = self._protocol
            self._transport.set_protocol(protocol)
        # Else a handshake that was pipelined behind the file has made it a WebSocket's already.
        if self._transport.is_closing():
            return
        if self._paused:
            self._transport.resume_reading()
        held, self._held = bytes(self._held), bytearray()
        if held:
            try:
                protocol.data_received(held)
            except Exception:
                # The answer is complete, and not to blame: uvicorn's h11 protocol fails at a bad chunk of the request's
                # body that comes behind it.
                logger.debug("uvicorn could not take what the client sent during a transfer", exc_info=True)
                self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > HELD_INPUT and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self.half_closed = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._protocol.connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
        if self.on_resume is not None:
            self.on_resume()
