"""The project for ASGI servers.

uvicorn project.asgi:application --http zcresponse.uvicorn:ZeroCopyProtocol
"""

from __future__ import annotations

import os

from zcresponse.django import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_asgi_application()
