"""The best the server above has, for an application that knows only pathsend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypedDict

from zcresponse.arguments import check_callable, check_switch
from zcresponse.asgi.connection.cycle import CycleExchange, serving_cycle
from zcresponse.asgi.dialect import PATHSEND, ZEROCOPYSEND, offer_in
from zcresponse.asgi.exchange import Exchange
from zcresponse.asgi.relay import Relay
from zcresponse.asgi.servers import Honoured, honoured_by
from zcresponse.asgi.transport import OFFLOAD, TAKEN_OUT
from zcresponse.asgi.types import ASGIApp, Receive, Scope, Send
from zcresponse.asgi.upgrade import Upgrading
from zcresponse.environment import Settings
from zcresponse.events import OnTransfer
from zcresponse.files.named import NamedFiles
from zcresponse.plan.offload import Offload, check_named

__all__ = ["MiddlewareOptions", "ZeroCopyMiddleware"]


class MiddlewareOptions(TypedDict, total=False):
    """The keywords of `ZeroCopyMiddleware`, for those who pass them on."""

    zerocopysend: bool | None
    stall_timeout_s: float | None
    conditional: bool
    x_sendfile: Iterable[str | os.PathLike[str]]
    x_accel_redirect: Mapping[str, str | os.PathLike[str]] | None
    follow_symlinks: bool
    offload: Offload | bool | None
    on_transfer: OnTransfer | None
    sendfile: bool | None


class ZeroCopyMiddleware:
    """ASGI middleware that lets the application below send files, on any server, in the best way that the server has.

    Put it outermost, directly below the server. The application is offered `http.response.pathsend`, with ranges and
    opened files for responses of zcresponse's own, and what it sends leaves:

    - where the protocol classes of `zcresponse.uvicorn` are above, by them,
    - on stock uvicorn, clear text, by sendfile(2) on the connection, as they do it,
    - on nonecorn and on anycorn with trio by their `http.response.zerocopysend`,
    - on a server with an `http.response.pathsend` of its own, by that,
    - elsewhere in chunks, read without stopping the event loop.

    Args:
        app: the application.
        zerocopysend: offer `http.response.zerocopysend` to it too; None: as `ZCRESPONSE_ZEROCOPYSEND` says, else no.
        stall_timeout_s: seconds without a byte taken after which a reader is cut where sendfile(2) is used on the
            connection, 0 for never; None: as `ZCRESPONSE_STALL_TIMEOUT` says, else 60.
        conditional: decide answers with a whole file anew, by the request's conditions and ranges, if the application
            has not: a 200 to GET or HEAD with a Content-Length and no encoding, sent by its path. Its own ETag,
            Last-Modified and `Accept-Ranges: none` win.
        x_sendfile: directories of which the application may name files by `X-Sendfile`, see `NamedFiles`. The field
            never leaves the process; with a 200 or 206 the file is sent in the place of the body, with conditions and
            ranges, and what lies elsewhere is 404. Without directories it is left to a front server.
        x_accel_redirect: beginnings of URIs that the application may name by `X-Accel-Redirect`, and the directory
            that stands for each.
        follow_symlinks: follow links beneath these directories as long as they stay inside.
        offload: what a front server sends in the place of zcresponse's own responses below; False: nothing; None: as
            `ZCRESPONSE_OFFLOAD` says, else nothing.
        on_transfer: called with a `zcresponse.Transfer` at the end of each file response that is not zcresponse's own,
            unless the server opens the file by its path, and so alone knows how it went.
        sendfile: False: read and send chunks, whatever the server has; None: as `ZCRESPONSE_SENDFILE` says, else True.

    Raises:
        SettingError: a `ZCRESPONSE_` variable holds what cannot be meant.
        TypeError, ValueError, FileNotFoundError, NotADirectoryError: an argument that cannot be meant; it is named.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        zerocopysend: bool | None = None,
        stall_timeout_s: float | None = None,
        conditional: bool = False,
        x_sendfile: Iterable[str | os.PathLike[str]] = (),
        x_accel_redirect: Mapping[str, str | os.PathLike[str]] | None = None,
        follow_symlinks: bool = False,
        offload: Offload | bool | None = None,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
    ) -> None:
        check_callable("app", app)
        if on_transfer is not None:
            check_callable("on_transfer", on_transfer)
        check_switch("conditional", conditional)
        self.app = app
        # Read now, so that a mistake in the environment is told when the application is made.
        settings = Settings.from_environment()
        if zerocopysend is not None:
            settings = replace(settings, zerocopysend=zerocopysend)
        if stall_timeout_s is not None:
            settings = replace(settings, stall_timeout_s=stall_timeout_s)
        reason = "switched off by ZCRESPONSE_SENDFILE"
        if sendfile is not None:
            settings, reason = replace(settings, sendfile=sendfile), "switched off by sendfile=False"
        self._settings = settings
        self._switched_off = Honoured(False, False, reason)
        named = NamedFiles(x_sendfile, x_accel_redirect, follow_symlinks=follow_symlinks)
        check_named(offload, named.fields)
        self._offload = offload
        self._taken_out = named.fields
        self._upgraded: ASGIApp = app
        if conditional or named.fields:
            self._upgraded = Upgrading(app, conditional=conditional, named=named, on_transfer=on_transfer)
        self._on_transfer = on_transfer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application below."""
        if scope["type"] != "http":
            await self._upgraded(scope, receive, send)
            return
        if self._offload is not None:
            scope[OFFLOAD] = self._offload
        if self._taken_out:
            scope[TAKEN_OUT] = self._taken_out | scope.get(TAKEN_OUT, frozenset())
        exchange = self._exchange(scope, receive, send)
        if self._on_transfer is not None:
            sending = exchange or getattr(send, "__self__", None)
            if isinstance(sending, Exchange):
                sending.on_transfer = self._on_transfer
        if exchange is None:
            await self._upgraded(scope, receive, send)
        else:
            await exchange.run(self._upgraded, scope, receive)

    def _exchange(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        """Return what is to stand between; None: nothing, for what is above offers the same."""
        settings = self._settings
        if not settings.pathsend:
            _withdraw(scope, PATHSEND, ZEROCOPYSEND)
            return None
        if not settings.sendfile:
            return Relay(scope, receive, send, settings, self._switched_off)
        if offer_in(scope) is not None:
            above = getattr(send, "__self__", None)
            if settings.zerocopysend and isinstance(above, Exchange):
                above.take_descriptors()
                scope["extensions"][ZEROCOPYSEND] = {}
            return None
        cycle = serving_cycle(scope, send)
        if cycle is not None:
            return CycleExchange(scope, settings, cycle)
        return Relay(scope, receive, send, settings, honoured_by(scope, send))


def _withdraw(scope: Scope, *names: str) -> None:
    extensions = scope.get("extensions") or {}
    if any(name in extensions for name in names):
        scope["extensions"] = {name: entry for name, entry in extensions.items() if name not in names}
