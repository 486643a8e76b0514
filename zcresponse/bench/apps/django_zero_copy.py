"""Django with our response and our handlers, without middleware."""

from __future__ import annotations

import django
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import path

from zcresponse.bench.apps import path_of
from zcresponse.django import ZeroCopyFileResponse, get_asgi_application, get_wsgi_application

__all__ = ["asgi", "urlpatterns", "wsgi"]

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="only measured", USE_TZ=True)
    django.setup()


def empty(request: HttpRequest, name: str) -> HttpResponseBase:
    """Nothing."""
    path_of(name)
    return HttpResponse()


def zero_copy(request: HttpRequest, name: str) -> HttpResponseBase:
    """Our `ZeroCopyFileResponse`."""
    return ZeroCopyFileResponse(path_of(name))


urlpatterns = [path("empty/<name>", empty), path("<name>", zero_copy)]

asgi = get_asgi_application()
wsgi = get_wsgi_application()
