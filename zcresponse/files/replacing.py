"""A new file under a name, all of it or nothing of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Final

__all__ = ["check_replaceable", "replacing"]

#: Who comes across one knows whose it is; the dot keeps it from being listed and served.
_PREFIX: Final = ".zcresponse-"


def check_replaceable(path: str) -> None:
    """Tell what must not be replaced: anything but a regular file. A link is not looked behind.

    Raises:
        FileExistsError: something else lies at `path`.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat_module.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "in the way, and not a regular file", path)


@contextlib.contextmanager
def replacing(path: str, *, like: os.stat_result) -> Iterator[BinaryIO]:
    """Write a file that takes its name when it is complete; whoever reads has the one before, or this.

    It is written under another name in the same directory and renamed. It is removed when the `with` block fails.
    Nobody waits for the disk, so after a power failure it may be incomplete.

    Args:
        path: what to write, or to replace.
        like: whose permissions and modification time it gets; and, where this process may give files away, whose owner.

    Raises:
        FileExistsError: something that is not a regular file lies at `path`.
        OSError: as `open`, `write` and `rename`.
    """
    check_replaceable(path)
    fd, temporary = tempfile.mkstemp(prefix=_PREFIX, suffix=".tmp", dir=os.path.dirname(path))
    try:
        with open(fd, "wb") as file:
            yield file
            if hasattr(os, "fchown") and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                # Not even the group may be ours to give.
                with contextlib.suppress(PermissionError):
                    os.fchown(fd, like.st_uid, like.st_gid)
        os.chmod(temporary, stat_module.S_IMODE(like.st_mode) & 0o777)
        os.utime(temporary, ns=(like.st_mtime_ns, like.st_mtime_ns))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
