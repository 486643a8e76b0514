"""Plans delivered to ASGI servers.

Only this folder and `uvicorn/` know ASGI's message keys. No status code is decided here and no file is opened here.
"""

from zcresponse.asgi.middleware import ZeroCopyMiddleware
from zcresponse.asgi.static import static_app
from zcresponse.asgi.transport import send_file

__all__ = ["ZeroCopyMiddleware", "send_file", "static_app"]
