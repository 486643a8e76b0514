from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.http import mediatype
from zcresponse.http.mediatype import DEFAULT_MEDIA_TYPE, guess_media_type


def test_the_module_says_what_is_public() -> None:
    assert mediatype.__all__ == ["DEFAULT_MEDIA_TYPE", "guess_media_type"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("app.js", "text/javascript; charset=utf-8"),
        ("app.mjs", "text/javascript; charset=utf-8"),
        ("readme.txt", "text/plain; charset=utf-8"),
        ("readme.md", "text/markdown; charset=utf-8"),
        ("table.csv", "text/csv; charset=utf-8"),
        ("main.py", "text/plain; charset=utf-8"),
        ("data.json", "application/json"),
        ("feed.xml", "application/xml"),
        ("page.xhtml", "application/xhtml+xml"),
        ("module.wasm", "application/wasm"),
        ("app.webmanifest", "application/manifest+json"),
        ("logo.svg", "image/svg+xml"),
        ("photo.jpg", "image/jpeg"),
        ("photo.jpeg", "image/jpeg"),
        ("photo.avif", "image/avif"),
        ("favicon.ico", "image/vnd.microsoft.icon"),
        ("song.mp3", "audio/mpeg"),
        ("film.mp4", "video/mp4"),
        ("film.webm", "video/webm"),
        ("segment.ts", "video/mp2t"),
        ("live.m3u8", "application/vnd.apple.mpegurl"),
        ("font.woff2", "font/woff2"),
        ("paper.pdf", "application/pdf"),
        ("sheet.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("rows.parquet", "application/vnd.apache.parquet"),
        ("model.safetensors", "application/octet-stream"),
        ("model.gguf", "application/octet-stream"),
        ("model.onnx", "application/octet-stream"),
        ("array.npy", "application/octet-stream"),
        # compressed files are themselves
        ("backup.tar.gz", "application/gzip"),
        ("backup.tgz", "application/gzip"),
        ("index.html.gz", "application/gzip"),
        ("logo.svgz", "application/gzip"),
        ("app.js.br", "application/octet-stream"),
        ("app.js.zst", "application/zstd"),
        # the suffix is what follows the last dot, in any case
        ("INDEX.HTML", "text/html; charset=utf-8"),
        ("Photo.JpEg", "image/jpeg"),
        ("a.b.c.png", "image/png"),
        ("/srv/files.d/photo.png", "image/png"),
        ("C:\\files\\photo.png", "image/png"),
        (".config.json", "application/json"),
        # none
        ("", DEFAULT_MEDIA_TYPE),
        (".", DEFAULT_MEDIA_TYPE),
        ("html", DEFAULT_MEDIA_TYPE),
        (".html", DEFAULT_MEDIA_TYPE),
        ("folder/.html", DEFAULT_MEDIA_TYPE),
        ("folder\\.html", DEFAULT_MEDIA_TYPE),
        ("page.html.", DEFAULT_MEDIA_TYPE),
        ("page.html/file", DEFAULT_MEDIA_TYPE),
        ("page.html ", DEFAULT_MEDIA_TYPE),
        ("page.html\x00", DEFAULT_MEDIA_TYPE),
        ("page.\ud800", DEFAULT_MEDIA_TYPE),
        ("page.unknown", DEFAULT_MEDIA_TYPE),
    ],
)
def test_the_suffix_tells_the_type(name: str, expected: str) -> None:
    assert guess_media_type(name) == expected


def test_no_suffix_is_listed_twice() -> None:
    suffixes = " ".join(mediatype._SUFFIXES.values()).split()
    assert sorted(suffixes) == sorted(set(suffixes))
    assert len(suffixes) == len(mediatype._TYPES) > 250


@pytest.mark.parametrize("media_type", mediatype._SUFFIXES)
def test_every_type_is_well_formed(media_type: str) -> None:
    # RFC 6838 §4.2
    assert re.fullmatch(r"[a-z]+/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}", media_type)


@pytest.mark.parametrize(("suffix", "value"), mediatype._TYPES.items())
def test_text_has_a_charset_and_nothing_else_has(suffix: str, value: str) -> None:
    assert re.fullmatch("[a-z0-9]+", suffix)
    assert guess_media_type(f"name.{suffix}") == guess_media_type(f"NAME.{suffix.upper()}") == value
    assert value.startswith("text/") is value.endswith("; charset=utf-8")


def test_the_machines_own_table_is_not_asked() -> None:
    assert "mimetypes" not in vars(sys.modules["zcresponse.http.mediatype"])


@given(st.text(st.characters()))
def test_no_name_raises(name: str) -> None:
    assert re.fullmatch("[ -~]+", guess_media_type(name))
