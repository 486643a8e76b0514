"""Several ranges of a file as one `multipart/byteranges` body (RFC 9110 §14.6)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from zcresponse.files import MemoryFile, OpenedFile
from zcresponse.http.ranges import ByteRange, format_content_range
from zcresponse.plan.segments import Segment

__all__ = ["make_boundary", "multipart_segments"]


def make_boundary() -> str:
    """Return a boundary that nobody can guess, so that no content can be made to contain it."""
    return secrets.token_hex(16)


def multipart_segments(
    file: OpenedFile | MemoryFile, ranges: Sequence[ByteRange], *, media_type: str | None, boundary: str
) -> tuple[Segment, ...]:
    """Return the body: a head before each part, the part as a region of the file, the closing delimiter."""
    type_field = "" if media_type is None else f"Content-Type: {media_type}\r\n"
    segments: list[Segment] = []
    lead = ""
    for part in ranges:
        head = f"{lead}--{boundary}\r\n{type_field}Content-Range: {format_content_range(part, file.size)}\r\n\r\n"
        segments.append(head.encode("latin-1"))
        segments.append(file.region(part.start, part.stop))
        # The CRLF before a delimiter belongs to the delimiter, not to the part (RFC 2046 §5.1.1).
        lead = "\r\n"
    segments.append(f"\r\n--{boundary}--\r\n".encode("latin-1"))
    return tuple(segments)
