"""The switches that a deployer sets in the environment, read in one way everywhere."""

from __future__ import annotations

import os
from typing import Final

from zcresponse.errors import SettingError

__all__ = ["read_seconds", "read_switch"]

_WORDS: Final = dict.fromkeys("on 1 true yes".split(), True) | dict.fromkeys("off 0 false no".split(), False)


def read_switch(name: str, *, default: bool) -> bool:
    """Return whether the variable is on; unset or empty: `default`.

    Raises:
        SettingError: it holds none of on, 1, true, yes, off, 0, false, no (in any case).
    """
    text = os.environ.get(name)
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
    text = os.environ.get(name)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise SettingError(f"{name}: {text!r} is not a number of seconds")
    return seconds
