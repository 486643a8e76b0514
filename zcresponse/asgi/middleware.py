"""The best the server above has, for an application that knows only pathsend."""

from __future__ import annotations

import sys
from dataclasses import replace

from zcresponse.asgi.types import ASGIApp, Receive, Scope, Send
from zcresponse.environment import Settings

__all__ = ["ZeroCopyMiddleware"]


class ZeroCopyMiddleware:
    """ASGI middleware that gives the application below kernel sendfile where `--http` cannot be set.

    Put it outermost, directly below the server: it recognises uvicorn's own request cycle behind `send` and sends
    files on its connection as `zcresponse.uvicorn.ZeroCopyProtocol` does. Behind anything that it does not recognise
    (another server, TLS, HTTP/2, a middleware further out that wraps `send`) it changes nothing.

    Args:
        app: the application.
        zerocopysend: offer `http.response.zerocopysend` to it too; None: as `ZCRESPONSE_ZEROCOPYSEND` says, else no.
        stall_timeout_s: seconds without a byte taken after which a reader is cut, 0 for never; None: as
            `ZCRESPONSE_STALL_TIMEOUT` says, else 60.

    Raises:
        SettingError: a `ZCRESPONSE_` variable holds what cannot be meant.
    """

    def __init__(self, app: ASGIApp, *, zerocopysend: bool | None = None, stall_timeout_s: float | None = None) -> None:
        self.app = app
        # Read now, so that a mistake in the environment is told when the application is made.
        settings = Settings.from_environment()
        if zerocopysend is not None:
            settings = replace(settings, zerocopysend=zerocopysend)
        if stall_timeout_s is not None:
            settings = replace(settings, stall_timeout_s=stall_timeout_s)
        self._settings = settings
        self._best: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._best or self._choose())(scope, receive, send)

    def _choose(self) -> ASGIApp:
        # Only where uvicorn runs is there anything to recognise; elsewhere it need not even be installed.
        if "uvicorn" in sys.modules:
            from zcresponse.uvicorn._app import FileSender

            self._best = FileSender(self.app, self._settings)
        else:
            self._best = self.app
        return self._best
