"""Any WSGI application below a middleware that takes Content-Length out, for requests whose query is `stripped`.

The application's import string comes from the environment variable `STRIPPED_APP`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["app"]

_MODULE, _, _NAME = os.environ["STRIPPED_APP"].partition(":")
_APP: WSGIApplication = getattr(importlib.import_module(_MODULE), _NAME)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    if environ["QUERY_STRING"] != "stripped":
        return _APP(environ, start_response)

    def start(status: str, fields: list[tuple[str, str]], *exc_info: Any) -> Any:
        return start_response(status, [field for field in fields if field[0].lower() != "content-length"], *exc_info)

    return _APP(environ, start)
