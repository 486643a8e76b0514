"""What is answered where a URL path leads to a directory, or to nothing.

Plans without a file: the redirect to a directory's own URL, its listing, and the errors. All links and locations are
relative to the request's own URL, so they lead nowhere else, whatever a path holds, and hold behind a proxy that
changes the front of paths. Conditions and ranges are for files (`plan/response`).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_from_bytes

from zcresponse.files.rooted import DirectoryEntry
from zcresponse.http.request import RequestHead
from zcresponse.plan.listing import Crumb, Listing, Row, render_listing
from zcresponse.plan.response import ResponsePlan

__all__ = [
    "index_path",
    "make_listing",
    "plan_bad_method",
    "plan_error",
    "plan_listing",
    "plan_not_found",
    "plan_redirect",
]

#: What a static resource can be asked; OPTIONS is not among them and is refused like the rest.
ALLOWED: Final = "GET, HEAD"

#: Seconds after which a client may ask again when descriptors or memory have run out: both come back as soon as
#: others' transfers end.
RETRY_AFTER_S: Final = 1

_EXHAUSTED: Final = frozenset(
    getattr(errno, name) for name in "EMFILE ENFILE ENOMEM ENOBUFS EAGAIN".split() if hasattr(errno, name)
)


def plan_bad_method(request: RequestHead) -> ResponsePlan | None:
    """Refuse every method but GET and HEAD with 405, which MUST name those in Allow (RFC 9110 §15.5.6); else None."""
    if request.method in ("GET", "HEAD"):
        return None
    return _plan_text(request, 405, "Method not allowed", ("Allow", ALLOWED))


def plan_not_found(request: RequestHead) -> ResponsePlan:
    """Answer 404, the same whatever the reason."""
    return _plan_text(request, 404, "Not found")


def plan_error(request: RequestHead, error: OSError) -> ResponsePlan | None:
    """Answer an error that a lookup raised; None for one that only the server can answer, by a 500.

    - nothing there: 404
    - no permission: 403. It tells that something is there, as nginx, Apache and Go do: the deployer who forgot a
      permission finds out, and who wants to hide a file does not put it there.
    - out of descriptors or memory: 503 with Retry-After
    """
    if isinstance(error, FileNotFoundError):
        return plan_not_found(request)
    if isinstance(error, PermissionError):
        return _plan_text(request, 403, "Forbidden")
    if error.errno in _EXHAUSTED:
        return _plan_text(request, 503, "Service unavailable", ("Retry-After", str(RETRY_AFTER_S)))
    return None


def index_path(url_path: str, index: str | None) -> str | None:
    """Return the path of the file that stands for a directory, to be looked up first; None where there can be none."""
    return url_path + index if index is not None and url_path.endswith("/") else None


def plan_redirect(request: RequestHead, url_path: str, query: bytes) -> ResponsePlan:
    """Send a client from a directory without a slash at the end to the one with it, where relative links work.

    301 rather than 308: only GET and HEAD come here, which both leave as they are (RFC 9110 §15.4.2), and every client
    knows it. A 301 may be kept for good (§15.4.2), but a directory may give way to a file or another site on the same
    port: no-cache makes caches ask.

    Args:
        url_path: the request's path, decoded, without a slash at the end.
        query: the request's query string as it came.
    """
    # `./` and one encoded name: no scheme, no `//` or `/\`, no line break can come of it.
    location = f"./{encode_name(url_path.rpartition('/')[2])}/"
    if query:
        location += "?" + quote_from_bytes(query, safe="!$&'()*+,-./:;=?@_~%")
    return _plan_text(request, 301, "Moved permanently", ("Location", location), ("Cache-Control", "no-cache"))


def plan_listing(request: RequestHead, url_path: str, entries: Iterable[DirectoryEntry]) -> ResponsePlan:
    """Answer with a directory's listing as HTML; `url_path` ends in a slash, see `make_listing`."""
    return _plan_body(
        request,
        200,
        render_listing(make_listing(url_path, entries)),
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-cache"),
        # Names are foreign text. Should one ever slip through the escaping, nothing of it may run or load.
        ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
        ("X-Content-Type-Options", "nosniff"),
    )


def make_listing(url_path: str, entries: Iterable[DirectoryEntry]) -> Listing:
    """Put a directory's entries in order: directories first, then as people count (file2 before file10).

    Args:
        url_path: the directory's path beneath the root, ending in a slash; `/` is the root, which has no parent.
        entries: what lies in it.
    """
    names = [name for name in url_path.split("/") if name]
    crumbs = [Crumb("", _upwards(len(names)))]
    crumbs += [Crumb(name, _upwards(len(names) - depth)) for depth, name in enumerate(names, 1)]
    rows = [
        Row(
            entry.name,
            f"./{encode_name(entry.name)}{'/' if entry.is_directory else ''}",
            entry.is_directory,
            None if entry.is_directory else entry.size,
            entry.mtime_ns // 1_000_000_000,
        )
        for entry in sorted(entries, key=lambda entry: (not entry.is_directory, natural_key(entry.name)))
    ]
    return Listing(tuple(crumbs), "../" if names else None, tuple(rows))


def _upwards(steps: int) -> str:
    return "../" * steps or "./"


def natural_key(name: str) -> tuple[object, ...]:
    """Return a key that sorts runs of digits by their value, letters without case, and equals by the exact name."""
    parts: list[object] = re.split(r"([0-9]+)", name.casefold())
    # Every second part is a number. Compared by length, then as text: no number is too long.
    for place in range(1, len(parts), 2):
        digits = str(parts[place]).lstrip("0")
        parts[place] = (len(digits), digits)
    return (tuple(parts), name)


def encode_name(name: str) -> str:
    """Percent-encode one name for a URL path; bytes that were not UTF-8 come out as they were."""
    try:
        return quote(name, safe="", errors="surrogateescape")
    except UnicodeEncodeError:
        # Half a pair of UTF-16, which Windows allows in names.
        return quote(name, safe="", errors="surrogatepass")


def _plan_text(request: RequestHead, status: int, text: str, *fields: tuple[str, str]) -> ResponsePlan:
    body = f"{text}\n".encode("ascii")
    return _plan_body(request, status, body, ("Content-Type", "text/plain; charset=utf-8"), *fields)


def _plan_body(request: RequestHead, status: int, body: bytes, *fields: tuple[str, str]) -> ResponsePlan:
    # HEAD is answered as GET, without the body (RFC 9110 §9.3.2).
    segments = () if request.method == "HEAD" else (body,)
    return ResponsePlan(status, [*fields, ("Content-Length", str(len(body)))], segments)
