"""Which content coding a client would have, by Accept-Encoding (RFC 9110 §12.5.3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = ["Acceptable", "names_coding", "negotiate_codings", "parse_accept_encoding"]

# A coding, `*` or `identity`, and its weight: 0 to 1 with up to three decimals (§12.4.2). No other parameters exist.
_ELEMENT: Final = re.compile(
    r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:[ \t]*+;[ \t]*+[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
)
# Names of old that mean the same (§8.4.1).
_ALIASES: Final = {"x-gzip": "gzip", "x-compress": "compress"}
_ONE: Final = 1000

# What a peer sends is kept only if it is short, and in a bounded number; browsers' own values are.
_CACHED_LENGTH: Final = 64


class Acceptable(NamedTuple):
    """What a client takes of what there may be.

    Attributes:
        codings: those that it would rather have than the plain content, the best first.
        identity: whether the plain content will do too. If it will not and there is none of `codings`, nothing that
            the client asks for can be sent.
    """

    codings: tuple[str, ...]
    identity: bool


def parse_accept_encoding(text: str) -> dict[str, int]:
    """Read an Accept-Encoding into thousandths by coding, names in lower case, `*` for all that are not named.

    Elements that are malformed are passed over; of a coding that is named twice the last weight counts.
    """
    weights = {}
    for element in text.split(","):
        found = _ELEMENT.fullmatch(element.strip(" \t"))
        if found is not None:
            name = found[1].lower()
            weights[_ALIASES.get(name, name)] = _ONE if found[2] is None else round(float(found[2]) * _ONE)
    return weights


def names_coding(accept_encoding: str | None) -> bool:
    """Tell whether somebody may take an Accept-Encoding for a wish to have content compressed.

    Many only look for the name of a coding in it. So anything counts but `identity`: `*`, a coding that weighs nothing,
    a malformed element.
    """
    if not accept_encoding:
        return False
    names = (element.partition(";")[0].strip(" \t").lower() for element in accept_encoding.split(","))
    return any(name not in ("", "identity") for name in names)


def negotiate_codings(accept_encoding: str | None, offered: Sequence[str]) -> Acceptable:
    """Tell which of the `offered` codings a client would have.

    A client that says nothing would take anything (§12.5.3), but those are the ones that know no coding: they get the
    plain content. Where the client's weights are equal, the order of `offered` decides, and any coding comes before
    the plain content, unless that has a higher weight.

    Args:
        accept_encoding: the field's value; None: there is none. An empty one asks for the plain content.
        offered: codings in order of preference, in lower case.
    """
    if accept_encoding is None:
        return _PLAIN
    if len(accept_encoding) > _CACHED_LENGTH:
        return _negotiate(accept_encoding, tuple(offered))
    return _negotiate_cached(accept_encoding, tuple(offered))


_PLAIN: Final = Acceptable((), identity=True)


def _negotiate(accept_encoding: str, offered: tuple[str, ...]) -> Acceptable:
    weights = parse_accept_encoding(accept_encoding)
    others = weights.get("*", 0)
    # Without a word about it, the plain content is taken if nothing better is there.
    identity = weights.get("identity", weights.get("*", 1))
    least = max(1, identity)
    taken = [(weights.get(coding, others), coding) for coding in offered]
    # Sorting is stable: among equals the order stays.
    taken.sort(key=lambda each: -each[0])
    return Acceptable(tuple(coding for weight, coding in taken if weight >= least), identity > 0)


_negotiate_cached = lru_cache(maxsize=256)(_negotiate)
