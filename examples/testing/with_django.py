"""A Django view, and a test of what a server is given of it; by httpx's client, for Django's never ask the handler."""

from __future__ import annotations

from pathlib import Path

import httpx
from django.conf import settings
from django.http import HttpRequest
from django.test import override_settings
from django.urls import path

from zcresponse.django import ZeroCopyFileResponse, get_wsgi_application
from zcresponse.testing import FileWrapperServer

FILE = Path(__file__)


def download(request: HttpRequest) -> ZeroCopyFileResponse:
    """A file."""
    return ZeroCopyFileResponse(FILE)


urlpatterns = [path("download", download)]

# A project has settings; this one has but an address.
if not settings.configured:
    settings.configure(SECRET_KEY="only for tests", ALLOWED_HOSTS=["testserver"])


def test_a_part_is_given_to_the_server() -> None:
    """By its place in the file, as to gunicorn."""
    server = FileWrapperServer(get_wsgi_application())
    client = httpx.Client(transport=httpx.WSGITransport(app=server), base_url="http://testserver")
    with override_settings(ROOT_URLCONF=__name__), client:
        response = client.get("/download", headers={"Range": "bytes=5-9"})
    assert response.status_code == 206
    assert response.content == FILE.read_bytes()[5:10]
    (given,) = server.handed_over
    assert (given.path, given.offset, given.count) == (str(FILE), 5, 5)
