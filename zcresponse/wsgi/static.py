"""Directories as a WSGI application."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final, Unpack

from zcresponse.arguments import check_delivery
from zcresponse.events import OnTransfer
from zcresponse.files import OpenedFile
from zcresponse.files.linux import Storage
from zcresponse.files.rooted import Found, Lookup
from zcresponse.plan import Offload
from zcresponse.plan.static import Answer, Directory, Site, StaticOptions, Step, Steps, run_steps
from zcresponse.wsgi.hubs import Hub, close_fd, run_in_thread, start_in_thread
from zcresponse.wsgi.servers import server_behind
from zcresponse.wsgi.transport import deliver, offload_for, request_head
from zcresponse.wsgi.types import Environ, StartResponse

__all__ = ["StaticApp", "find_answer", "route_path", "static_app", "take_steps"]

#: Where servers put what the request line said, percent-encoded still; gunicorn has the first alone, uWSGI, mod_wsgi,
#: waitress and Werkzeug the second, eventlet the third.
_TARGETS: Final = ("RAW_URI", "REQUEST_URI", "RAW_PATH_INFO")


class StaticApp:
    """Serves the files beneath a directory: conditions, ranges, index files, listings, and nothing from outside.

    A WSGI application, also to be mounted below a path of another (SCRIPT_NAME). Files that cannot be served are 404
    (see `zcresponse.files.rooted`), those that may not be read 403, and when descriptors or memory run out the answer
    is 503 with Retry-After. A path with an encoded slash or backslash is 404 where the server lets it be seen: it would
    not mean what it says.

    Args:
        directory: what to serve, or several directories that are looked through in order. They must exist now; they
            are looked up again for each request, so that a new tree may be renamed into its place.
        on_transfer: called with a `Transfer` at the end of each response.
        sendfile: False: read and give blocks, whatever the server offers.
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

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        offload = None if self._sendfile is False else offload_for(environ)
        plan, file = find_answer(self.site, environ, offload)
        return deliver(plan, file, environ, start_response, on_transfer=self._on_transfer, sendfile=self._sendfile)


#: `StaticApp`, under the name of what it is used for.
static_app = StaticApp


def find_answer(site: Site, environ: Environ, offload: Offload | None = None) -> Answer:
    """Decide what a site answers to a request; other greenlets of the server go on, where there are any.

    Raises:
        OSError: only the server can answer it.
    """
    path = route_path(environ)
    mount = "" if path else _decoded(environ.get("SCRIPT_NAME", ""))
    query = environ.get("QUERY_STRING", "").encode("latin-1", "replace")
    steps = site.answer(request_head(environ), path, mount=mount or "", query=query, offload=offload)
    return take_steps(steps, environ)


def take_steps(steps: Steps, environ: Environ) -> Answer:
    """Go through the steps of `Site.answer`; other greenlets of the server go on, where there are any."""
    hub = server_behind(environ).hub
    return run_steps(steps) if hub is None else run_steps(steps, partial(_take_beside, hub))


def _take_beside(hub: Hub, step: Step) -> Any:
    """Take a step in a thread, if it may wait."""
    if not isinstance(step, Lookup):
        return run_in_thread(hub, step)
    root, url_path = step
    found = root.lookup_at_once(url_path)
    if found is None:
        remote = root.is_remote(url_path)
        found = run_in_thread(hub, root.lookup_and_learn, url_path, remote=remote, discard=_close)
        if isinstance(found, OpenedFile) and found.storage is Storage.UNKNOWN:
            found.close_by(partial(start_in_thread, hub, close_fd))
    return found


def _close(found: Found) -> None:
    if isinstance(found, OpenedFile):
        found.close_by(close_fd)
    found.close()


def route_path(environ: Environ) -> str | None:
    """Return the path below the mount point, decoded, or None for one that must not be answered.

    It begins with a slash, unless it is empty: then the mount point itself was asked for, without one.
    """
    for key in _TARGETS:
        target = environ.get(key)
        if target:
            lower = target.partition("?")[0].lower()
            # Decoded, they look like separators that were there from the beginning.
            if "%2f" in lower or "%5c" in lower:
                return None
            break
    path = _decoded(environ.get("PATH_INFO", ""))
    return "/" if path == "" and not environ.get("SCRIPT_NAME") else path


def _decoded(text: str) -> str | None:
    """Return what one of PEP 3333's strings says: bytes, written as ISO-8859-1. None: it is none."""
    try:
        return text.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None
