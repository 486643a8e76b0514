"""A directory as an ASGI application."""

from __future__ import annotations

import errno
import os
import stat as stat_module
from typing import Unpack
from urllib.parse import unquote_to_bytes

from zcresponse import loops
from zcresponse.asgi.transport import deliver, request_head
from zcresponse.asgi.types import Receive, Scope, Send
from zcresponse.events import OnTransfer
from zcresponse.files import OpenedFile
from zcresponse.files.linux import Storage
from zcresponse.files.rooted import OpenedDirectory, Root
from zcresponse.files.urlpaths import is_reachable
from zcresponse.http.request import RequestHead
from zcresponse.plan import PlanOptions, ResponsePlan, plan_file_response
from zcresponse.plan.directory import (
    index_path,
    plan_bad_method,
    plan_error,
    plan_listing,
    plan_not_found,
    plan_redirect,
)

__all__ = ["StaticApp", "static_app"]


class StaticApp:
    """Serves the files beneath a directory: conditions, ranges, index files, listings, and nothing from outside.

    An ASGI application, also to be mounted below a path of another. Files that cannot be served are 404 (see
    `zcresponse.files.rooted`), those that may not be read 403, and when descriptors or memory run out the answer is
    503 with Retry-After. A path with an encoded slash or backslash is 404: it would not mean what it says.

    To a server that offers plain `http.response.pathsend` only, a whole file is named by its path, which that server
    opens again; a link that is put into its place between the two is beyond the promise. Where others may write
    beneath the directory and the server is such a one, give `sendfile=False`.

    Args:
        directory: what to serve. It must exist now; it is looked up again for each request, so that a new tree may be
            renamed into its place.
        index: name of the file that stands for a directory; None: none does.
        listing: show what is in a directory without an index file; otherwise it is 404.
        follow_symlinks: follow links beneath the directory as long as they lead inside. By default they are 404.
        on_transfer: called with a `Transfer` at the end of each response.
        sendfile: False: read and send chunks, whatever the server offers.
        options: `PlanOptions` for every file.

    Raises:
        FileNotFoundError, NotADirectoryError: `directory` does not lead to a directory.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        index: str | None = "index.html",
        listing: bool = False,
        follow_symlinks: bool = False,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
        **options: Unpack[PlanOptions],
    ) -> None:
        try:
            stat = os.stat(directory)
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "directory: does not exist", directory) from None
        except NotADirectoryError:
            stat = None
        if stat is None or not stat_module.S_ISDIR(stat.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "directory: is not a directory", directory)
        self._root = Root(directory, follow_symlinks=follow_symlinks)
        if index is not None and not is_reachable(index):
            raise ValueError(f"index: {index!r} is not the name of a file")
        # Options that contradict each other are told now, not to each client.
        plan_file_response(RequestHead("GET"), OpenedFile(-1, stat, Storage.UNKNOWN, close=None), **options)
        self._index = index
        self._listing = listing
        self._on_transfer = on_transfer
        self._sendfile = sendfile
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in lifespan and turn a WebSocket away."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            # Before it was accepted: the server answers the handshake with 403.
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        else:
            raise ValueError(f"scope: a directory cannot serve {scope['type']!r}")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_head(scope)
        plan: ResponsePlan | None
        file = None
        try:
            plan, file = await self._plan(request, scope)
        except OSError as error:
            plan = plan_error(request, error)
            if plan is None:
                raise
        await deliver(
            plan,
            file,
            scope,
            receive,
            send,
            on_transfer=self._on_transfer,
            sendfile=self._sendfile,
        )

    async def _plan(self, request: RequestHead, scope: Scope) -> tuple[ResponsePlan, OpenedFile | None]:
        refusal = plan_bad_method(request)
        if refusal is not None:
            return refusal, None
        path = route_path(scope)
        if path is None:
            return plan_not_found(request), None
        found = await self._find(path)
        if isinstance(found, OpenedFile):
            try:
                return plan_file_response(request, found, **self._options), found
            except BaseException:
                found.close()
                raise
        if not path.endswith("/"):
            found.close()
            # The mount point itself, of which only the framework knows the name.
            own = path or scope["path"] or scope["root_path"].rstrip("/")
            return plan_redirect(request, own, scope.get("query_string", b"")), None
        if not self._listing:
            found.close()
            return plan_not_found(request), None
        found.hand_over()
        # Thousands of entries take a while to read, to sort and to write.
        return await loops.in_thread(_list, request, path, found), None

    async def _find(self, path: str) -> OpenedFile | OpenedDirectory:
        index = index_path(path, self._index)
        if index is not None:
            try:
                found = await self._root.lookup_async(index)
            except FileNotFoundError:
                pass
            else:
                if isinstance(found, OpenedFile):
                    return found
                found.close()
        return await self._root.lookup_async(path)


#: `StaticApp`, under the name of what it is used for.
static_app = StaticApp


def _list(request: RequestHead, path: str, directory: OpenedDirectory) -> ResponsePlan:
    with directory:
        return plan_listing(request, path, directory.entries())


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
