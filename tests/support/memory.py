"""An ASGI server in memory: the two callables and a scope."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["Client", "scope"]


class Client:
    """The two callables of an ASGI server, in memory."""

    def __init__(self, *, waits: Callable[[int], bool] = lambda total: False) -> None:
        self.messages: list[Any] = []
        self.total = 0
        self.gone = asyncio.Event()
        self._waits = waits

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        self.total += len(message.get("body", b""))
        if self._waits(self.total):
            await asyncio.sleep(0)

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.messages if m["type"] == "http.response.body" and m["body"]]


def scope(method: str = "GET", *fields: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http", "method": method, "headers": list(fields), "asgi": {"spec_version": "2.3"}}
