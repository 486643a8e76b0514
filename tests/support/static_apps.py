"""Static applications of both kinds for server processes; the directory is named by the variable `STATIC_SITE`."""

from __future__ import annotations

import os

from zcresponse import asgi, wsgi

__all__ = ["asgi_app", "wsgi_app"]

asgi_app = asgi.static_app(os.environ["STATIC_SITE"], listing=True, precompressed=True, max_age=60)
wsgi_app = wsgi.static_app(os.environ["STATIC_SITE"], listing=True, precompressed=True, max_age=60)
