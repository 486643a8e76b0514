"""The part of a request that decides how a file is answered: its method and eight header fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

__all__ = ["RequestHead"]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The method of a request and the values of the header fields that a file response reads.

    The method is taken as it came; methods are case-sensitive (RFC 9110 §9.1). A field that is absent is None,
    which is not the same as an empty value. Values are kept as sent: the modules that read them cope with anything.

    Attributes:
        is_plain: whether it is a GET or HEAD without conditions and without a range.
    """

    method: str
    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None
    accept_encoding: str | None = None
    is_plain: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        plain = (
            self.method in _COMMON_METHODS
            and self.range is None
            and self.if_match is None
            and self.if_none_match is None
            and self.if_modified_since is None
            and self.if_unmodified_since is None
        )
        object.__setattr__(self, "is_plain", plain)

    @classmethod
    def without_conditions(cls, method: str, accept_encoding: str | None) -> RequestHead:
        """Return the head of a request that has no other field of interest."""
        # Most are a bare GET; finding its head again takes a fifth of the time of making it.
        if method in _COMMON_METHODS and (accept_encoding is None or len(accept_encoding) <= _CACHED_LENGTH):
            return _bare_head(method, accept_encoding)
        return cls(method, accept_encoding=accept_encoding)

    @classmethod
    def from_fields(cls, method: str, fields: Iterable[tuple[str, str]]) -> RequestHead:
        """Collect the fields from pairs of name and value, names in any case.

        A field that was sent on several lines becomes (RFC 9110 §5.3): one list, in the order sent, for If-Match,
        If-None-Match and Accept-Encoding; absent for Range, If-Modified-Since and If-Unmodified-Since, which are no
        lists and so cannot be read; an empty value for If-Range, a validator that nothing equals, so that
        the range is not applied to a representation the client may not have meant.
        """
        once: dict[str, str] = {}
        again: dict[str, list[str]] = {}
        for name, value in fields:
            attribute = _ATTRIBUTES.get(name.lower())
            if attribute is not None:
                if attribute in once:
                    again.setdefault(attribute, [once[attribute]]).append(value)
                else:
                    once[attribute] = value
        return cls(method, **(_settle(once, again) if again else once))

    @classmethod
    def from_raw_fields(cls, method: str, fields: Iterable[tuple[bytes, bytes]]) -> RequestHead:
        """Collect the fields from pairs of bytes, as ASGI hands them over; otherwise like `from_fields`.

        Values are read as ISO-8859-1, in which every byte has a meaning (RFC 9110 §5.5).
        """
        # Written out instead of mapped onto from_fields: it runs for each request, and only the few fields of
        # interest may cost more than one look into a dictionary.
        once: dict[str, str] = {}
        again: dict[str, list[str]] = {}
        attribute_of = _RAW_ATTRIBUTES.get
        for name, value in fields:
            # ASGI asks servers for lower case but does not require it.
            attribute = attribute_of(name.lower())
            if attribute is not None:
                if attribute in once:
                    again.setdefault(attribute, [once[attribute]]).append(value.decode("latin-1"))
                else:
                    once[attribute] = value.decode("latin-1")
        if again:
            return cls(method, **_settle(once, again))
        if not once or (len(once) == 1 and "accept_encoding" in once):
            return cls.without_conditions(method, once.get("accept_encoding"))
        return cls(method, **once)


# What a peer sends may be kept only if it is short and the number of entries is bounded.
_COMMON_METHODS: Final = frozenset({"GET", "HEAD"})
_CACHED_LENGTH: Final = 64


@lru_cache(maxsize=256)
def _bare_head(method: str, accept_encoding: str | None) -> RequestHead:
    return RequestHead(method, accept_encoding=accept_encoding)


_ATTRIBUTES = {
    "range": "range",
    "if-range": "if_range",
    "if-match": "if_match",
    "if-none-match": "if_none_match",
    "if-modified-since": "if_modified_since",
    "if-unmodified-since": "if_unmodified_since",
    "accept-encoding": "accept_encoding",
}
_RAW_ATTRIBUTES = {name.encode("ascii"): attribute for name, attribute in _ATTRIBUTES.items()}
_LISTS = frozenset({"if_match", "if_none_match", "accept_encoding"})


def _settle(once: dict[str, str], again: dict[str, list[str]]) -> dict[str, str]:
    """Decide what fields sent on several lines mean; see `RequestHead.from_fields`."""
    settled = dict(once)
    for attribute, values in again.items():
        if attribute in _LISTS:
            settled[attribute] = ", ".join(values)
        elif attribute == "if_range":
            settled[attribute] = ""
        else:
            del settled[attribute]
    return settled
