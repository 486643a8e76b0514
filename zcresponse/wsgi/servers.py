"""What each WSGI server does with a file that it is given through `wsgi.file_wrapper`, told from environ alone.

PEP 3333 leaves open where a server begins to read and where it stops. What stands here was measured on a socket: each
answer's bytes, the next answer on the same connection, what sendfile(2) returned in the server's process, a file that
grows or shrinks while it is sent. The tests measure it anew, and the documentation's table of servers is made of what
they find. A server that is not known is given blocks of bytes, which are exact everywhere.
"""

from __future__ import annotations

import importlib
import os
import re
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from types import BuiltinMethodType
from typing import Any, Final

from zcresponse.files import FileRegion
from zcresponse.wsgi.gunicorn import join_to_head, sends_no_more
from zcresponse.wsgi.hubs import Hub
from zcresponse.wsgi.types import Environ, StartResponse
from zcresponse.wsgi.waitress import sending_wrapper
from zcresponse.wsgi.wrappers import file_wrapper, offer_file_wrapper, with_file_wrapper

__all__ = ["Server", "Takes", "best_wrapper", "made_by", "offer_best_wrapper", "server_behind"]


class Takes(IntEnum):
    """What a server sends exactly when it is given a positioned file and was told a Content-Length."""

    #: Nothing, or nothing that blocks of bytes would not do as well.
    NOTHING = 0
    #: A whole file that does not grow meanwhile: it begins at the first byte, wherever the descriptor stands, and goes
    #: on to the end, whatever the length.
    WHOLE = 1
    #: A region that begins where the descriptor stands and is as long as Content-Length says.
    REGION = 2


@dataclass(frozen=True, slots=True)
class Server:
    """One row: a server in one of its modes.

    Attributes:
        name: what it is called in reasons.
        measured: the release that was measured, by the tests over its sockets.
        takes: what it may be given through `wsgi.file_wrapper`.
        wrapper_from: the smallest body, in bytes, that costs it less through that than as one block.
        reason: why it is given blocks of bytes, where it is.
        reads_in_loop: whether it reads the file in the thread that serves all connections, so that a file system which
            may not answer must be kept away from it.
        wrapper: returns what our files are given to in the place of the server's own `wsgi.file_wrapper`.
        shows: whether whoever asks a file for its descriptor will send the region and no more; None: to be trusted.
        hears: whether the Content-Length that is given to a `start_response`, None where nobody knows which, reaches
            the server, which would send what follows a region without it.
        joins: lets head and body leave together. Told, when a body is about to be given to the server as one block,
            which `start_response` it was announced to (None: nobody knows) and how many bytes it has; returns what is
            to be called in the end, if anything.
        hub: whose greenlets share its thread, if any: they must not wait for a disk.
        dates: whether it gives answers the Date that they must have (RFC 9110 §6.6.1).
        hang_up: ends the connection of a body that cannot be completed, where an error that comes out of the body does
            not: the server would take another request while it owes the rest of this answer.
    """

    name: str
    measured: str
    takes: Takes = Takes.NOTHING
    wrapper_from: int = 0
    reason: str = ""
    reads_in_loop: bool = False
    wrapper: Callable[[Environ, Callable[..., Any]], Callable[..., Any]] = lambda environ, own: own
    shows: Callable[[FileRegion], bool] | None = None
    hears: Callable[[StartResponse | None], bool] = lambda start_response: True
    joins: Callable[[StartResponse | None, int], Callable[[], object] | None] | None = None
    hub: Hub | None = None
    dates: bool = True
    hang_up: Callable[[Environ], object] = lambda environ: None

    def reads_small(self, count: int) -> bool:
        """Whether a body of `count` bytes may be read when the answer is made, for it is given as bytes anyway."""
        return self.hub is None and (self.takes is Takes.NOTHING or count < self.wrapper_from)


def _hang_up(fd: int, *, reset: bool = False) -> None:
    """End the connection behind a server's descriptor, which stays the server's to close."""
    with socket.socket(fileno=os.dup(fd)) as connection:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            connection.shutdown(socket.SHUT_RDWR)


def _hang_up_uwsgi(environ: Environ) -> None:
    # The router takes the end of the worker's stream for that of the answer; a reset it passes on.
    _hang_up(importlib.import_module("uwsgi").connection_fd(), reset="UWSGI_ROUTER" in environ)


def _hang_up_werkzeug(environ: Environ) -> None:
    # Its page about the error would otherwise follow as if it were the file's.
    _hang_up(environ["werkzeug.socket"].fileno())


def _hang_up_django(environ: Environ) -> None:
    # A LimitedStream around the connection's own reader.
    _hang_up(environ["wsgi.input"]._read.__self__.fileno())


_UNKNOWN: Final = Server("the server", "", reason="it is not known what this server does with a file")
_WITHOUT_WRAPPER: Final = Server("the server", "", reason="the server offers no wsgi.file_wrapper")

# By its wrapper each body costs it some 30 us more (fstat, lseek, a selector), which is a tenth of the time of a small
# one, and hardly to be seen from 64 KiB on: measured from 1 to 256 KiB, sync and gthread.
_GUNICORN: Final = Server(
    "gunicorn", "27.0.1", Takes.REGION, wrapper_from=64 * 1024, shows=sends_no_more, joins=join_to_head
)
# 20.1 begins at the first byte, wherever the file stands; 21 and newer look.
_GUNICORN_OLD: Final = Server("gunicorn", "20.1", reason="gunicorn before 21 does not look where a file stands")
_GUNICORN_TLS: Final = Server("gunicorn", "27.0.1", reason="gunicorn cannot use sendfile over TLS", joins=join_to_head)
_GUNICORN_HTTP2: Final = Server("gunicorn", "27.0.1", reason="gunicorn cannot use sendfile over HTTP/2")
# It reads where sendfile would have been.
_GUNICORN_GEVENT: Final = Server("gunicorn", "27.0.1", reason="gunicorn does not use sendfile on gevent", hub="gevent")
_GUNICORN_EVENTLET: Final = Server(
    "gunicorn",
    "not measured: releases up to 26 have it",
    reason="gunicorn does not use sendfile on eventlet",
    hub="eventlet",
)

_UWSGI: Final = Server("uWSGI", "2.0.30", Takes.WHOLE, dates=False, hang_up=_hang_up_uwsgi)
# What a file has grown by would stand in front of the next answer.
_UWSGI_KEEPING: Final = Server(
    "uWSGI",
    "2.0.30",
    reason="uWSGI sends a file to its end, and keeps connections here",
    dates=False,
    hang_up=_hang_up_uwsgi,
)


def _is_mod_wsgis(start_response: StartResponse | None) -> bool:
    # A middleware's own is written in Python. Ours takes no length out.
    return isinstance(getattr(start_response, "passes_lengths_to", start_response), BuiltinMethodType)


# Apache's own code moves the file, by sendfile where WSGIEnableSendfile is on. It asks for the descriptor from C, after
# everything, so that no frame tells what length it has heard of.
_MOD_WSGI: Final = Server("mod_wsgi", "6.1.1 on Apache 2.4.71", Takes.REGION, hears=_is_mod_wsgis)

# Its own wrapper reads the file as the socket takes more. From one that becomes shorter it would go on reading nothing,
# at full load, were it not for the error that ours raises.
_WAITRESS: Final = Server("waitress", "3.0.2", Takes.REGION, reads_in_loop=True, wrapper=sending_wrapper)
_BJOERN: Final = Server(
    "bjoern", "3.2.2", reason="bjoern sends a file to its end and keeps the connection", dates=False
)
_MEINHELD: Final = Server("meinheld", "1.0.2", reason="meinheld sends no more of a file than the socket takes at once")
_WSGIREF: Final = Server("wsgiref", "CPython 3.11", reason="wsgiref reads a file to its end")
_DJANGO: Final = Server(
    "Django's development server",
    "5.2",
    reason="Django's development server reads a file to its end",
    hang_up=_hang_up_django,
)
_WERKZEUG: Final = Server(
    "Werkzeug's development server",
    "3.1.9",
    reason="Werkzeug has no file_wrapper of its own",
    hang_up=_hang_up_werkzeug,
)
_GEVENT: Final = Server("gevent.pywsgi", "26.9", reason="gevent.pywsgi has no file_wrapper of its own", hub="gevent")
_EVENTLET: Final = Server("eventlet", "0.41", reason="eventlet has no file_wrapper of its own", hub="eventlet")
_A2WSGI: Final = Server("a2wsgi", "1.10.10 on uvicorn 0.54", reason="a2wsgi has no file_wrapper: ASGI takes bytes")
_CHEROOT: Final = Server("cheroot", "11.1.2", reason="cheroot has no file_wrapper of its own")
_GRANIAN: Final = Server("granian", "2.8.9", reason="granian has no file_wrapper of its own under WSGI")
_TWISTED: Final = Server("Twisted", "26.10", reason="Twisted has no file_wrapper of its own")

#: Whose `wsgi.input` is of a class in this module.
_BY_READER: Final = {
    "cheroot.server": _CHEROOT,
    "gevent.pywsgi": _GEVENT,
    "granian._granian": _GRANIAN,
    "twisted.web.wsgi": _TWISTED,
}


#: Where a server says by itself what it is: one of tests. No header of a request comes here.
_ROW: Final = "zcresponse.server"


def made_by(server: Server, wrapper: Callable[..., Any], environ: Environ) -> Environ:
    """Return `environ` as a server of that row would make it, whose `wsgi.file_wrapper` is `wrapper`."""
    return {**with_file_wrapper(environ, wrapper), _ROW: server}


def best_wrapper(environ: Environ) -> Callable[..., Any] | None:
    """Return what a file is given to: the server's `wsgi.file_wrapper`, or one that does better with our files."""
    own = file_wrapper(environ)
    return None if own is None else server_behind(environ).wrapper(environ, own)


def offer_best_wrapper(environ: Environ) -> None:
    """Make it the `wsgi.file_wrapper` that a framework finds in `environ`."""
    offer_file_wrapper(environ, best_wrapper(environ))


def server_behind(environ: Environ) -> Server:
    """Return the row of the server that made `environ`."""
    said: Server | None = environ.get(_ROW)
    if said is not None:
        return said
    if "gunicorn.socket" in environ:
        kind = type(environ["gunicorn.socket"]).__module__
        http2 = environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2")
        return _gunicorn(kind, environ.get("SERVER_SOFTWARE", ""), http2)
    if "uwsgi.version" in environ:
        return _UWSGI_KEEPING if _uwsgi_keeps_connections() else _UWSGI
    if "mod_wsgi.version" in environ:
        return _MOD_WSGI
    if "waitress.client_disconnected" in environ:
        return _WAITRESS
    if "werkzeug.socket" in environ:
        return _WERKZEUG
    if "eventlet.input" in environ:
        return _EVENTLET
    if "meinheld.client" in environ:
        return _MEINHELD
    if "asgi.scope" in environ:
        return _A2WSGI
    # What these put into environ is PEP 3333's alone.
    reader = type(environ.get("wsgi.input")).__module__
    if reader in _BY_READER:
        return _BY_READER[reader]
    wrapper = file_wrapper(environ)
    if wrapper is None:
        return _WITHOUT_WRAPPER
    module, name = getattr(wrapper, "__module__", None), getattr(wrapper, "__qualname__", None)
    if (module, name) == ("builtins", "FileWrapper"):
        return _BJOERN
    if module == "wsgiref.util":
        return _DJANGO if reader == "django.core.handlers.wsgi" else _WSGIREF
    return _UNKNOWN


# It says the same in each request.
@lru_cache(maxsize=16)
def _gunicorn(socket_module: str, software: str, http2: bool) -> Server:
    module = socket_module.partition(".")[0]
    if module == "gevent":
        return _GUNICORN_GEVENT
    if module == "eventlet":
        return _GUNICORN_EVENTLET
    if module == "ssl":
        return _GUNICORN_TLS
    if http2:
        # Over clear text, which 26.2 and newer can be told to take.
        return _GUNICORN_HTTP2
    version = re.match(r"gunicorn/(\d+)\.", software)
    major = int(version[1]) if version else getattr(sys.modules.get("gunicorn"), "version_info", (0,))[0]
    return _GUNICORN if major >= 21 else _GUNICORN_OLD


def _uwsgi_keeps_connections() -> bool:
    # Only the module that uWSGI puts into its own interpreters tells how it was started.
    try:
        options = importlib.import_module("uwsgi").opt
    except (ImportError, AttributeError):
        return True
    if "http11-socket" in options or "http-keepalive" in options:
        return True
    return b"http11" in (options.get("protocol"), options.get("socket-protocol"))
