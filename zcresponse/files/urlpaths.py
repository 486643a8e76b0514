"""From a URL path to the names that lead down from a root; nothing is looked up here."""

from __future__ import annotations

import errno
import os
import re
from typing import Final

__all__ = ["is_reachable", "not_there", "split_path"]

# Names that mean a device in every folder of Windows, with any suffix; the digits may be superscripts.
_WINDOWS_DEVICE: Final = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:[. :].*)?", re.IGNORECASE | re.DOTALL
)
# Separators of drives and alternate streams, wildcards, controls; and a dot or blank at the end, which Windows drops.
_WINDOWS_FORBIDDEN: Final = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]\Z')


def is_reachable(name: str, *, windows: bool = os.name == "nt") -> bool:
    """Whether an entry of this name can be asked for: one name, and no trap on any system or on this one."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        return False
    if windows and (_WINDOWS_DEVICE.fullmatch(name) or _WINDOWS_FORBIDDEN.search(name)):
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def split_path(url_path: str, *, windows: bool = os.name == "nt") -> tuple[list[str], bool]:
    """Return the names that lead from a root to what a URL path means, and whether its end asks for a folder.

    Args:
        url_path: the path, percent-decoded exactly once, as in ASGI's `scope["path"]`; a slash at its beginning is the
            root's. Bytes that are not UTF-8 may stand in it as `os.fsdecode` writes them.
        windows: whether the names are to be held against Windows' rules too.

    Raises:
        FileNotFoundError: a name in it is empty, `.`, `..`, or holds a backslash, NUL or what no file name can hold.
    """
    names = url_path.removeprefix("/").split("/")
    asks_for_folder = False
    if names[-1] == "":
        names.pop()
        asks_for_folder = url_path != ""
    for name in names:
        if not is_reachable(name, windows=windows):
            raise not_there(url_path)
    return names, asks_for_folder


def not_there(url_path: str) -> FileNotFoundError:
    """Return the error for a path that leads to nothing which may be served."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url_path)
