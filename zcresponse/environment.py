"""The switches that a deployer sets in the environment, read in one way everywhere."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from zcresponse.arguments import check_seconds, check_switch
from zcresponse.errors import SettingError

__all__ = ["Settings", "read_seconds", "read_switch", "read_text"]

_WORDS: Final = dict.fromkeys("on 1 true yes".split(), True) | dict.fromkeys("off 0 false no".split(), False)


def read_text(name: str) -> str:
    """Return what the variable holds; unset: nothing."""
    environ = os.environ
    # To be told by `os.environ` itself that there is none takes four times as long: it raises, and catches that.
    held = getattr(environ, "_data", None)
    if held is not None and environ.encodekey(name) not in held:
        return ""
    return environ.get(name, "")


def read_switch(name: str, *, default: bool) -> bool:
    """Return whether the variable is on; unset or empty: `default`.

    Raises:
        SettingError: it holds none of on, 1, true, yes, off, 0, false, no (in any case).
    """
    text = read_text(name)
    if not text:
        return default
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise SettingError(f"{name}: {text!r} is neither on nor off") from None


def read_seconds(name: str, *, default: float) -> float:
    """Return the variable's number of seconds, 0 or more; unset or empty: `default`.

    Raises:
        SettingError: it is not such a number.
    """
    text = read_text(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise SettingError(f"{name}: {text!r} is not a number of seconds")
    return seconds


@dataclass(frozen=True, slots=True)
class Settings:
    """How files are sent on uvicorn's connections.

    Attributes:
        pathsend: offer `http.response.pathsend`. Off for applications with a compressor that drops it.
        zerocopysend: offer `http.response.zerocopysend` too. Stock middleware swallows or refuses it.
        sendfile: use sendfile(2); off, files are read instead (and pathsend is not offered).
        stall_timeout_s: seconds without a byte taken after which a reader is cut; 0: never.

    Raises:
        TypeError, ValueError: one of them cannot be meant; it is named.
    """

    pathsend: bool = True
    zerocopysend: bool = False
    sendfile: bool = True
    stall_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("pathsend", "zerocopysend", "sendfile"):
            check_switch(name, getattr(self, name))
        check_seconds("stall_timeout_s", self.stall_timeout_s)

    @classmethod
    def from_environment(cls) -> Settings:
        """Read `ZCRESPONSE_PATHSEND`, `ZCRESPONSE_ZEROCOPYSEND`, `ZCRESPONSE_SENDFILE`, `ZCRESPONSE_STALL_TIMEOUT`.

        Raises:
            ValueError: one of them holds what cannot be meant; it is named.
        """
        return cls(
            pathsend=read_switch("ZCRESPONSE_PATHSEND", default=True),
            zerocopysend=read_switch("ZCRESPONSE_ZEROCOPYSEND", default=False),
            sendfile=read_switch("ZCRESPONSE_SENDFILE", default=True),
            stall_timeout_s=read_seconds("ZCRESPONSE_STALL_TIMEOUT", default=60.0),
        )
