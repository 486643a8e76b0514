"""Conditional requests: send the representation or not, and whether a range of it may be sent (RFC 9110 §13)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from zcresponse.http.dates import parse_http_date
from zcresponse.http.etags import AnyETag, ETag, parse_etag, parse_etag_list, strong_match, weak_match
from zcresponse.http.request import RequestHead

__all__ = ["Verdict", "evaluate_preconditions", "range_applies"]

# RFC 9110 §8.8.2.2 lets an origin server use Last-Modified as a strong validator if it knows that the representation
# did not change twice within that second. It knows when the second is over; one more is for coarse file times.
_STRONG_AFTER_S: Final = 2


class Verdict(Enum):
    """What the preconditions of a request come to."""

    SEND = auto()
    NOT_MODIFIED = auto()
    PRECONDITION_FAILED = auto()


def evaluate_preconditions(request: RequestHead, *, etag: ETag | None, last_modified: int | None, now: int) -> Verdict:
    """Evaluate If-Match, If-Unmodified-Since, If-None-Match and If-Modified-Since in the order of RFC 9110 §13.2.2.

    To be asked only when the answer would otherwise be a plain success (§13.2.1), and about a representation
    that exists. Methods other than GET and HEAD have no preconditions here.

    Args:
        request: The head of the request.
        etag: The tag of the representation as it would be sent; None if it has none.
        last_modified: Its Last-Modified, in seconds since the epoch; None if it has none.
        now: The present, in seconds since the epoch; reads two-digit years.
    """
    if (
        request.if_none_match is None
        and request.if_modified_since is None
        and request.if_match is None
        and request.if_unmodified_since is None
    ):
        return Verdict.SEND
    if request.method not in ("GET", "HEAD"):
        return Verdict.SEND

    # §13.1.1: MUST use the strong comparison. §13.1.4: MUST ignore If-Unmodified-Since if If-Match is present.
    if request.if_match is not None:
        if not _lists(request.if_match, etag, strong_match):
            return Verdict.PRECONDITION_FAILED
    elif _modified_after(request.if_unmodified_since, last_modified, now=now) is True:
        return Verdict.PRECONDITION_FAILED

    # §13.1.2: MUST use the weak comparison. §13.1.3: MUST ignore If-Modified-Since if If-None-Match is present.
    if request.if_none_match is not None:
        if _lists(request.if_none_match, etag, weak_match):
            return Verdict.NOT_MODIFIED
    elif _modified_after(request.if_modified_since, last_modified, now=now) is False:
        return Verdict.NOT_MODIFIED

    return Verdict.SEND


def range_applies(request: RequestHead, *, etag: ETag | None, last_modified: int | None, now: int) -> bool:
    """Tell whether the Range of this request may be looked at: step 5 of RFC 9110 §13.2.2, with §13.1.5.

    It is for a GET that has a Range and either no If-Range or one that names this very representation: an equal strong
    tag, or a date that is exactly Last-Modified, provided that Last-Modified is at least 2 s old and so a strong
    validator. To be asked after `evaluate_preconditions` said SEND; the arguments are the same.
    """
    if request.range is None or request.method != "GET":
        return False
    if request.if_range is None:
        return True
    # §13.1.5: a tag is told from a date by a quotation mark among the first three characters.
    validator = request.if_range.strip(" \t")
    if '"' in validator[:3]:
        tag = parse_etag(validator)
        return tag is not None and etag is not None and strong_match(tag, etag)
    if last_modified is None or last_modified > now - _STRONG_AFTER_S:
        return False
    return parse_http_date(validator, now=now) == last_modified


def _lists(field: str, etag: ETag | None, match: Callable[[ETag, ETag], bool]) -> bool:
    """Tell whether a list of tags, or ``*``, covers the representation."""
    tags = parse_etag_list(field)
    if isinstance(tags, AnyETag):
        return True
    return etag is not None and any(match(tag, etag) for tag in tags)


def _modified_after(field: str | None, last_modified: int | None, *, now: int) -> bool | None:
    """Compare Last-Modified with a date; None if there is nothing to compare.

    §13.1.3 and §13.1.4: a recipient MUST ignore the field if its value is not a valid date, and if the resource has no
    modification date.
    """
    if field is None or last_modified is None:
        return None
    moment = parse_http_date(field, now=now)
    return None if moment is None else last_modified > moment
