from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zcresponse.http import disposition
from zcresponse.http.disposition import MAX_NAME_BYTES, format_content_disposition, reduce_filename


def test_the_module_says_what_is_public() -> None:
    names = ["MAX_NAME_BYTES", "check_disposition", "format_content_disposition", "reduce_filename"]
    assert disposition.__all__ == names


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        # RFC 6266 §5
        ("example.html", 'attachment; filename="example.html"'),
        ("\u20ac rates", "attachment; filename=\"_ rates\"; filename*=UTF-8''%e2%82%ac%20rates"),
        # RFC 8187 §3.2.3
        (
            "\u00a3 and \u20ac rates",
            "attachment; filename=\"_ and _ rates\"; filename*=UTF-8''%c2%a3%20and%20%e2%82%ac%20rates",
        ),
        # realistic
        ("annual report (final), v2.pdf", 'attachment; filename="annual report (final), v2.pdf"'),
        ("a;b=c.txt", 'attachment; filename="a;b=c.txt"'),
        ("it's.txt", 'attachment; filename="it\'s.txt"'),
        ("100%.txt", 'attachment; filename="100%.txt"'),
        (".profile", 'attachment; filename=".profile"'),
        (
            "na\u00efve caf\u00e9.txt",
            "attachment; filename=\"naive cafe.txt\"; filename*=UTF-8''na%c3%afve%20caf%c3%a9.txt",
        ),
        ("cafe\u0301.txt", "attachment; filename=\"cafe.txt\"; filename*=UTF-8''cafe%cc%81.txt"),
        ("\u5831\u544a.pdf", "attachment; filename=\"__.pdf\"; filename*=UTF-8''%e5%a0%b1%e5%91%8a.pdf"),
        ("\ufb01le \uff11.txt", "attachment; filename=\"file 1.txt\"; filename*=UTF-8''%ef%ac%81le%20%ef%bc%91.txt"),
        ("\U0001f600.png", "attachment; filename=\"_.png\"; filename*=UTF-8''%f0%9f%98%80.png"),
        ("'(*)\u00e4", "attachment; filename=\"'(*)a\"; filename*=UTF-8''%27%28%2a%29%c3%a4"),
        # what a quoted string must not hold
        ('say "hi".txt', "attachment; filename=\"say _hi_.txt\"; filename*=UTF-8''say%20%22hi%22.txt"),
        ("100%41.txt", "attachment; filename=\"100_41.txt\"; filename*=UTF-8''100%2541.txt"),
        # paths
        ("/etc/passwd", 'attachment; filename="_etc_passwd"'),
        ("../../etc/passwd", 'attachment; filename=".._.._etc_passwd"'),
        ("..\\..\\boot.ini", 'attachment; filename=".._.._boot.ini"'),
        ("C:\\temp\\a.txt", 'attachment; filename="C:_temp_a.txt"'),
        (
            "\uff0f\uff3c\uff02\u00e9",
            "attachment; filename=\"___e\"; filename*=UTF-8''%ef%bc%8f%ef%bc%bc%ef%bc%82%c3%a9",
        ),
        (".", 'attachment; filename="_"'),
        ("..", 'attachment; filename="__"'),
        ("\uff0e\uff0e", "attachment; filename=\"__\"; filename*=UTF-8''%ef%bc%8e%ef%bc%8e"),
        # header splitting and its kin
        ("a\r\nSet-Cookie: b=c", 'attachment; filename="a__Set-Cookie: b=c"'),
        ('a"; filename="b', "attachment; filename=\"a_; filename=_b\"; filename*=UTF-8''a%22%3b%20filename%3d%22b"),
        ("a\x00b\tc\x7fd\x85e", 'attachment; filename="a_b_c_d_e"'),
        ("a\u2028b\u2029c", 'attachment; filename="a_b_c"'),
        # marks that turn the text round and show another suffix
        ("annex\u202efdp.exe", 'attachment; filename="annex_fdp.exe"'),
        ("\u2066a\u2069\u200eb\u200f\u061c", 'attachment; filename="_a__b__"'),
        # no UTF-8 for these
        ("a\ud800b", 'attachment; filename="a_b"'),
        ("caf\udce9.txt", 'attachment; filename="caf_.txt"'),
        # white space at the ends
        ("  a b.txt \u00a0\u3000", 'attachment; filename="a b.txt"'),
        (" .. ", 'attachment; filename="__"'),
        # only a mark, only a blank in the likeness
        ("\u0301", "attachment; filename=\"_\"; filename*=UTF-8''%cc%81"),
        ("\u00a8", "attachment; filename=\"_\"; filename*=UTF-8''%c2%a8"),
        # nothing left
        ("", "attachment"),
        ("   ", "attachment"),
        (None, "attachment"),
    ],
)
def test_a_name_is_written_so_that_every_client_can_read_it(filename: str | None, expected: str) -> None:
    # Percent-encoding may be written in either case; the examples of the RFC are in lower case.
    value = format_content_disposition("attachment", filename)
    assert re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), value) == expected


@pytest.mark.parametrize("kind", ["inline", "attachment", "form-data", "x!#$%&'*+-.^_`|~9"])
def test_the_type_is_any_token(kind: str) -> None:
    assert format_content_disposition(kind, None) == kind
    assert format_content_disposition(kind, "a.txt") == f'{kind}; filename="a.txt"'


@pytest.mark.parametrize(
    "kind", ["", " ", "a b", "inline;", "a\r\nb", "inline\n", 'a"', "a=b", "\u00e9", "a/b", "\x00"]
)
def test_a_type_that_is_no_token_is_the_callers_mistake(kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        format_content_disposition(kind, "a.txt")


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("a" * 300, "a" * 255),
        ("a" * 255, "a" * 255),
        ("a" * 300 + ".pdf", "a" * 251 + ".pdf"),
        ("a" * 300 + ".tar.gz", "a" * 248 + ".tar.gz"),
        ("a" * 300 + ".TAR.zst", "a" * 247 + ".TAR.zst"),
        ("\u00e9" * 300 + ".pdf", "\u00e9" * 125 + ".pdf"),
        ("\U0001f600" * 300 + ".jpeg", "\U0001f600" * 62 + ".jpeg"),
        ("a" * 249 + " " * 50 + ".pdf", "a" * 249 + ".pdf"),
        ("a" * 300 + "." + "b" * 31, "a" * 223 + "." + "b" * 31),
        # too long to be a suffix
        ("a." + "b" * 300, "a." + "b" * 253),
        ("." + "a" * 300, "." + "a" * 254),
        ("." * 300, "_" * 255),
        ("/" * 300, "_" * 255),
    ],
)
def test_a_long_name_is_cut_and_keeps_its_suffix(filename: str, expected: str) -> None:
    assert reduce_filename(filename) == expected


PARTS = re.compile(r'attachment(?:; filename="([^"\\]+)"(?:; filename\*=UTF-8\'\'([A-Za-z0-9!#$&+.^_`|~%-]+))?)?')
anything = st.text(st.characters(), max_size=60) | st.text('ab./\\"%4;\r\n\x00\u202e\ud800\u00e9\uff0f\u0301 ')
long = st.tuples(st.text(st.characters(), min_size=1, max_size=4), st.integers(60, 300), st.text(max_size=40)).map(
    lambda parts: parts[0] * parts[1] + parts[2]
)


@given(anything | long)
@example("\ud83d\ude00")
@example("\ufdfa" * 85)
@example("\u33af" * 85)
def test_any_name_gives_one_line_of_printable_ascii_that_decodes_back(filename: str) -> None:
    value = format_content_disposition("attachment", filename)
    assert re.fullmatch("[ -~]+", value)
    assert len(value) < 2000
    found = PARTS.fullmatch(value)
    assert found is not None
    plain, extended = found.groups()
    if extended is not None:
        assert unquote(extended, errors="strict") == reduce_filename(filename)
    else:
        assert (plain or "") == reduce_filename(filename)
    if plain is not None:
        assert "/" not in plain
        assert plain.strip(". ")
        assert not re.search("%[0-9A-Fa-f]{2}", plain)


@given(anything | long)
def test_a_reduced_name_is_one_storable_component(filename: str) -> None:
    name = reduce_filename(filename)
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert name not in (".", "..")
    assert name == name.strip()
    assert not re.search(r"[/\\\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", name)
    assert reduce_filename(name) == name


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9 _.-]{0,50}[A-Za-z0-9_]", fullmatch=True))
def test_a_harmless_name_is_left_alone(filename: str) -> None:
    assert format_content_disposition("inline", filename) == f'inline; filename="{filename}"'


@pytest.mark.parametrize("unit", ["a", ".", "/", "\u00e9", " ", "\ud800", "\u0301", '"', "%4", ".tar", "\u202e"])
def test_a_million_characters_are_linear_work(unit: str, lines_run: Callable[[Callable[[], object]], int]) -> None:
    once = lines_run(lambda: format_content_disposition("attachment", unit * 20_000))
    twice = lines_run(lambda: format_content_disposition("attachment", unit * 40_000))
    assert twice <= once + 20
    assert len(format_content_disposition("attachment", unit * 1_000_000)) < 2000
