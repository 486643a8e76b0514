"""The one place that decides how a request for a file is answered: 200, 206, 304, 412 or 416."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Unpack, cast

from zcresponse.files import OpenedFile
from zcresponse.http.caching import CacheOptions, format_cache_control
from zcresponse.http.conditional import Verdict, evaluate_preconditions, range_applies
from zcresponse.http.dates import format_http_date, parse_http_date
from zcresponse.http.disposition import format_content_disposition
from zcresponse.http.etags import ETag, file_etag, parse_etag
from zcresponse.http.mediatype import guess_media_type
from zcresponse.http.ranges import (
    NoRanges,
    format_content_range,
    format_unsatisfied_range,
    parse_range,
)
from zcresponse.http.request import RequestHead
from zcresponse.plan.multipart import make_boundary, multipart_segments
from zcresponse.plan.segments import Segment, total_length

__all__ = [
    "FileOptions",
    "PlanOptions",
    "ResponsePlan",
    "check_fields",
    "check_options",
    "check_value",
    "plan_file_response",
]

Fields = list[tuple[str, str]]

# The fields that describe the representation itself: a 304 must not repeat them (RFC 9110 §15.4.5), and an empty
# 412 or 416 has none to describe.
_REPRESENTATION: Final = frozenset(
    ("content-type", "content-length", "content-encoding", "content-language", "content-range", "content-disposition")
)
# What invites a cache to keep the answer; an error is not to be kept in the file's place.
_CACHING: Final = frozenset(("cache-control", "expires", "etag", "last-modified"))
# What would end a field before its time.
_SPLITS: Final = re.compile(r"[\r\n\0]")
# What may stand but once (RFC 9110 §5.3).
_SINGLE: Final = frozenset(("content-type", "content-disposition", "etag", "last-modified", "accept-ranges"))
_ALWAYS_OURS: Final = frozenset(("content-length", "content-range"))


class FileOptions(CacheOptions, total=False):
    """What a caller may say about any file response, under these names at every door; and `CacheOptions`.

    Keys:
        etag: True (default): made from size and modification time; False: none; text: your own, such as a content hash.
        last_modified: True (default): the file's; False: none; or seconds since the epoch, or a datetime (naive: UTC).
    """

    etag: str | bool
    last_modified: datetime | float | bool


class PlanOptions(FileOptions, total=False):
    """`FileOptions`, and what frameworks have words of their own for.

    Keys:
        media_type: Content-Type; by default told from the name, with `charset=utf-8` for text.
        filename: the name to save under; without one there is no Content-Disposition.
        disposition: `attachment` (default) or `inline`.
    """

    media_type: str | None
    filename: str | None
    disposition: str


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """A decided response: what to say and which bytes to send.

    Attributes:
        status: the status code.
        fields: header fields as (name, value) in the order to send them; no value can hold a line break.
        segments: the body; empty for HEAD, 304, 412, 416 and empty files.
    """

    status: int
    fields: Fields
    segments: tuple[Segment, ...]

    @property
    def body_length(self) -> int:
        """Length of the body that will be sent, in bytes."""
        return total_length(self.segments)


def plan_file_response(
    request: RequestHead,
    file: OpenedFile,
    *,
    status: int = 200,
    fields: Iterable[tuple[str, str]] = (),
    media_type: str | None = None,
    filename: str | None = None,
    disposition: str = "attachment",
    etag: str | bool = True,
    last_modified: datetime | float | bool = True,
    now_ns: int | None = None,
    **cache: Unpack[CacheOptions],
) -> ResponsePlan:
    """Decide the answer to `request` with `file` as the selected representation.

    Preconditions are heeded for GET and HEAD, a Range for GET, both only where the answer would be 200
    (RFC 9110 §13.2.1, §14.2).

    Args:
        request: the method and the fields that matter.
        file: what to send; a window of a file is a representation of its own.
        status: the status of a plain answer.
        fields: what the caller has set already. Its Content-Type, Content-Disposition, ETag, Last-Modified and
            Cache-Control win over the arguments below; its Content-Length and Content-Range are replaced; everything
            else (cookies, CORS, security) is kept in every answer.
        now_ns: nanoseconds since the epoch; by default the clock's.
        cache: `CacheOptions`.

    Other arguments are described at `PlanOptions`.

    Raises:
        ValueError: an argument that cannot stand in a header, or that contradicts another; it is named.
    """
    if now_ns is None:
        now_ns = time.time_ns()
    now = now_ns // 1_000_000_000
    given: dict[str, str] = {}
    kept: Fields = []
    fields = list(fields)
    check_fields(fields)
    for name, value in fields:
        lower = name.lower()
        if lower in _ALWAYS_OURS:
            continue
        if lower in _SINGLE and lower in given:
            # Said twice, as by a framework that adds what another part has set: the last word counts.
            kept = _without(kept, (lower,))
        given[lower] = value
        kept.append((name, value))

    own: Fields = []
    content_type = given.get("content-type")
    if content_type is None:
        content_type = media_type if media_type is not None else guess_media_type(filename or file.path or "")
        own.append(("Content-Type", check_value("media_type", content_type)))
    if filename is not None and "content-disposition" not in given:
        own.append(("Content-Disposition", format_content_disposition(disposition, filename)))
    if cache and "cache-control" not in given:
        cache_control = format_cache_control(**cache)
        if cache_control is not None:
            own.append(("Cache-Control", cache_control))
    if "etag" in given:
        tag = parse_etag(given["etag"])
    else:
        tag = _entity_tag(file, etag, now_ns)
        if tag is not None:
            own.append(("ETag", str(tag)))
    if "last-modified" in given:
        modified = parse_http_date(given["last-modified"], now=now)
    else:
        modified = _modified(file, last_modified, now)
        if modified is not None:
            own.append(("Last-Modified", format_http_date(modified)))

    safe = request.method in ("GET", "HEAD")
    if not safe or status != 200:
        return _whole(request, file, status, kept + own)
    if "accept-ranges" not in given:
        own.append(("Accept-Ranges", "bytes"))

    verdict = evaluate_preconditions(request, etag=tag, last_modified=modified, now=now)
    if verdict is Verdict.PRECONDITION_FAILED:
        return _empty(412, kept + own)
    if verdict is Verdict.NOT_MODIFIED:
        # With an ETag, Last-Modified says nothing more to the cache (RFC 9110 §15.4.5).
        dropped = _REPRESENTATION | {"accept-ranges"} | ({"last-modified"} if tag is not None else set())
        return ResponsePlan(304, _without(kept + own, dropped), ())

    if request.range is None or not range_applies(request, etag=tag, last_modified=modified, now=now):
        return _whole(request, file, status, kept + own)
    ranges = parse_range(request.range, file.size)
    if ranges is NoRanges.IGNORED:
        return _whole(request, file, status, kept + own)
    if ranges is NoRanges.UNSATISFIABLE:
        return _empty(416, [*kept, *own, ("Content-Range", format_unsatisfied_range(file.size))])
    if len(ranges) == 1:
        (only,) = ranges
        return ResponsePlan(
            206,
            [
                *kept,
                *own,
                ("Content-Range", format_content_range(only, file.size)),
                ("Content-Length", str(only.count)),
            ],
            (file.region(only.start, only.stop),),
        )
    boundary = make_boundary()
    segments = multipart_segments(file, ranges, media_type=content_type, boundary=boundary)
    return ResponsePlan(
        206,
        [
            *_without(kept + own, ("content-type",)),
            ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
            ("Content-Length", str(total_length(segments))),
        ],
        segments,
    )


def _whole(request: RequestHead, file: OpenedFile, status: int, fields: Fields) -> ResponsePlan:
    if status < 200 or status in (204, 304):
        # Without content, and a 204 without its length too (RFC 9110 §8.6).
        return ResponsePlan(status, fields, ())
    size = 0 if status == 205 else file.size
    fields = [*fields, ("Content-Length", str(size))]
    return ResponsePlan(status, fields, () if request.method == "HEAD" or size == 0 else (file.region(),))


def _empty(status: int, fields: Fields) -> ResponsePlan:
    dropped = _CACHING | (_REPRESENTATION - {"content-range"})
    return ResponsePlan(status, [*_without(fields, dropped), ("Content-Length", "0")], ())


def _without(fields: Fields, names: Iterable[str]) -> Fields:
    return [field for field in fields if field[0].lower() not in names]


def check_options(options: FileOptions) -> str | None:
    """Tell a mistake in what a caller says of files before any is sent, and return the Cache-Control it asks for.

    Raises:
        TypeError, ValueError: an option that cannot be meant, or that contradicts another; it is named.
    """
    unknown = options.keys() - FileOptions.__optional_keys__
    if unknown:
        raise TypeError(f"{', '.join(sorted(unknown))}: no such option")
    cache = dict(options)
    etag, last_modified = cache.pop("etag", True), cache.pop("last_modified", True)
    if isinstance(etag, str):
        _own_tag(etag)
    elif not isinstance(etag, bool):
        raise TypeError(f"etag: text or a bool is needed, not {type(etag).__name__}")
    _seconds(cast("datetime | float | bool", last_modified))
    return format_cache_control(**cast("CacheOptions", cache))


def check_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Tell a caller's field that would not stay one.

    Raises:
        ValueError: it holds a line break or NUL; it is named.
    """
    for name, value in fields:
        if _SPLITS.search(value) or _SPLITS.search(name):
            raise ValueError(f"headers: {name!r} or its value holds a line break or NUL")


def _entity_tag(file: OpenedFile, etag: str | bool, now_ns: int) -> ETag | None:
    if etag is True:
        window = (file.offset, file.size) if file.windowed else None
        return file_etag(size=file.stat.st_size, mtime_ns=file.mtime_ns, now_ns=now_ns, window=window)
    if etag is False:
        return None
    return _own_tag(etag)


def _own_tag(text: str) -> ETag:
    tag = parse_etag(text if text.endswith('"') else f'"{text}"')
    if tag is None:
        raise ValueError(f"etag: {text!r} cannot be an entity tag (RFC 9110 §8.8.3)")
    return tag


def _modified(file: OpenedFile, last_modified: datetime | float | bool, now: int) -> int | None:
    if last_modified is False:
        return None
    seconds = file.mtime_ns // 1_000_000_000 if last_modified is True else _seconds(last_modified)
    # A file from the future is given the time of the answer (RFC 9110 §8.8.2.1).
    return max(0, min(seconds, now))


def _seconds(time_given: datetime | float | bool) -> int:
    if isinstance(time_given, datetime):
        return int((time_given if time_given.tzinfo is not None else time_given.replace(tzinfo=UTC)).timestamp())
    try:
        return int(time_given)
    except (OverflowError, ValueError, TypeError):
        raise ValueError(f"last_modified: {time_given!r} is no time") from None


def check_value(argument: str, value: str) -> str:
    """Return a caller's text for a header field.

    Raises:
        ValueError: it cannot stand there; `argument` is named.
    """
    if not value.isprintable() or not value.isascii():
        raise ValueError(f"{argument}: {value!r} cannot stand in a header field")
    return value
