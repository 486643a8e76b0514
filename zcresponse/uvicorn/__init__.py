"""uvicorn protocol classes that let the kernel's sendfile(2) move files.

```
uvicorn app:app --http zcresponse.uvicorn:ZeroCopyProtocol
```

`ZeroCopyProtocol` is httptools' parser when that is installed, else h11's, as uvicorn's own `auto` is. Loading this
package loads uvicorn. uvicorn's code is wrapped, never copied: its cycle still validates, frames, counts and logs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from zcresponse.asgi.connection.cycle import FileSender
from zcresponse.environment import Settings

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:
    HttpToolsProtocol = None  # type: ignore[assignment, misc]  # httptools is not installed

__all__ = ["ZeroCopyH11Protocol", "ZeroCopyHttpToolsProtocol", "ZeroCopyProtocol"]


class _FileSending(asyncio.Protocol):
    """What the protocol classes share: the application is wrapped, all else is uvicorn's.

    `--http` takes no arguments: configure by a subclass's attributes or by the environment (an attribute that is not
    None wins).
    """

    #: Offer `http.response.pathsend`; by default `ZCRESPONSE_PATHSEND`, else yes.
    pathsend: bool | None = None
    #: Offer `http.response.zerocopysend`; by default `ZCRESPONSE_ZEROCOPYSEND`, else no.
    zerocopysend: bool | None = None
    #: Use sendfile(2); by default `ZCRESPONSE_SENDFILE`, else yes.
    sendfile: bool | None = None
    #: Seconds after which a reader that takes nothing is cut, 0 for never; by default `ZCRESPONSE_STALL_TIMEOUT`,
    #: else 60.
    stall_timeout_s: float | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # A mistake is told when the server starts. Not kept: what is set on the class afterwards counts too.
        _settings_of.__wrapped__(cls)

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)  # type: ignore[call-arg]
        self.app: Any = FileSender(self.app, _settings_of(cast("Any", type(self))))


# Read at once, so that a mistake is told when the server starts and not to each client.
_environment = Settings.from_environment()


@functools.cache
def _settings_of(protocol_class: Any) -> Settings:
    chosen = {
        field.name: getattr(protocol_class, field.name)
        for field in dataclasses.fields(Settings)
        if getattr(protocol_class, field.name) is not None
    }
    return dataclasses.replace(_environment, **chosen)


class ZeroCopyH11Protocol(_FileSending, H11Protocol):
    """uvicorn's h11 protocol with kernel sendfile for files."""


if HttpToolsProtocol is not None:

    class ZeroCopyHttpToolsProtocol(_FileSending, HttpToolsProtocol):
        """uvicorn's httptools protocol with kernel sendfile for files."""

    #: httptools' parser when it is installed, else h11's.
    ZeroCopyProtocol: type[asyncio.Protocol] = ZeroCopyHttpToolsProtocol
else:
    ZeroCopyProtocol = ZeroCopyH11Protocol
