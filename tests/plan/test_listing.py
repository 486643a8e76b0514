"""The page: valid, escaped, without anything to run or load."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.plan.listing import Crumb, Listing, Row, format_size, render_listing


class Page(HTMLParser):
    """What a browser makes of a page, as far as these tests ask."""

    # Elements without an end, as the page uses them.
    VOID = frozenset(("meta",))

    def __init__(self, listing: Listing) -> None:
        super().__init__()
        self.source = render_listing(listing).decode("utf-8")
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.links: list[str | None] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self._open == [], "an element was not ended"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)


def listing(*rows: Row, crumbs: tuple[Crumb, ...] = (Crumb("", "./"),), parent: str | None = None) -> Listing:
    return Listing(crumbs, parent, rows)


def file(name: str, *, href: str = "./x", size: int = 0, mtime: int = 0) -> Row:
    return Row(name, href, False, size, mtime)


NAMES = [
    "<script>alert(1)</script>",
    "</a></li></ul><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "a&amp;b&lt;c",
    "--><!--",
    "]]>",
    "</style>",
    "</title><b>",
    "line\nbreak\ttab\x1b[31m\x07\x7f",
    "\u202egnp.exe",
    "not-utf8-\udcff\udc80",
    "half-\ud83d",
    "\x85\x9b\xad",
    "\u2028\u2029\ufeff",
    "عربي עברית",
    "👩‍👩‍👧‍👦",
    " ",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_text_and_nothing_else(name: str) -> None:
    plain = Page(listing(file("plain"), crumbs=(Crumb("", "../"), Crumb("plain", "./")), parent="../"))
    odd = Page(listing(file(name), crumbs=(Crumb("", "../"), Crumb(name, "./")), parent="../"))
    assert odd.elements == plain.elements
    assert odd.attributes == plain.attributes


@given(st.text(st.characters()))
def test_any_name_makes_the_same_page(name: str) -> None:
    plain = Page(listing(file("plain"), crumbs=(Crumb("", "../"), Crumb("plain", "./"))))
    odd = Page(listing(file(name), crumbs=(Crumb("", "../"), Crumb(name, "./"))))
    assert odd.elements == plain.elements
    assert odd.attributes == plain.attributes


def test_ordinary_names_are_shown_as_they_are() -> None:
    page = Page(listing(file("Ärger & Co <1>.txt"), file("👩‍👩‍👧‍👦")))
    assert page.texts["bdi"] == ["Home", "Ärger & Co <1>.txt", "👩‍👩‍👧‍👦"]


def test_controls_are_shown_as_pictures_and_bad_bytes_as_replacements() -> None:
    page = Page(listing(file("a\nb\x7f"), file("c\udcff\x9b")))
    assert page.texts["bdi"][1:] == ["a\u240ab\u2421", "c\ufffd\ufffd"]


def test_a_page_needs_no_script_and_loads_nothing() -> None:
    page = Page(listing(file("a"), Row("d", "./d/", True, None, 0), parent="../"))
    assert not {"script", "img", "link", "iframe", "object", "embed", "form", "base"} & set(page.elements)
    assert not any(name in ("src", "style") or name.startswith("on") for name, _ in page.attributes)
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_a_page_fits_phones_and_dark_rooms() -> None:
    page = Page(listing())
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page.source
    assert "prefers-color-scheme:dark" in page.source
    assert "@media(max-width:" in page.source


def test_links_go_up_and_down() -> None:
    page = Page(
        listing(
            Row("d", "./d/", True, None, 0),
            file("f", href="./f%26"),
            crumbs=(Crumb("", "../../"), Crumb("a", "../"), Crumb("b", "./")),
            parent="../",
        )
    )
    assert page.links == ["../../", "../", "../", "./d/", "./f%26"]


@pytest.mark.parametrize(
    ("mtime", "shown"),
    [
        (0, "1970-01-01 00:00"),
        (1_700_000_000, "2023-11-14 22:13"),
        (253_402_300_799, "9999-12-31 23:59"),
        (253_402_300_800, "–"),
        (-1, "–"),
        (10**30, "–"),
    ],
)
def test_times_are_utc_and_absurd_ones_are_left_out(mtime: int, shown: str) -> None:
    assert Page(listing(file("a", mtime=mtime))).texts["time"] == [shown]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10_188, "9.9 KiB"),
        (10_190, "10 KiB"),
        (1_047_552, "1023 KiB"),
        (1_048_575, "1.0 MiB"),
        (1_048_576, "1.0 MiB"),
        (4_920_734_720, "4.6 GiB"),
        (2**40, "1.0 TiB"),
        (2**63 - 1, "8.0 EiB"),
    ],
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert format_size(size) == text


def test_the_sum_is_told_and_an_empty_directory_says_so() -> None:
    assert "This directory is empty." in Page(listing()).texts["p"]
    page = Page(listing(Row("d", "./d/", True, None, 0), file("a", size=1000), file("b", size=24)))
    assert page.texts["p"] == ["1 directory; 2 files, 1.0 KiB. Times are UTC."]
