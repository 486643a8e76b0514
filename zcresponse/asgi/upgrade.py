"""Complete semantics for applications that send files without them, and files for those that only name them."""

from __future__ import annotations

from zcresponse.asgi.dialect import PATHSEND
from zcresponse.asgi.transport import deliver, request_head
from zcresponse.asgi.types import ASGIApp, Message, Receive, Scope, Send
from zcresponse.events import OnTransfer
from zcresponse.files import OpenedFile, open_file_async
from zcresponse.files.named import NamedFiles
from zcresponse.plan import ResponsePlan
from zcresponse.plan.directory import plan_error
from zcresponse.plan.response import Fields
from zcresponse.plan.upgrade import may_name_file, may_upgrade, plan_named_file, plan_upgrade

__all__ = ["Upgrading"]


class Upgrading:
    """An ASGI application whose answers with files are those of the one below, decided anew.

    Args:
        app: the application below.
        conditional: give answers with a whole file conditions and ranges.
        named: what may be named in place of a body.
        on_transfer: called with a `Transfer` at the end of each of them.
    """

    def __init__(
        self, app: ASGIApp, *, conditional: bool, named: NamedFiles, on_transfer: OnTransfer | None = None
    ) -> None:
        self._app = app
        self._conditional = conditional
        self._on_transfer = on_transfer
        self._named = named
        self._raw_names = frozenset(name.encode("ascii") for name in named.fields)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; of a WebSocket only what names a file is taken out."""
        if scope["type"] != "http":
            await self._app(scope, receive, self._without_names(send))
            return
        held: Message | None = None
        started = answered = False

        async def upgrading_send(message: Message) -> None:
            nonlocal held, started, answered
            if answered:
                # The application's own body, in whose place a file was sent.
                return
            kind = message["type"]
            if kind == "http.response.start" and not started:
                started = True
                message = {**message, "headers": list(message.get("headers", ()))}
                if self._raw_names and (named := self._take_named(message)):
                    if may_name_file(message["status"]):
                        answered = True
                        await self._send_named(message, named, scope, receive, send)
                        return
                elif self._conditional and _may_be_file(message, scope):
                    # Until it is known whether a file follows. Servers wait for that too (asgiref, "Response Start").
                    held = message
                    return
            elif held is not None:
                start, held = held, None
                if kind == PATHSEND and message.keys() <= {"type", "path"}:
                    answered = await self._send_upgraded(start, message, scope, receive, send)
                    if answered:
                        return
                await send(start)
            await nameless_send(message)

        nameless_send = self._without_names(send)
        await self._app(scope, receive, upgrading_send)

    def _without_names(self, send: Send) -> Send:
        """Return a `send` that lets no field out that names a file.

        They may stand in more than a response's start: in its trailers (`http.response.trailers`), or in the answer
        that denies a WebSocket (`websocket.http.response.start`). No file is sent for those.
        """
        if not self._raw_names:
            return send

        async def nameless_send(message: Message) -> None:
            if message.get("headers"):
                message = {**message, "headers": list(message["headers"])}
                self._take_named(message)
            await send(message)

        return nameless_send

    def _take_named(self, start: Message) -> Fields:
        """Take the fields that name a file out of an answer, whatever they hold, and return them."""
        named = [field for field in start["headers"] if field[0].lower() in self._raw_names]
        if named:
            start["headers"] = [field for field in start["headers"] if field not in named]
        return _text(named)

    async def _send_named(self, start: Message, named: Fields, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_head(scope)
        plan: ResponsePlan | None
        file: OpenedFile | None = None
        try:
            file = await self._named.lookup_async(named)
            plan = plan_named_file(request, file, fields=_text(start["headers"]))
        except OSError as error:
            plan = plan_error(request, error)
            if plan is None:
                raise
        except BaseException:
            if file is not None:
                file.close()
            raise
        # A server that is told a path may find another file there, or a link that leads out.
        await deliver(plan, file, scope, receive, send, on_transfer=self._on_transfer, removed_later=True)

    async def _send_upgraded(
        self, start: Message, message: Message, scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Answer with the file in the message; False: the answer stays as it is."""
        file = await open_file_async(message["path"])
        try:
            plan = plan_upgrade(request_head(scope), file, status=start["status"], fields=_text(start["headers"]))
        except BaseException:
            file.close()
            raise
        if plan is None:
            file.close()
            return False
        await deliver(plan, file, scope, receive, send, on_transfer=self._on_transfer)
        return True


def _may_be_file(start: Message, scope: Scope) -> bool:
    """Whether the head may be that of a whole file. One without a length is a stream's, which must not wait."""
    fields = _text(start["headers"])
    if not any(name.lower() == "content-length" for name, _ in fields):
        return False
    return may_upgrade(request_head(scope), status=start["status"], fields=fields)


def _text(fields: list[tuple[bytes, bytes]]) -> Fields:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
