"""gunicorn's worker class for uvicorn, with our protocol."""

from __future__ import annotations

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

__all__ = ["ZeroCopyWorker"]


class ZeroCopyWorker(UvicornWorker):
    """uvicorn's worker, sending files by the kernel."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        "http": "zcresponse.uvicorn:ZeroCopyProtocol",
    }
