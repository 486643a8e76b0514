"""How long a body gunicorn takes one of our files to be, told while it asks the file for its descriptor.

Its `Response.sendfile` sends as much as Content-Length says from where the file stands, and without one all that
follows. The field may be missing although we gave it: a middleware on the way has taken it out. No application hears of
that, but gunicorn asks for the descriptor in that very method, whose frame knows. A file that gives none is read.
"""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Final

from zcresponse.files import FileRegion

__all__ = ["sends_no_more"]

#: Whose frame it is; looked at in 25.0 and 27.0.
_MODULE: Final = "gunicorn.http.wsgi"
_METHOD: Final = "sendfile"
#: How many callers are looked at. It asks through a function of its own, and through two of `socket`.
_DEPTH: Final = 6


def sends_no_more(region: FileRegion) -> bool:
    """Whether whoever asks for the file's descriptor will send the region and no more; False where nobody knows.

    To be called by the file's `fileno`.
    """
    if region.offset + region.count == os.fstat(region.file.fileno()).st_size:
        return True
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_DEPTH):
        if frame is None:
            break
        if frame.f_code.co_name == _METHOD and frame.f_globals.get("__name__") == _MODULE:
            return getattr(frame.f_locals.get("self"), "response_length", None) == region.count
        frame = frame.f_back
    return False
