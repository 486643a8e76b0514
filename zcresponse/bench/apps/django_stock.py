"""Django as it is, without middleware."""

from __future__ import annotations

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path

from zcresponse.bench.apps import path_of

__all__ = ["asgi", "urlpatterns", "wsgi"]

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="only measured", USE_TZ=True)
    django.setup()


def empty(request: HttpRequest, name: str) -> HttpResponseBase:
    """Nothing."""
    path_of(name)
    return HttpResponse()


def stock(request: HttpRequest, name: str) -> HttpResponseBase:
    """Django's own `FileResponse`."""
    return FileResponse(open(path_of(name), "rb"))


urlpatterns = [path("empty/<name>", empty), path("<name>", stock)]

asgi = get_asgi_application()
wsgi = get_wsgi_application()
