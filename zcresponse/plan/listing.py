"""A directory listing as an HTML page: no script, nothing loaded, light and dark, for a phone and a desktop."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Crumb", "Listing", "Row", "format_size", "render_listing"]


@dataclass(frozen=True, slots=True)
class Crumb:
    """One step of the way from the root: the name (empty for the root) and a relative URL, percent-encoded."""

    name: str
    href: str


@dataclass(frozen=True, slots=True)
class Row:
    """One entry.

    Attributes:
        name: as it is on disk.
        href: relative URL, percent-encoded; ends in a slash for a directory.
        is_directory: whether it is one.
        size: bytes, None for a directory.
        mtime: when it changed, seconds since the epoch.
    """

    name: str
    href: str
    is_directory: bool
    size: int | None
    mtime: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What a page shows: the way from the root, the way up (None in the root), and the entries in order."""

    crumbs: tuple[Crumb, ...]
    parent: str | None
    rows: tuple[Row, ...]


_STYLE: Final = """
:root{color-scheme:light dark;--back:#f6f7f9;--card:#fff;--text:#1c2330;--faint:#667085;--line:#e6e8ec;--link:#175cd3;
--hover:#f0f5ff;--folder:#e5a50a;--file:#98a2b3}
@media(prefers-color-scheme:dark){:root{--back:#0e1116;--card:#161b22;--text:#e6e9ee;--faint:#98a2b3;--line:#262d37;
--link:#84b4ff;--hover:#1c2430;--folder:#e3b341;--file:#6b7686}}
*{box-sizing:border-box}
body{margin:0;padding:1.5rem 1rem 3rem;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:60rem;margin:0 auto}
h1{margin:0 .25rem 1rem;font-size:1.25rem;font-weight:600;line-height:1.6;overflow-wrap:anywhere}
h1 a{color:var(--link);text-decoration:none}
h1 a:hover{text-decoration:underline}
h1 i{margin:0 .35em;color:var(--faint);font-style:normal;font-weight:400}
ul{list-style:none;margin:0;padding:0;background:var(--card);border:1px solid var(--line);border-radius:.75rem;
overflow:hidden}
li+li{border-top:1px solid var(--line)}
li a{display:grid;grid-template-columns:1.25rem minmax(0,1fr) 7rem 9.5rem;gap:0 .85rem;align-items:center;
padding:.55rem 1rem;color:inherit;text-decoration:none}
li a:hover{background:var(--hover)}
a:focus-visible{outline:2px solid var(--link);outline-offset:-2px;border-radius:.3rem}
svg{display:block;width:1.25rem;height:1.25rem;fill:var(--file)}
.d svg{fill:var(--folder)}
svg[hidden]{position:absolute;width:0;height:0}
bdi{overflow-wrap:anywhere}
li bdi{color:var(--link);text-align:left}
.d bdi{font-weight:600}
li span,time{color:var(--faint);font-size:.875rem;font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap}
p{margin:.75rem .25rem 0;color:var(--faint);font-size:.875rem}
@media(max-width:40rem){body{padding:1rem .6rem 2rem}
li a{grid-template-columns:1.25rem minmax(0,1fr) auto;padding:.6rem .8rem;min-height:3rem}
svg{grid-row:1/3}.u svg{grid-row:1}
bdi{grid-column:2/4}
li span,time{font-size:.8125rem}
time{grid-column:2;grid-row:2;text-align:left}
li span{grid-column:3;grid-row:2}}
""".strip()

# Drawn here, because the page's policy lets it load nothing.
_ICONS: Final = (
    "<svg hidden>"
    '<symbol id="d" viewBox="0 0 20 20"><path d="M2 5.5A1.5 1.5 0 0 1 3.5 4h4l2 2h7A1.5 1.5 0 0 1 18 7.5v7'
    'a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 2 14.5z"/></symbol>'
    '<symbol id="f" viewBox="0 0 20 20"><path d="M5 2h6v5a1 1 0 0 0 1 1h4v8.5a1.5 1.5 0 0 1-1.5 1.5h-9'
    'A1.5 1.5 0 0 1 4 16.5V3a1 1 0 0 1 1-1zm7.5.2L15.8 6.5h-3.3z"/></symbol>'
    '<symbol id="u" viewBox="0 0 20 20"><path d="M10 3.5l6 6-1.4 1.4L11 7.3V16H9V7.3l-3.6 3.6L4 9.5z"/></symbol>'
    "</svg>"
)

# Shown as their pictures (U+2400 on): a name's line break or escape must not act on the page or on a terminal that it
# is copied to.
_CONTROLS: Final = (
    {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
)


def render_listing(listing: Listing) -> bytes:
    """Return the page in UTF-8."""
    return "".join(_parts(listing)).encode("utf-8")


def _parts(listing: Listing) -> Iterator[str]:
    here = "/".join(_shown(crumb.name) for crumb in listing.crumbs) + "/"
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>Index of {here}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{_ICONS}\n<main>\n"
    yield '<h1><nav aria-label="Breadcrumb">'
    *above, last = listing.crumbs
    for crumb in above:
        yield f'<a href="{html.escape(crumb.href)}"><bdi>{_shown(crumb.name) or "Home"}</bdi></a><i>/</i>'
    yield f'<bdi aria-current="page">{_shown(last.name) or "Home"}</bdi></nav></h1>\n<ul>\n'
    if listing.parent is not None:
        yield (
            f'<li class="u"><a href="{html.escape(listing.parent)}"><svg aria-hidden="true"><use href="#u"/></svg>'
            "<bdi>Parent directory</bdi></a></li>\n"
        )
    for row in listing.rows:
        yield _line(row)
    yield f"</ul>\n<p>{_summary(listing)}</p>\n</main>\n</body>\n</html>\n"


def _line(row: Row) -> str:
    kind, slash = ("d", "/") if row.is_directory else ("f", "")
    size = "" if row.size is None else f'<span title="{row.size} bytes">{format_size(row.size)}</span>'
    return (
        f'<li class="{kind}"><a href="{html.escape(row.href)}"><svg aria-hidden="true"><use href="#{kind}"/></svg>'
        f"<bdi>{_shown(row.name)}{slash}</bdi>{size or '<span></span>'}{_time(row.mtime)}</a></li>\n"
    )


def _summary(listing: Listing) -> str:
    directories = sum(row.is_directory for row in listing.rows)
    files = len(listing.rows) - directories
    if not listing.rows:
        return "This directory is empty."
    parts = []
    if directories:
        parts.append(f"{directories} director{'y' if directories == 1 else 'ies'}")
    if files:
        size = format_size(sum(row.size or 0 for row in listing.rows))
        parts.append(f"{files} file{'' if files == 1 else 's'}, {size}")
    return "; ".join(parts) + ". Times are UTC."


def _time(mtime: int) -> str:
    # Years that HTML's time element and a reader understand.
    if not 0 <= mtime < 253_402_300_800:
        return "<time>\u2013</time>"
    year, month, day, hour, minute, second, *_ = time.gmtime(mtime)
    date = f"{year:04}-{month:02}-{day:02}"
    return f'<time datetime="{date}T{hour:02}:{minute:02}:{second:02}Z">{date} {hour:02}:{minute:02}</time>'


def _shown(name: str) -> str:
    """Escape a name for text and attributes, whatever it holds."""
    if not name.isprintable():
        # Lone surrogates are bytes that are not UTF-8, or half a pair.
        name = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in name).translate(_CONTROLS)
    return html.escape(name)


def format_size(size: int) -> str:
    """Write a number of bytes for people: at most four digits, in powers of 1024."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    unit = "B"
    # What would be rounded to 1024 belongs to the next unit.
    while value >= 1023.5:
        value /= 1024
        unit = next(units)
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
