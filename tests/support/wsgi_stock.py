"""Stock applications with files, unchanged, behind our middleware: each below its name.

Files come from the directory named by the environment variable `TABLE_FILES`.
"""

from __future__ import annotations

import functools
import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from wsgiref.util import shift_path_info

import flask
from flask import Flask, Response
from whitenoise import WhiteNoise

from tests.support.django_doors import stock_wsgi_app
from zcresponse import Transfer
from zcresponse.wsgi import ZeroCopyMiddleware

__all__ = ["APPS", "behind", "make"]


def _file(environ: WSGIEnvironment) -> Path:
    name: str = environ["PATH_INFO"].encode("latin-1").decode().removeprefix("/")
    return Path(os.environ["TABLE_FILES"]) / name


def _flask() -> WSGIApplication:
    app = Flask(__name__, static_folder=os.environ["TABLE_FILES"], static_url_path="/static")

    @app.get("/<name>")
    def send(name: str) -> Response:
        return flask.send_file(Path(os.environ["TABLE_FILES"]) / name)

    return app


def _whitenoise() -> WSGIApplication:
    app: WSGIApplication = WhiteNoise(_wrapper, root=os.environ["TABLE_FILES"])
    return app


def _django() -> WSGIApplication:
    app: WSGIApplication = stock_wsgi_app
    return app


def _wrapper(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A whole file."""
    file = _file(environ).open("rb")
    length = os.fstat(file.fileno()).st_size
    start_response("200 OK", [("Content-Type", "application/octet-stream"), ("Content-Length", str(length))])
    body: Iterable[bytes] = environ["wsgi.file_wrapper"](file, 65536)
    return body


def _part(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The bytes from 5 up to 1000."""
    file = _file(environ).open("rb")
    file.seek(5)
    size = os.fstat(file.fileno()).st_size
    start_response("206 Partial Content", [("Content-Range", f"bytes 5-999/{size}"), ("Content-Length", "995")])
    body: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
    return body


def _named(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A file that is only named."""
    start_response("200 OK", [("X-Sendfile", str(_file(environ)))])
    return [b"nothing"]


#: What makes each.
APPS: dict[str, Callable[[], WSGIApplication]] = {
    "flask": _flask,
    "django": _django,
    "whitenoise": _whitenoise,
    "wrapper": lambda: _wrapper,
    "part": lambda: _part,
    "named": lambda: _named,
}


def make(
    name: str, *, conditional: bool = False, on_transfer: Callable[[Transfer], object] | None = None
) -> WSGIApplication:
    """Return the application of a name, behind the middleware."""
    return ZeroCopyMiddleware(
        APPS[name](), conditional=conditional, x_sendfile=[os.environ["TABLE_FILES"]], on_transfer=on_transfer
    )


_transfers: deque[Transfer] = deque(maxlen=100)
_made = functools.cache(functools.partial(make, on_transfer=_transfers.append))


def behind(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """All of them; those below `/conditional` with conditions, and `/transfers` tells and forgets the last bodies."""
    name = shift_path_info(environ) or ""
    if name == "transfers":
        body = json.dumps([asdict(transfer) for transfer in _transfers]).encode()
        _transfers.clear()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]
    conditional = name == "conditional"
    return _made((shift_path_info(environ) or "") if conditional else name, conditional=conditional)(
        environ, start_response
    )
