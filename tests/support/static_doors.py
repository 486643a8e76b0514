"""Static files by each framework's door, mounted at `/static`; the directory is named by the variable `STATIC_SITE`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core import wsgi
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.support import django_doors
from zcresponse.django import get_asgi_application, static
from zcresponse.flask import ZeroCopy
from zcresponse.plan.static import StaticOptions
from zcresponse.starlette import ZeroCopyStaticFiles

__all__ = ["DOORS", "OPTIONS", "django_wsgi", "flask_app", "starlette_app", "urlpatterns"]

assert django_doors.wsgi_app

OPTIONS: StaticOptions = {"precompressed": True, "hashed_names": True}


def starlette_app(directory: str | Path) -> Starlette:
    return Starlette(routes=[Mount("/static", ZeroCopyStaticFiles(directory=directory, html=True, **OPTIONS))])


def flask_app(directory: str | Path) -> Flask:
    app = Flask(__name__, static_folder=str(directory), static_url_path="/static")
    ZeroCopy(app, static=OPTIONS)
    return app


urlpatterns = static("/static/", document_root=os.environ.get("STATIC_SITE", "."), show_indexes=True, **OPTIONS)


def django_wsgi(directory: str | Path) -> Any:
    """Django's own application, without any middleware; the test points it to the view."""
    return wsgi.get_wsgi_application()


#: Each makes an application for a directory.
DOORS = {"starlette": starlette_app, "flask": flask_app, "django": django_wsgi}

if "STATIC_SITE" in os.environ:
    from django.conf import settings

    settings.ROOT_URLCONF = __name__
    starlette_served = starlette_app(os.environ["STATIC_SITE"])
    flask_served = flask_app(os.environ["STATIC_SITE"])
    django_wsgi_served = django_wsgi(os.environ["STATIC_SITE"])
    django_asgi_served = get_asgi_application()
