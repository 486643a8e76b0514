"""The project for WSGI servers.

gunicorn project.wsgi --threads 8
"""

from __future__ import annotations

import os

from zcresponse.django import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = get_wsgi_application()
