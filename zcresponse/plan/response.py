"""The one place that decides how a request for a file is answered: 200, 206, 304, 412 or 416."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Final, TypeAlias, Unpack, cast

from zcresponse.arguments import check_text
from zcresponse.files import FileRegion, MemoryFile, OpenedFile
from zcresponse.http.caching import CacheOptions, format_cache_control
from zcresponse.http.conditional import Verdict, evaluate_preconditions, range_applies
from zcresponse.http.dates import format_http_date, parse_http_date
from zcresponse.http.disposition import check_disposition, format_content_disposition
from zcresponse.http.etags import SETTLED_NS, ETag, file_etag, parse_etag
from zcresponse.http.mediatype import guess_media_type
from zcresponse.http.ranges import (
    NoRanges,
    format_content_range,
    format_unsatisfied_range,
    parse_range,
)
from zcresponse.http.request import RequestHead
from zcresponse.plan.multipart import make_boundary, multipart_segments
from zcresponse.plan.offload import Offload
from zcresponse.plan.segments import Segment, total_length

__all__ = [
    "Description",
    "Fields",
    "FileOptions",
    "PlanOptions",
    "ResponsePlan",
    "check_fields",
    "check_options",
    "check_value",
    "describe_file",
    "of_empty_answer",
    "plan_as_said",
    "plan_described",
    "plan_file_response",
    "take_back",
    "values_of",
]

#: Header fields as (name, value).
Fields: TypeAlias = list[tuple[str, str]]

# The fields that describe the representation itself: a 304 must not repeat them (RFC 9110 §15.4.5), and an empty
# 412 or 416 has none to describe.
_REPRESENTATION: Final = frozenset(
    ("content-type", "content-length", "content-encoding", "content-language", "content-range", "content-disposition")
)
# What invites a cache to keep the answer; an error is not to be kept in the file's place.
_CACHING: Final = frozenset(("cache-control", "expires", "etag", "last-modified"))
_DROPPED: Final = _CACHING | (_REPRESENTATION - {"content-range"})
# What would end a field before its time.
_SPLITS: Final = re.compile(r"[\r\n\0]")
# What may stand but once (RFC 9110 §5.3).
_SINGLE: Final = frozenset(("content-type", "content-disposition", "etag", "last-modified", "accept-ranges"))
_ALWAYS_OURS: Final = frozenset(("content-length", "content-range"))
#: A Content-Length (RFC 9110 §8.6), of no more digits than any file has.
_LENGTH: Final = re.compile(r"[0-9]{1,19}")


class FileOptions(CacheOptions, total=False):
    """What a caller may say about any file response, under these names at every door; and `CacheOptions`.

    Keys:
        etag: True (default): made from size and modification time; False: none; text: your own, such as a content hash.
        last_modified: True (default): the file's; False: none; or seconds since the epoch, or a datetime (naive: UTC).

    What was given open and has no name, such as a temporary file or a descriptor, has none by default, see
    `OpenedFile.lasting`.
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


# Not frozen, though nobody changes one: making it would take three times as long.
@dataclass(slots=True)
class ResponsePlan:
    """A decided response: what to say and which bytes to send.

    Attributes:
        status: the status code.
        fields: header fields as (name, value) in the order to send them; no value can hold a line break.
        segments: the body; empty for HEAD, 304, 412, 416, empty files and what is offloaded.
        offloaded: length in bytes of the body that a front server sends in our place, as far as is known: a client may
            have asked for a part of it. None: we send it.
        not_offloaded: why we send it although the deployer has chosen to offload; empty where there is nothing to tell.
    """

    status: int
    fields: Fields
    segments: tuple[Segment, ...]
    offloaded: int | None = None
    not_offloaded: str = ""

    @property
    def body_length(self) -> int:
        """Length of the body that will be sent, in bytes."""
        return total_length(self.segments)

    @property
    def promised(self) -> int:
        """Length of the body that the client is promised, in bytes, whoever sends it."""
        return self.body_length if self.offloaded is None else self.offloaded


def plan_file_response(
    request: RequestHead,
    file: OpenedFile | MemoryFile,
    *,
    status: int = 200,
    fields: Iterable[tuple[str, str]] = (),
    media_type: str | None = None,
    filename: str | None = None,
    disposition: str = "attachment",
    etag: str | bool = True,
    last_modified: datetime | float | bool = True,
    coding: str | None = None,
    offload: Offload | None = None,
    now_ns: int | None = None,
    **cache: Unpack[CacheOptions],
) -> ResponsePlan:
    """Decide the answer to `request` with `file` as the selected representation.

    Preconditions are heeded for GET and HEAD, a Range for GET, both only where the answer would be 200
    (RFC 9110 §13.2.1, §14.2).

    Args:
        request: the method and the fields that matter.
        file: what to send; a window of a file is a representation of its own. Content in memory has no validators but
            those that the caller gives.
        status: the status of a plain answer.
        fields: what the caller has set already. Its Content-Type, Content-Disposition, ETag, Last-Modified and
            Cache-Control win over the arguments below; with its `Accept-Ranges: none` no range is answered; its
            Content-Length and Content-Range are replaced; everything else (cookies, CORS, security) is kept in every
            answer.
        coding: the content coding of `file`, as `gzip`. It joins the caller's Content-Encoding, and every tag, because
            each coding is a representation of its own (RFC 9110 §8.8.3.3).
        offload: what a front server sends. Such a file is answered by a 200 without a body that names it; conditions
            and ranges are the front server's to answer.
        now_ns: nanoseconds since the epoch; by default the clock's.
        cache: `CacheOptions`.

    Other arguments are described at `PlanOptions`.

    Raises:
        TypeError, ValueError: an argument that cannot stand in a header, or that contradicts another; it is named.
    """
    if now_ns is None:
        now_ns = time.time_ns()
    # Pairs of ours, whatever pairs a caller makes: they are looked up by, and PEP 3333 wants tuples.
    given = [(name, value) for name, value in fields]
    what = (media_type, filename, disposition, etag, last_modified, coding)
    said = _described(file, given, what, now_ns, cache)
    if status == 200 and offload is None and request.is_plain:
        # Most answers.
        return _plain(request, file, said)
    return _decided(request, file, status, said, offload, now_ns)


def describe_file(
    file: OpenedFile | MemoryFile,
    *,
    fields: Iterable[tuple[str, str]] = (),
    media_type: str | None = None,
    filename: str | None = None,
    disposition: str = "attachment",
    etag: str | bool = True,
    last_modified: datetime | float | bool = True,
    **cache: Unpack[CacheOptions],
) -> Description:
    """Return what the header says of `file` whoever asks for it: the first half of `plan_file_response`.

    For those who let others see and change it before the answer is decided, by `plan_described`.

    Raises:
        TypeError, ValueError: as `plan_file_response`.
    """
    what = (media_type, filename, disposition, etag, last_modified, None)
    return _described(file, list(fields), what, time.time_ns(), cache)


def plan_described(
    request: RequestHead,
    file: OpenedFile | MemoryFile,
    *,
    status: int,
    fields: Fields,
    described: Description | None = None,
    offload: Offload | None = None,
) -> ResponsePlan:
    """Decide the answer to `request` with what `fields` say of `file`: the second half.

    The validators are those that stand there; whoever took them out wants none.

    Args:
        described: what was said at first, which is most often what `fields` still say.

    Raises:
        ValueError: a field would not stay one.
    """
    if described is None or fields != described.fields:
        described = Description(*_taken(fields), file.size)
    if status == 200 and offload is None and request.is_plain:
        return _plain(request, file, described)
    return _decided(request, file, status, described, offload, time.time_ns())


class Description:
    """What the header says of a file before an answer with it is decided. It may be kept, and is not to be changed.

    Attributes:
        fields: the last of them is the whole Content-Length.
        plain: those of an answer with all of the file to a GET or HEAD.
        single: what stands in those of them that may stand but once, by lower-case name.
    """

    __slots__ = ("_validators", "fields", "plain", "single")

    def __init__(self, fields: Fields, single: Mapping[str, str], size: int) -> None:
        self.fields: Fields = [*fields, ("Content-Length", str(size))]
        self.plain = self.fields if "accept-ranges" in single else [*self.fields, ("Accept-Ranges", "bytes")]
        self.single = single
        self._validators: tuple[ETag | None, int | None] | None = None

    def validators(self, now: int) -> tuple[ETag | None, int | None]:
        """Return the entity tag and the time of the last change; `now` reads two-digit years."""
        if self._validators is None:
            tag, modified = self.single.get("etag"), self.single.get("last-modified")
            self._validators = (
                None if tag is None else parse_etag(tag),
                None if modified is None else parse_http_date(modified, now=now),
            )
        return self._validators


def _taken(fields: Fields) -> tuple[Fields, dict[str, str]]:
    """Return what a caller says, without what is ours to say, and what in it may stand but once."""
    check_fields(fields)
    single: dict[str, str] = {}
    kept: Fields = []
    for field in fields:
        lower = field[0].lower()
        if lower in _ALWAYS_OURS:
            continue
        if lower in _SINGLE:
            if lower in single:
                # Said twice, as by a framework that adds what another part has set: the last word counts.
                kept = _without(kept, (lower,))
            single[lower] = field[1]
        kept.append(field)
    return kept, single


def _described(
    file: OpenedFile | MemoryFile,
    fields: Fields,
    what: tuple[str | None, str | None, str, str | bool, datetime | float | bool, str | None],
    now_ns: int,
    cache: CacheOptions,
) -> Description:
    media_type, filename, disposition, etag, last_modified, coding = what
    key = None
    if type(etag) is bool and type(last_modified) is bool and not cache and type(file) is OpenedFile:
        stat = file.stat
        modified_ns = stat.st_mtime_ns
        # Of a file that was just written the validators change with time alone.
        if 0 <= modified_ns < now_ns - SETTLED_NS and not file.windowed and file.lasting:
            key = (file.path, modified_ns, stat.st_size, *what, *fields)
            known = _known.get(key)
            if known is not None:
                return known
    kept, single = _taken(fields)
    own: Fields = []
    if "content-type" not in single:
        if filename is not None:
            check_text("filename", filename)
        content_type = media_type if media_type is not None else guess_media_type(filename or file.path or "")
        own.append(("Content-Type", check_value("media_type", content_type)))
    if filename is not None and "content-disposition" not in single:
        check_disposition("disposition", disposition)
        own.append(("Content-Disposition", format_content_disposition(disposition, filename)))
    if cache and not values_of(kept, "Cache-Control"):
        cache_control = format_cache_control(**cache)
        if cache_control is not None:
            own.append(("Cache-Control", cache_control))
    tag = parse_etag(single["etag"]) if "etag" in single else _entity_tag(file, etag, now_ns)
    if coding is not None:
        # In the order in which they were applied (§8.4).
        codings = [*values_of(kept, "Content-Encoding"), coding]
        own.append(("Content-Encoding", check_value("coding", ", ".join(codings))))
        kept = _without(kept, ("content-encoding", "etag"))
        single.pop("etag", None)
        if tag is not None:
            tag = ETag(f"{tag.opaque}-{coding}", tag.weak)
    if tag is not None and "etag" not in single:
        own.append(("ETag", str(tag)))
    if "last-modified" not in single:
        modified = _modified(file, last_modified, now_ns // 1_000_000_000)
        if modified is not None:
            own.append(("Last-Modified", format_http_date(modified)))
    single.update((name.lower(), value) for name, value in own if name.lower() in _SINGLE)
    said = Description(kept + own, single, file.size)
    if key is not None and _may_be_kept(fields):
        if len(_known) >= _REMEMBERED:
            _known.clear()
        _known[key] = said
    return said


# What was said of files: for most requests the same again, as long as the file is the same.
_known: Final[dict[object, Description]] = {}
_REMEMBERED: Final = 1024


def _may_be_kept(fields: Fields) -> bool:
    """Whether what a caller says of a file is likely to be said again."""
    # A cookie is of each client another one, so that none is ever found again, and nobody else's to keep.
    return len(fields) <= 3 and not any(name.lower() == "set-cookie" for name, _ in fields)


def _plain(request: RequestHead, file: OpenedFile | MemoryFile, said: Description, reason: str = "") -> ResponsePlan:
    """Answer a GET or HEAD without conditions and without a range."""
    size = file.size
    if size == 0 or request.method == "HEAD":
        segments: tuple[Segment, ...] = ()
    else:
        segments = (FileRegion(file, file.offset, size) if isinstance(file, OpenedFile) else file.region(),)
    # A list of its own for each plan: what somebody adds to an answer, a cookie say, is for that client alone.
    return ResponsePlan(200, said.plain.copy(), segments, None, reason)


def _decided(
    request: RequestHead,
    file: OpenedFile | MemoryFile,
    status: int,
    said: Description,
    offload: Offload | None,
    now_ns: int,
) -> ResponsePlan:
    fields = said.fields[:-1]
    if status != 200 or request.method not in ("GET", "HEAD"):
        return _whole(request, file, status, fields)
    reason = ""
    if offload is not None:
        named, reason = offload.tell(file, fields)
        if named is not None:
            # Accept-Ranges is the front server's to say: nginx would send both.
            fields = _without(fields, ("accept-ranges", offload.header.lower()))
            fields += [(offload.header, named), ("Content-Length", "0")]
            return ResponsePlan(status, fields, (), offloaded=0 if request.method == "HEAD" else file.size)
    if request.is_plain:
        return _plain(request, file, said, reason)
    more = [] if "accept-ranges" in said.single else [("Accept-Ranges", "bytes")]
    now = now_ns // 1_000_000_000
    tag, modified = said.validators(now)
    # RFC 9110 §14.3: the caller advises against ranges, so none is answered.
    ranges = bool(more) or said.single["accept-ranges"].strip().lower() != "none"
    plan = _plan_by_request(request, file, fields + more, tag=tag, modified=modified, now=now, ranges=ranges)
    return replace(plan, not_offloaded=reason) if reason else plan


def _plan_by_request(
    request: RequestHead,
    file: OpenedFile | MemoryFile,
    fields: Fields,
    *,
    tag: ETag | None,
    modified: int | None,
    now: int,
    ranges: bool,
) -> ResponsePlan:
    """Decide what the conditions of a request, and its range if any is answered, make of a 200 with these fields."""
    verdict = evaluate_preconditions(request, etag=tag, last_modified=modified, now=now)
    if verdict is Verdict.PRECONDITION_FAILED:
        return _empty(412, fields)
    if verdict is Verdict.NOT_MODIFIED:
        # With an ETag, Last-Modified says nothing more to the cache (RFC 9110 §15.4.5).
        dropped = _REPRESENTATION | {"accept-ranges"} | ({"last-modified"} if tag is not None else set())
        return ResponsePlan(304, _without(fields, dropped), ())

    if not ranges or request.range is None or not range_applies(request, etag=tag, last_modified=modified, now=now):
        return _whole(request, file, 200, fields)
    asked = parse_range(request.range, file.size)
    if asked is NoRanges.IGNORED:
        return _whole(request, file, 200, fields)
    if asked is NoRanges.UNSATISFIABLE:
        return _empty(416, [*fields, ("Content-Range", format_unsatisfied_range(file.size))])
    if len(asked) == 1:
        (only,) = asked
        return ResponsePlan(
            206,
            [
                *fields,
                ("Content-Range", format_content_range(only, file.size)),
                ("Content-Length", str(only.count)),
            ],
            (file.region(only.start, only.stop),),
        )
    boundary = make_boundary()
    segments = multipart_segments(file, asked, media_type=values_of(fields, "Content-Type")[0], boundary=boundary)
    return ResponsePlan(
        206,
        [
            *_without(fields, ("content-type",)),
            ("Content-Type", f"multipart/byteranges; boundary={boundary}"),
            ("Content-Length", str(total_length(segments))),
        ],
        segments,
    )


def plan_as_said(
    request: RequestHead, file: OpenedFile | MemoryFile, *, status: int, fields: Fields
) -> ResponsePlan | None:
    """Keep an answer that somebody else has decided, and send as much of `file` as its Content-Length says.

    A length that it did not say is the file's, and so is one that cannot be read or is more than the whole of what a
    plain answer sends.

    Returns:
        None where the answer promises a part that the file does not hold.
    """
    if _has_no_content(status):
        return ResponsePlan(status, fields, ())
    said = {value.strip() for value in values_of(fields, "Content-Length")}
    text = said.pop() if len(said) == 1 else ""
    length = int(text) if _LENGTH.fullmatch(text) else file.size
    if length > file.size:
        if status != 200 or values_of(fields, "Content-Range"):
            return None
        length = file.size
    if text != str(length):
        fields = [*_without(fields, ("content-length",)), ("Content-Length", str(length))]
    return ResponsePlan(status, fields, () if request.method == "HEAD" or length == 0 else (file.region(0, length),))


def take_back(now: Fields, before: Fields, decided: Fields) -> Fields:
    """Return header fields without what a decision did to them, and with what was done to them since.

    Args:
        now: the fields as they are.
        before, decided: as they were before the decision and right after it.
    """
    result = now
    for name in {name.lower(): name for name, _ in before + decided}.values():
        was, became = values_of(before, name), values_of(decided, name)
        if was != became and values_of(now, name) == became:
            result = _without(result, (name.lower(),)) + [(name, value) for value in was]
    return result


def values_of(fields: Iterable[tuple[str, str]], name: str) -> list[str]:
    """Return all values of one field, whose name may be written in any case."""
    name = name.lower()
    return [value for each, value in fields if each.lower() == name]


def _whole(request: RequestHead, file: OpenedFile | MemoryFile, status: int, fields: Fields) -> ResponsePlan:
    """Answer with all of the file; the list is the plan's from now on."""
    if _has_no_content(status):
        # A 204 without its length too (RFC 9110 §8.6).
        return ResponsePlan(status, fields, ())
    size = 0 if status == 205 else file.size
    fields.append(("Content-Length", str(size)))
    return ResponsePlan(status, fields, () if request.method == "HEAD" or size == 0 else (file.region(),))


def _has_no_content(status: int) -> bool:
    return status < 200 or status in (204, 304)


def _empty(status: int, fields: Fields) -> ResponsePlan:
    return ResponsePlan(status, [*of_empty_answer(fields), ("Content-Length", "0")], ())


def of_empty_answer(fields: Fields) -> Fields:
    """Return those of a file's header fields that an empty 412 or 416 may have too, without its Content-Length."""
    return _without(fields, _DROPPED)


def _without(fields: Fields, names: Iterable[str]) -> Fields:
    return [field for field in fields if field[0].lower() not in names]


def check_options(options: FileOptions) -> str | None:
    """Tell a mistake in what a caller says of files before any is sent, and return the Cache-Control it asks for.

    Raises:
        TypeError, ValueError: an option that cannot be meant, or that contradicts another; it is named.
    """
    if not options:
        return None
    unknown = options.keys() - FileOptions.__optional_keys__
    if unknown:
        raise TypeError(f"{', '.join(sorted(unknown))}: no such option")
    cache = dict(options)
    etag, last_modified = cache.pop("etag", True), cache.pop("last_modified", True)
    if isinstance(etag, str):
        _own_tag(etag)
    elif not isinstance(etag, bool):
        raise TypeError(f"etag: text or a bool is needed, not {type(etag).__name__}")
    if last_modified is not True:
        _seconds(cast("datetime | float | bool", last_modified))
    return format_cache_control(**cast("CacheOptions", cache)) if cache else None


def check_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Tell a caller's field that would not stay one.

    Raises:
        ValueError: it holds a line break or NUL; it is named.
    """
    # All at once, which is the usual case by far.
    if _SPLITS.search("".join(chain.from_iterable(fields))) is None:
        return
    for name, value in fields:
        if _SPLITS.search(value) or _SPLITS.search(name):
            raise ValueError(f"headers: {name!r} or its value holds a line break or NUL")


def _entity_tag(file: OpenedFile | MemoryFile, etag: str | bool, now_ns: int) -> ETag | None:
    if etag is True:
        if isinstance(file, MemoryFile) or not file.lasting:
            return None
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


def _modified(file: OpenedFile | MemoryFile, last_modified: datetime | float | bool, now: int) -> int | None:
    if last_modified is not True:
        if last_modified is False:
            return None
        seconds = _seconds(last_modified)
    elif file.mtime_ns is None or (isinstance(file, OpenedFile) and not file.lasting):
        return None
    else:
        seconds = file.mtime_ns // 1_000_000_000
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
        TypeError, ValueError: it cannot stand there; `argument` is named.
    """
    check_text(argument, value)
    if not value.isprintable() or not value.isascii():
        raise ValueError(f"{argument}: {value!r} cannot stand in a header field")
    return value
