"""The door for Starlette and FastAPI: drop-ins for its `FileResponse` and `StaticFiles`, and a switch for an app."""

from zcresponse.starlette.response import ZeroCopyFileResponse, install
from zcresponse.starlette.static import ZeroCopyStaticFiles

__all__ = ["ZeroCopyFileResponse", "ZeroCopyStaticFiles", "install"]
