"""A platform without `os.sendfile`, as Windows is: `python -m tests.support.without_sendfile MODULE [ARGUMENT ...]`.

With `LOOP_SENDS_FILES` in the environment the loop is taken for one that has `loop.sendfile` all the same: "yes", or
"refused" for one that says so when it is asked to.
"""

from __future__ import annotations

import os
import runpy
import sys


def main() -> None:
    """Become the module."""
    kernels = os.sendfile
    del os.sendfile
    from zcresponse.asgi.connection import transmit

    how = os.environ.get("LOOP_SENDS_FILES", "")
    if how:
        setattr(transmit, "loop_sends_files", lambda: True)  # noqa: B010
    if how == "yes":
        os.sendfile = kernels
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
