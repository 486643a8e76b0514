"""Files that an application names in place of a body, beneath directories that the deployer has chosen.

`X-Sendfile` holds a path, as it is to Apache, and `X-Accel-Redirect` a URI, as to nginx.
Whatever else such a field may hold (a path from elsewhere, `..`, NUL, a link, nonsense) leads to nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from zcresponse.arguments import check_switch
from zcresponse.files.opened import OpenedFile
from zcresponse.files.rooted import OpenedDirectory, Root
from zcresponse.files.urlpaths import not_there

__all__ = ["X_ACCEL_REDIRECT", "X_SENDFILE", "NamedFiles"]

X_SENDFILE: Final = "x-sendfile"
X_ACCEL_REDIRECT: Final = "x-accel-redirect"


class NamedFiles:
    """The files that an application may name, by fields that are taken out of its answer.

    A field counts when it was given directories; the other is left to a front server.

    Args:
        x_sendfile: directories of which the files may be named by their paths in `X-Sendfile`. A path begins as the
            directory is written here, made absolute. It is taken byte for byte, as by Apache's mod_xsendfile: were it
            decoded, a name that happens to look encoded would mean another file.
        x_accel_redirect: where the URIs in `X-Accel-Redirect` lead: the beginning of their paths, such as
            `/protected/`, and the directory that stands for it. A URI is percent-decoded once, its query is dropped.
        follow_symlinks: follow links beneath the directories as long as they stay inside.

    Where several directories or beginnings fit, the longest counts.

    Raises:
        TypeError, ValueError, FileNotFoundError, NotADirectoryError: what cannot be meant; it is named.
    """

    __slots__ = ("_roots", "fields")

    def __init__(
        self,
        x_sendfile: Iterable[str | os.PathLike[str]] = (),
        x_accel_redirect: Mapping[str, str | os.PathLike[str]] | None = None,
        *,
        follow_symlinks: bool = False,
    ) -> None:
        if isinstance(x_sendfile, str | bytes | os.PathLike):
            raise TypeError("x_sendfile: a list of directories is needed, not one")
        if not isinstance(x_sendfile, Iterable):
            raise TypeError(f"x_sendfile: a list of directories is needed, not {type(x_sendfile).__name__}")
        if not isinstance(x_accel_redirect, Mapping | None):
            raise TypeError(f"x_accel_redirect: a mapping is needed, not {type(x_accel_redirect).__name__}")
        check_switch("follow_symlinks", follow_symlinks)
        paths: dict[str, Root] = {}
        for directory in x_sendfile:
            root = _root("x_sendfile", directory, follow_symlinks)
            paths[_slashed(root.directory)] = root
        uris: dict[str, Root] = {}
        for prefix, directory in (x_accel_redirect or {}).items():
            if not isinstance(prefix, str) or not prefix.startswith("/"):
                raise ValueError(f"x_accel_redirect: {prefix!r} does not begin with a slash")
            uris[_slashed(prefix)] = _root("x_accel_redirect", directory, follow_symlinks)
        self._roots = {
            name: sorted(roots.items(), key=lambda item: -len(item[0]))
            for name, roots in ((X_SENDFILE, paths), (X_ACCEL_REDIRECT, uris))
            if roots
        }
        #: Names of the fields that count, in lower case.
        self.fields = frozenset(self._roots)

    def lookup(self, named: Sequence[tuple[str, str]]) -> OpenedFile:
        """Open the file that an answer's fields name. May wait for the disk.

        Args:
            named: the fields that count, names in any case, each byte of a value as one character (Latin-1). One is
                needed; several contradict each other.

        Raises:
            FileNotFoundError: they name no file that may be sent, whatever the reason.
            PermissionError, OSError: as `Root.lookup`.
        """
        root, path = self._place(named)
        return _file(root.lookup(path), path)

    async def lookup_async(self, named: Sequence[tuple[str, str]]) -> OpenedFile:
        """`lookup` that never lets the event loop wait."""
        root, path = self._place(named)
        return _file(await root.lookup_async(path), path)

    def _place(self, named: Sequence[tuple[str, str]]) -> tuple[Root, str]:
        if len(named) != 1:
            raise not_there(", ".join(value for _, value in named))
        name, value = named[0]
        name = name.lower()
        try:
            raw = value.strip(" \t").encode("latin-1")
        except UnicodeEncodeError:
            raise not_there(value) from None
        if name == X_ACCEL_REDIRECT:
            raw = unquote_to_bytes(raw.partition(b"?")[0])
        path = os.fsdecode(raw)
        if os.sep != "/" and name == X_SENDFILE:
            path = path.replace(os.sep, "/")
        for prefix, root in self._roots[name]:
            if path.startswith(prefix):
                # Paths are often put together with a slash too many. `..` is left for the root to refuse.
                steps = path[len(prefix) :].split("/")
                asks_for_folder = steps[-1] in ("", ".")
                inside = "/".join(step for step in steps if step not in ("", "."))
                return root, f"{inside}/" if asks_for_folder else inside
        raise not_there(path)


def _root(argument: str, directory: str | os.PathLike[str], follow_symlinks: bool) -> Root:
    path = os.fspath(directory) if isinstance(directory, str | os.PathLike) else None
    if not isinstance(path, str) or not path:
        raise ValueError(f"{argument}: {directory!r} is no directory's path")
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, f"{argument}: does not exist", path)
    if not os.path.isdir(path):
        raise NotADirectoryError(errno.ENOTDIR, f"{argument}: is not a directory", path)
    return Root(path, follow_symlinks=follow_symlinks)


def _slashed(prefix: str) -> str:
    if os.sep != "/":
        prefix = prefix.replace(os.sep, "/")
    return prefix.rstrip("/") + "/"


def _file(found: OpenedFile | OpenedDirectory, path: str) -> OpenedFile:
    if isinstance(found, OpenedDirectory):
        found.close()
        raise not_there(path)
    return found
