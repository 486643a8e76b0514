"""The machine's own table of media types, against the standard library's way to ask it."""

from __future__ import annotations

import mimetypes

import pytest

from zcresponse.machinetypes import guess_type

NAMES = ["a.bin", "a.JPG", "a.html", "a.tar.gz", "a.tgz", "a.TGZ", "a.svgz", "a.Z", "a.z", "a.unknown", "a", ".html",
         "", "folder.d/a", "a.b.pdf", "data:text/x,a.png", "https://host/a.gz?x.png", "a:b.gz", "x:y.png"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_answers_as_the_standard_library(name: str) -> None:
    mimetypes.init()
    assert guess_type(name) == mimetypes.guess_type(name)


def test_what_an_application_adds_counts_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    mimetypes.init()
    monkeypatch.setitem(mimetypes.types_map, ".added", "a/added")
    assert guess_type("a.Added") == ("a/added", None)
    monkeypatch.setitem(mimetypes.encodings_map, ".packed", "packed")
    assert guess_type("a.pdf.packed") == ("application/pdf", "packed")


def test_the_table_is_read_when_it_is_first_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mimetypes, "inited", False)
    monkeypatch.setattr(mimetypes, "_db", None)
    assert guess_type("a.pdf") == ("application/pdf", None)
    assert mimetypes.inited
