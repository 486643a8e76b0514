"""The same view in Flask, Django and Starlette, for front servers; none of them knows that it is offloaded.

Files come from beneath the directory named by the environment variable `OFFLOAD_FILES`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import django
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import path as django_path
from flask import Flask, Response
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

from zcresponse import wsgi
from zcresponse.flask import send_from_directory
from zcresponse.starlette import ZeroCopyFileResponse

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="only for tests")
    django.setup()

from zcresponse.django import ZeroCopyFileResponse as DjangoFileResponse
from zcresponse.django import get_wsgi_application

__all__ = ["FIELDS", "dressed", "flask_app", "starlette_app", "urlpatterns", "wsgi_app"]

#: Header fields that applications send with files.
FIELDS = [
    ("Content-Type", "text/x-ours; charset=utf-8"),
    ("Content-Disposition", 'attachment; filename="report.txt"'),
    ("Cache-Control", "private, max-age=60"),
    ("Expires", "Thu, 01 Jan 2037 00:00:00 GMT"),
    ("Set-Cookie", "a=1"),
    ("Set-Cookie", "b=2"),
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Allow-Origin", "https://example.com"),
    ("Access-Control-Expose-Headers", "ETag"),
    ("Content-Language", "de"),
    ("Content-Security-Policy", "default-src 'none'"),
    ("Cross-Origin-Resource-Policy", "same-site"),
    ("Link", "<https://example.com/>; rel=canonical"),
    ("Referrer-Policy", "no-referrer"),
    ("Strict-Transport-Security", "max-age=60"),
    ("Vary", "Cookie"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("X-Custom", "ours"),
]


def _root() -> Path:
    return Path(os.environ["OFFLOAD_FILES"])


flask_app = Flask(__name__)


@flask_app.get("/<path:name>")
def _flask_view(name: str) -> Response:
    return send_from_directory(_root(), name)


def _django_view(request: HttpRequest, name: str) -> HttpResponseBase:
    try:
        return DjangoFileResponse(_root() / name)
    except FileNotFoundError:
        raise Http404 from None


urlpatterns = [django_path("<path:name>", _django_view)]
wsgi_app = get_wsgi_application()


async def _starlette_view(request: Request) -> StarletteResponse:
    path = _root() / request.path_params["name"]
    if not path.exists():
        raise HTTPException(404)
    return ZeroCopyFileResponse(path)


starlette_app = Starlette(routes=[Route("/{name:path}", _starlette_view)])


def dressed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A file of any name, with all of `FIELDS`."""
    path = _root() / os.fsdecode(environ["PATH_INFO"].encode("latin-1").lstrip(b"/"))
    return wsgi.send_file(environ, start_response, path, headers=FIELDS)
