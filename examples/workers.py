"""gunicorn: a worker class that runs uvicorn with zcresponse's protocol.

gunicorn examples.asgi_app:app -k examples.workers.ZeroCopyWorker
"""

from __future__ import annotations

from typing import Any

from uvicorn_worker import UvicornWorker


class ZeroCopyWorker(UvicornWorker):
    """uvicorn's worker, sending files by the kernel."""

    CONFIG_KWARGS: dict[str, Any] = {**UvicornWorker.CONFIG_KWARGS, "http": "zcresponse.uvicorn:ZeroCopyProtocol"}
