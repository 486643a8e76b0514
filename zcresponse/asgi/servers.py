"""What each ASGI server does with a file that it is given, as it was measured.

A server is told by the class that its `send` belongs to, so only from directly below it. What a server advertises is
used as follows:

- `http.response.zerocopysend` of nonecorn on asyncio, and of anycorn on trio. They take a descriptor, a position and a
  length, send exactly that, and have done so when `send` returns. The extension says neither of which type `file` is
  nor when it may be closed, so that of a server which is not known is not used.
- `http.response.pathsend` of every other server, for whole files, but for
- anycorn on asyncio, which cuts bodies that are larger than the socket's buffers, whichever way it is given them, and
  nonecorn where it offers no zerocopysend, which reads the file on the event loop.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from zcresponse import loops
from zcresponse.asgi.dialect import PATHSEND, ZEROCOPYSEND
from zcresponse.asgi.types import Scope, Send

__all__ = ["Honoured", "cuts_paths", "honoured_by"]


class Honoured(NamedTuple):
    """What of its extensions a server can be trusted with, and why not with more."""

    zerocopysend: bool
    pathsend: bool
    reason: str


def honoured_by(scope: Scope, send: Send) -> Honoured:
    """Return what the server honours that has made `scope` and `send`."""
    extensions = scope.get("extensions") or {}
    package = type(getattr(send, "__self__", None)).__module__.partition(".")[0]
    if package == "anycorn" and not loops.running_on_trio():
        return Honoured(False, False, _ANYCORN)
    if package in ("anycorn", "hypercorn"):
        # nonecorn bears the name of hypercorn, which offers neither.
        if ZEROCOPYSEND in extensions:
            return Honoured(True, False, "")
        if PATHSEND in extensions:
            return Honoured(False, False, "the server would read the file itself")
    if PATHSEND not in extensions:
        return Honoured(False, False, "the server has no way to send files")
    if cuts_paths():
        return Honoured(False, False, _ANYCORN)
    return Honoured(False, True, "")


_ANYCORN = "anycorn on asyncio cuts bodies"


def cuts_paths() -> bool:
    """Whether this process is of a server whose pathsend must not be believed, as far as anybody can tell below it."""
    return "anycorn" in sys.modules and not loops.running_on_trio()
