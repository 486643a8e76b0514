"""Plans delivered to WSGI servers.

Only this folder knows the keys of PEP 3333. No status code is decided here and no file is opened here.
"""

from zcresponse.wsgi.middleware import ZeroCopyMiddleware
from zcresponse.wsgi.static import static_app
from zcresponse.wsgi.transport import send_file

__all__ = ["ZeroCopyMiddleware", "send_file", "static_app"]
