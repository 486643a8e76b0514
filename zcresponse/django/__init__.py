"""The door for Django, on WSGI and ASGI: a response, a middleware, both kinds of application, and static files."""

from zcresponse.django.handlers import ZeroCopyMiddleware, get_asgi_application, get_wsgi_application
from zcresponse.django.response import ZeroCopyFileResponse
from zcresponse.django.views import serve, static

__all__ = [
    "ZeroCopyFileResponse",
    "ZeroCopyMiddleware",
    "get_asgi_application",
    "get_wsgi_application",
    "serve",
    "static",
]
