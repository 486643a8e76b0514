"""Directories as an ASGI application."""

from __future__ import annotations

import os
from typing import Unpack
from urllib.parse import unquote_to_bytes

from zcresponse import loops
from zcresponse.arguments import check_delivery
from zcresponse.asgi.transport import deliver, offload_for, request_head
from zcresponse.asgi.types import Receive, Scope, Send
from zcresponse.events import OnTransfer
from zcresponse.files.rooted import Lookup
from zcresponse.plan import Offload
from zcresponse.plan.static import Answer, Directory, Site, StaticOptions, Steps

__all__ = ["StaticApp", "find_answer", "route_path", "static_app", "take_steps"]


class StaticApp:
    """Serves the files beneath a directory: conditions, ranges, index files, listings, and nothing from outside.

    An ASGI application, also to be mounted below a path of another. Files that cannot be served are 404 (see
    `zcresponse.files.rooted`), those that may not be read 403, and when descriptors or memory run out the answer is
    503 with Retry-After. A path with an encoded slash or backslash is 404: it would not mean what it says.

    To a server that offers plain `http.response.pathsend` only, a whole file is named by its path, which that server
    opens again; a link that is put into its place between the two is beyond the promise. Where others may write
    beneath the directory and the server is such a one, give `sendfile=False`.

    Args:
        directory: what to serve, or several directories that are looked through in order. They must exist now; they
            are looked up again for each request, so that a new tree may be renamed into its place.
        on_transfer: called with a `Transfer` at the end of each response.
        sendfile: False: read and send chunks, whatever the server offers.
        options: `zcresponse.plan.static.StaticOptions`, among them `PlanOptions` for every file.

    Attributes:
        site: what is decided about every request.

    Raises:
        FileNotFoundError, NotADirectoryError: `directory` does not lead to a directory.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
        **options: Unpack[StaticOptions],
    ) -> None:
        check_delivery(on_transfer, sendfile)
        self.site = Site(directory, **options)
        self._on_transfer = on_transfer
        self._sendfile = sendfile

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in lifespan and turn a WebSocket away."""
        if scope["type"] == "http":
            offload = None if self._sendfile is False else offload_for(scope)
            plan, file = await find_answer(self.site, scope, offload)
            await deliver(plan, file, scope, receive, send, on_transfer=self._on_transfer, sendfile=self._sendfile)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            # Before it was accepted: the server answers the handshake with 403.
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"scope: a directory cannot serve {scope['type']!r}")


#: `StaticApp`, under the name of what it is used for.
static_app = StaticApp


async def find_answer(site: Site, scope: Scope, offload: Offload | None = None) -> Answer:
    """Decide what a site answers to a request; the event loop never waits.

    Raises:
        OSError: only the server can answer it.
    """
    path = route_path(scope)
    # The mount point itself, of which only the framework knows the name.
    mount = "" if path else scope["path"] or scope.get("root_path", "").rstrip("/")
    query = scope.get("query_string", b"")
    return await take_steps(site.answer(request_head(scope), path, mount=mount, query=query, offload=offload))


async def take_steps(steps: Steps) -> Answer:
    """Go through the steps of `Site.answer`; the event loop never waits."""
    try:
        step = next(steps)
        while True:
            try:
                if isinstance(step, Lookup):
                    result = await step.root.lookup_async(step.url_path)
                else:
                    result = await loops.in_thread(step)
            except OSError as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    finally:
        # What was opened so far is closed when this is cancelled.
        steps.close()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def route_path(scope: Scope) -> str | None:
    """Return the path below the mount point, decoded, or None for one that must not be answered.

    It begins with a slash, unless it is empty: then the mount point itself was asked for, without one.

    `path` includes `root_path` (ASGI, "HTTP connection scope"); a framework or server that still strips it is
    recognised by a path that does not begin with it.
    """
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if raw is not None:
        # Some clients that stand in for a server leave the query in it.
        raw = raw.partition(b"?")[0]
        lower = raw.lower()
        # Decoded, they look like separators that were there from the beginning.
        if b"%2f" in lower or b"%5c" in lower:
            return None
        if "\ufffd" in path:
            # Servers decode as UTF-8 and replace what is not. A name that is not UTF-8 can only be found by its bytes;
            # unless a middleware has changed the path, which then counts.
            decoded = unquote_to_bytes(raw)
            if decoded.decode("utf-8", "replace") == path:
                path = os.fsdecode(decoded)
    root_path: str = scope.get("root_path", "").rstrip("/")
    if not root_path:
        return path or "/"
    if path.startswith(root_path):
        rest = path[len(root_path) :]
        if rest == "" or rest.startswith("/"):
            return rest
    return path
