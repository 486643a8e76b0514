"""The table's two views in a Django project, for servers and test clients.

Files come from the directory named by the environment variable `TABLE_FILES`; more middleware from
`DJANGO_MIDDLEWARE`, import strings separated by blanks.
"""

from __future__ import annotations

import io
import json
import os
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core import asgi, wsgi
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path
from django.views.static import serve

from tests.support.table import DOWNLOAD_NAME, MAX_AGE
from zcresponse import Transfer
from zcresponse.events import subscribe

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="only for tests",
        # Nothing is kept there; it is only that there is a connection.
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        USE_TZ=True,
        MIDDLEWARE=os.environ.get("DJANGO_MIDDLEWARE", "").split(),
    )
    django.setup()

from django.core.files.base import File
from django.core.files.storage import Storage
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.db.models import FileField
from django.db.models.fields.files import FieldFile
from django.views.decorators.gzip import gzip_page

from zcresponse.django import ZeroCopyFileResponse, get_asgi_application, get_wsgi_application

__all__ = ["asgi_app", "stock_asgi_app", "stock_wsgi_app", "urlpatterns", "wsgi_app"]

#: How many bytes have been read of the files that lie elsewhere.
_fetched = 0
_transfers: deque[Transfer] = deque(maxlen=100)
_subscription = subscribe(_transfers.append)
_subscription.__enter__()


def _path(name: str) -> Path:
    return Path(os.environ["TABLE_FILES"]) / name


def plain(request: HttpRequest, name: str) -> HttpResponseBase:
    """The file as it is."""
    return ZeroCopyFileResponse(_path(name))


async def plain_async(request: HttpRequest, name: str) -> HttpResponseBase:
    """The same from an asynchronous view."""
    return ZeroCopyFileResponse(_path(name))


def dressed(request: HttpRequest, name: str) -> HttpResponseBase:
    """The file as a download with a caching field."""
    return ZeroCopyFileResponse(_path(name), as_attachment=True, filename=DOWNLOAD_NAME, max_age=MAX_AGE)


def opened(request: HttpRequest, name: str) -> HttpResponseBase:
    """The file, given open."""
    return ZeroCopyFileResponse(_path(name).open("rb"))


def stock(request: HttpRequest, name: str) -> HttpResponseBase:
    """Django's own response."""
    return FileResponse(_path(name).open("rb"))


def uploaded(request: HttpRequest, name: str) -> HttpResponseBase:
    """What was sent as the file of that name, by the path of its temporary file."""
    request.upload_handlers = [TemporaryFileUploadHandler(request)]
    temporary = request.FILES[name].temporary_file_path()
    return FileResponse(open(temporary, "rb")) if "stock" in request.GET else ZeroCopyFileResponse(temporary)


def static(request: HttpRequest, name: str) -> HttpResponseBase:
    """Django's own view for static files."""
    return serve(request, name, document_root=os.environ["TABLE_FILES"])


def short(request: HttpRequest, name: str) -> HttpResponseBase:
    """A body that a filter has made shorter than its Content-Length."""
    response = ZeroCopyFileResponse(_path(name))
    response.streaming_content = iter([b"".join(response.streaming_content)[:-5]])
    return response


class _Elsewhere(Storage):  # type: ignore[misc]
    """Has no paths, and gives its files from front to back."""

    def _open(self, name: str, mode: str = "rb") -> File:
        return File(_Fetching(_path(name), "rb"), name)

    def size(self, name: str) -> int:
        return _path(name).stat().st_size


class _Fetching(io.FileIO):
    def seekable(self) -> bool:
        return False

    def readinto(self, buffer: Any) -> int:
        global _fetched
        count = super().readinto(buffer) or 0
        _fetched += count
        return count

    def read(self, size: int | None = -1) -> bytes:
        return io.RawIOBase.read(self, -1 if size is None else size) or b""


def elsewhere(request: HttpRequest, name: str) -> HttpResponseBase:
    """The file, from a storage without paths."""
    return ZeroCopyFileResponse(FieldFile(None, FileField(storage=_Elsewhere()), name))


def fetched(request: HttpRequest) -> HttpResponseBase:
    """Tells and forgets how many bytes have been read of files that lie elsewhere."""
    global _fetched
    told, _fetched = str(_fetched), 0
    return HttpResponse(told, headers={"Content-Length": str(len(told))})


def transfers(request: HttpRequest) -> HttpResponseBase:
    """Tells and forgets how the last bodies went."""
    told = json.dumps([asdict(transfer) for transfer in _transfers])
    _transfers.clear()
    return HttpResponse(told, content_type="application/json", headers={"Content-Length": str(len(told))})


urlpatterns = [
    path("plain/<name>", plain),
    path("async/<name>", plain_async),
    path("dressed/<name>", dressed),
    path("opened/<name>", opened),
    path("stock/<name>", stock),
    path("static/<name>", static),
    path("short/<name>", short),
    path("uploaded/<name>", uploaded),
    path("gzip/<name>", gzip_page(plain)),
    path("elsewhere/<name>", elsewhere),
    path("fetched", fetched),
    path("transfers", transfers),
]

wsgi_app = get_wsgi_application()
asgi_app = get_asgi_application()
stock_wsgi_app = wsgi.get_wsgi_application()
stock_asgi_app = asgi.get_asgi_application()
