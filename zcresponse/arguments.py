"""A caller's arguments of a type that cannot be meant: told at once, and by name."""

from __future__ import annotations

__all__ = ["check_callable", "check_delivery", "check_seconds", "check_switch", "check_text"]


def check_callable(argument: str, value: object) -> None:
    """Raise TypeError for what cannot be called."""
    if not callable(value):
        raise TypeError(f"{argument}: a callable is needed, not {type(value).__name__}")


def check_delivery(on_transfer: object, sendfile: object) -> None:
    """Raise TypeError for what how to send and whom to tell cannot be. None is the default of both."""
    if on_transfer is not None:
        check_callable("on_transfer", on_transfer)
    if sendfile is not None:
        check_switch("sendfile", sendfile)


def check_seconds(argument: str, value: object) -> None:
    """Raise TypeError for what is no number, ValueError for one that is negative, infinite or none at all."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{argument}: a number of seconds is needed, not {type(value).__name__}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{argument}: {value!r} is not a number of seconds")


def check_switch(argument: str, value: object) -> None:
    """Raise TypeError for what is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument}: a bool is needed, not {type(value).__name__}")


def check_text(argument: str, value: object) -> None:
    """Raise TypeError for what is no str."""
    if not isinstance(value, str):
        raise TypeError(f"{argument}: text is needed, not {type(value).__name__}")
