"""Files that a front server sends in our place: which ones, and how it is told.

A response then has no body, but a header field that names the file. The front server takes the field out, opens the
file, and answers the request's conditions and ranges by itself. Who may do so is said by whoever deploys the
application, never by a request: a client that could choose the field would read the names of files, or more.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from zcresponse.environment import read_text
from zcresponse.errors import SettingError
from zcresponse.files import MemoryFile, OpenedFile

__all__ = ["SETTING", "Offload", "Told", "check_named", "offload_of"]

#: The environment variable, and what frameworks call their setting.
SETTING: Final = "ZCRESPONSE_OFFLOAD"

_ACCEL: Final = "X-Accel-Redirect"
_SENDFILE: Final = "X-Sendfile"
_HEADERS: Final = {name.lower(): name for name in (_ACCEL, _SENDFILE)}


class Told(NamedTuple):
    """The value of the header field, or why there is none."""

    value: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True, init=False)
class Offload:
    """What a front server sends in the application's place.

    ```python
    Offload("X-Accel-Redirect", {"/srv/media": "/_media"})
    Offload("X-Sendfile", ["/srv/media"])
    ```

    Args:
        header: `X-Accel-Redirect`, whose value is a URI path, percent-encoded; or `X-Sendfile`, whose value is a path
            as it is.
        directories: absolute directories as the application opens them, each with what the front server calls it: a
            URI path, not encoded, or for `X-Sendfile` another directory. Those of `X-Sendfile` need no other name. Of
            several that hold a file the innermost counts.

    Attributes:
        header: as above.
        directories: pairs of both names without a slash at the end, the innermost first.

    Raises:
        ValueError: what cannot be meant; it is named.
    """

    header: str
    directories: tuple[tuple[str, str], ...]

    def __init__(
        self, header: str, directories: Mapping[str, str] | Mapping[Path, str] | Iterable[str | os.PathLike[str]]
    ) -> None:
        name = _HEADERS.get(header.lower()) if isinstance(header, str) else None
        if name is None:
            raise ValueError(f"header: {header!r} is neither {_ACCEL} nor {_SENDFILE}")
        named = dict(directories) if isinstance(directories, Mapping) else None
        if named is None:
            if name == _ACCEL or isinstance(directories, str | os.PathLike):
                raise ValueError("directories: a mapping to the front server's names is needed")
            named = {directory: os.fspath(directory) for directory in directories}
        pairs: dict[str, str] = {}
        for directory, place in named.items():
            ours = os.fspath(directory)
            path = _normal(ours) if isinstance(ours, str) and os.path.isabs(ours) else None
            if path is None:
                raise ValueError(f"directories: {directory!r} is not an absolute path")
            is_path = isinstance(place, str) and (place.startswith("/") or (name == _SENDFILE and os.path.isabs(place)))
            theirs = _normal(place) if is_path else None
            if theirs is None:
                raise ValueError(f"directories: {place!r}, for {directory!r}, is not an absolute path")
            pairs[path] = theirs
        if not pairs:
            raise ValueError("directories: none is given")
        object.__setattr__(self, "header", name)
        object.__setattr__(self, "directories", tuple(sorted(pairs.items(), key=lambda pair: -len(pair[0]))))

    def tell(self, file: OpenedFile | MemoryFile, fields: Iterable[tuple[str, str]]) -> Told:
        """Return what to tell the front server of a file.

        Args:
            fields: the header fields that the answer has besides.
        """
        if file.path is None:
            return Told(None, "not offloaded: the file was given open")
        if file.windowed:
            return Told(None, "not offloaded: a part of the file is sent")
        for name, value in fields:
            if name.lower() == "content-encoding":
                # nginx and Apache drop the field, and send the encoded file without it.
                return Told(None, "not offloaded: the content is encoded")
            if name.lower() == "accept-ranges" and value.strip().lower() == "none":
                return Told(None, "not offloaded: no range may be answered")
        path = _normal(file.path)
        if path is None:
            return Told(None, "not offloaded: the path has a step upwards")
        for directory, place in self.directories:
            if path.startswith(f"{directory}/"):
                return self._value(place + path[len(directory) :])
        return Told(None, "not offloaded: the file lies in none of the directories")

    def _value(self, path: str) -> Told:
        raw = os.fsencode(path)
        if self.header == _ACCEL:
            # nginx decodes it, and takes what follows a question mark for a query.
            return Told(quote(raw, safe="/"))
        if not _is_read_alike(path):
            return Told(None, "not offloaded: front servers differ in how they read the file's name")
        return Told(raw.decode("latin-1"))


def offload_of(setting: object = None, *, taken_out: Container[str] = ()) -> Offload | None:
    """Return what the deployer has chosen.

    Args:
        setting: an `Offload`; a text of words quoted as in a shell, the header and then each directory as
            `DIRECTORY=NAME` or, for `X-Sendfile`, `DIRECTORY`; False: nothing is offloaded; None or no text: as the
            environment variable says.
        taken_out: lower-case names of the fields that a middleware above takes out of responses.

    Raises:
        SettingError: it cannot be meant, or names files by one of those fields: the client would get what that
            middleware finds, which is nothing, most likely.
    """
    if setting is None or setting == "":
        setting = read_text(SETTING)
        if not setting:
            return None
    if setting is False:
        return None
    if not isinstance(setting, Offload | str):
        raise SettingError(f"{SETTING}: {setting!r} is neither an Offload nor a text")
    offload = setting if isinstance(setting, Offload) else _parsed(setting)
    if offload.header.lower() in taken_out:
        argument = offload.header.lower().replace("-", "_")
        raise SettingError(
            f"{SETTING}: files that {offload.header} names are sent here, by a ZeroCopyMiddleware with {argument}="
        )
    return offload


def check_named(offload: Offload | bool | None, fields: Container[str]) -> None:
    """Tell a contradiction: what names a file to a front server is taken out on the way, for the file is sent here.

    Args:
        offload: what was chosen; None: as the environment says.
        fields: lower-case names of those that are taken out.

    Raises:
        ValueError: both are meant by the same field.
    """
    chosen = offload_of(offload)
    if chosen is not None and chosen.header.lower() in fields:
        raise ValueError(f"offload: files that {chosen.header} names are sent here")


@lru_cache(maxsize=16)
def _parsed(text: str) -> Offload:
    try:
        header, *words = shlex.split(text) or [""]
        # A directory may have the sign in its name, and what it is called begins with a slash.
        named = {directory: f"/{name}" if sign else name for directory, sign, name in map(_divided, words)}
        if header.lower() == _ACCEL.lower() and not all("=/" in word for word in words):
            raise ValueError("each directory needs the front server's name, as in /srv/media=/_media")
        return Offload(header, named)
    except ValueError as error:
        raise SettingError(f"{SETTING}: {text!r}: {error}") from None


def _divided(word: str) -> tuple[str, str, str]:
    directory, sign, name = word.rpartition("=/")
    return (directory, sign, name) if sign else (word, "", word)


def _normal(path: str) -> str | None:
    """Return a path with a slash before each step and none at its end; None: it steps upwards.

    A step upwards from a link leads elsewhere than its text says, so text alone cannot tell where the file lies.
    """
    if os.sep != "/":
        path = path.replace(os.sep, "/")
    head = "/" if path.startswith("/") else ""
    steps = [step for step in path.split("/") if step not in ("", ".")]
    return None if ".." in steps else (head + "/".join(steps)).rstrip("/")


def _is_read_alike(path: str) -> bool:
    """Whether every front server takes the text of a path for the same file.

    Measured: Apache's mod_xsendfile 0.12 takes it as it is, lighttpd 1.4.69 decodes what follows a percent sign and
    refuses what is not UTF-8, Caddy 2.6.2 ends it at a question mark. A field can hold neither control characters nor
    spaces at its end.
    """
    if "%" in path or "?" in path or path.endswith(" "):
        return False
    return not any(letter < " " or letter == "\x7f" or "\ud800" <= letter <= "\udfff" for letter in path)
