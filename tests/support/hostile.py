"""What clients write to get out of a directory or to make its server fall over: paths and header fields.

`make_site` lays out a directory with a secret beside it. Whatever of the table is asked, an answer must not be one of
5xx, must not hold the secret, and must leave the connection good for the next request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.table import Response

__all__ = ["CONTENT", "FIELDS", "SECRET", "TARGETS", "make_site", "problem_of"]

#: What lies beside the directory and within it under names that must not be served.
SECRET: Final = b"the secret of the house next door"
#: What may be had, as `/data.bin`.
CONTENT: Final = bytes(range(256))


def make_site(parent: Path) -> Path:
    """Lay out a directory, and what must not be reached from it."""
    root = parent / "site"
    (root / "docs" / "inner").mkdir(parents=True)
    (root / "data.bin").write_bytes(CONTENT)
    (root / "docs" / "index.html").write_text("<p>docs")
    (root / "index.html").write_text("<p>home")
    (parent / "outside").mkdir()
    for path in (parent / "secret.txt", parent / "outside" / "secret.txt", root / ".env", root / "docs" / ".htpasswd"):
        path.write_bytes(SECRET)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_bytes(SECRET)
    # A directory whose name begins as the root's does.
    (parent / "site-backup").mkdir()
    (parent / "site-backup" / "secret.txt").write_bytes(SECRET)
    if os.name == "posix":
        (root / "out.txt").symlink_to("../secret.txt")
        (root / "out").symlink_to("../outside")
        (root / "absolute.txt").symlink_to(parent / "secret.txt")
        (root / "top").symlink_to("/")
        (root / "proc").symlink_to("/proc/self")
        (root / "loop").symlink_to("loop")
        (root / "data.bin.gz").symlink_to("../secret.txt")
        (root / "data.bin.br").symlink_to(parent / "secret.txt")
        os.mkfifo(root / "fifo")
    return root


def _targets() -> Iterator[str]:
    # Upwards, in every encoding.
    for up in ("..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "%u002e%u002e"):
        yield f"/{up}/secret.txt"
        yield f"/docs/{up}/{up}/secret.txt"
    for separator in ("%2f", "%2F", "%5c", "%5C", "%252f", "%255c", "%c0%af", "%e0%80%af", "%ef%bc%8f", "\\"):
        yield f"/..{separator}secret.txt"
        yield f"/docs{separator}..{separator}..{separator}secret.txt"
    yield from (
        "/..",
        "/../",
        "/%2e%2e",
        "/./../secret.txt",
        "/...//secret.txt",
        "/..;/secret.txt",
        "/..%00/secret.txt",
    )
    yield from ("/../site-backup/secret.txt", "/%2e%2e%2fsite-backup%2fsecret.txt", "/../../../../../../etc/passwd")
    yield from ("/docs/inner/../../../secret.txt", "/nothing/../../secret.txt")
    # Absolute paths, other hosts, other schemes.
    yield from ("//etc/passwd", "/%2fetc/passwd", "///etc///passwd", "//evil.example", "//evil.example/%2e%2e")
    yield from ("/%5c%5cevil.example%5cshare", "/file:/etc/passwd", "/file:%2f%2f%2fetc%2fpasswd", "/~root", "/~/x")
    # Windows: drives, shares, devices, streams, short names, what it drops at the end.
    yield from (
        "/C:/Windows/win.ini",
        "/C:%5cWindows%5cwin.ini",
        "/c:secret.txt",
        "/%5c%5c?%5cC:%5cx",
        "/%5c%5c.%5cCON",
    )
    yield from ("/CON", "/nul.txt", "/com1", "/LPT%C2%B9", "/AUX.h", "/data.bin::$DATA", "/data.bin:x", "/DATA~1.BIN")
    yield from ("/data.bin.", "/data.bin%20", "/data.bin%2e%2e", "/docs./index.html", "/..%20/secret.txt")
    # Nothing, controls, bytes that are no text.
    yield from (
        "/%00",
        "/data.bin%00",
        "/data.bin%00.html",
        "/secret.txt%00",
        "/%0a",
        "/%0d%0aSet-Cookie:%20a=b",
        "/%7f",
    )
    yield from (
        "/%ff",
        "/%c3",
        "/%ed%a0%80",
        "/%f4%90%80%80",
        "/%fe%ff",
        "/%",
        "/%2",
        "/%zz",
        "/%u0041",
        "/%EF%BB%BFdata.bin",
    )
    yield from (
        "/data%E2%80%AE.bin",
        "/%E2%80%8Bdata.bin",
        "/d%61ta.bin%2e",
        "/$%7Bjndi:ldap:x%7D",
        "/%7Bx.__class__%7D",
    )
    # Too long, too deep.
    yield "/" + "x" * 300
    yield "/" + "x" * 3_000
    yield "/" + "x/" * 1_500
    yield "/" + "../" * 800 + "secret.txt"
    yield "/" + "%2e%2e/" * 300 + "etc/passwd"
    yield "/docs" + "/." * 900 + "/index.html"
    # Links and what is no file.
    yield from ("/out.txt", "/out/secret.txt", "/out/", "/absolute.txt", "/top/etc/passwd", "/proc/environ", "/loop")
    yield from (
        "/loop/x",
        "/fifo",
        "/fifo/",
        "/data.bin/",
        "/data.bin/..",
        "/data.bin/x",
        "/data.bin.gz",
        "/data.bin.br",
    )
    # Hidden names.
    yield from ("/.env", "/%2eenv", "/.git/config", "/.git/", "/docs/.htpasswd", "/.well-known/../.env", "/.well-known")
    # Names that mean something to somebody.
    yield from (
        "/*",
        "/?",
        "/docs?../../secret.txt",
        "/docs;x=..",
        "/docs/index.html%3f",
        "/docs/index.html%23",
        "/__init__",
    )


#: Targets of requests, percent-encoded.
TARGETS: Final = tuple(_targets())

#: Fields for `/data.bin`.
FIELDS: Final[tuple[tuple[str, str], ...]] = (
    *(
        ("Accept-Encoding", value)
        for value in (
            "",
            ",",
            ";",
            ";q=1",
            "gzip;q=",
            "gzip;q=nan",
            "gzip;q=1e9",
            "gzip;q=-0",
            "br;" * 500,
            "*;q=0",
            "identity;q=0",
            "*;q=0,identity;q=0,gzip;q=0",
            "gzip," * 1_000,
            "../secret.txt",
            "br/../../secret.txt",
            "\xff\xfe",
            "gzip;q=0.0000000000000001",
            "x" * 4_000,
        )
    ),
    *(
        ("Range", value)
        for value in (
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=--1",
            "bytes=1-0",
            "bytes=0-0,-1,1-",
            "bytes=" + "9" * 4_000 + "-",
            "bytes=-" + "9" * 4_000,
            "bytes=0-" + "," * 1_000,
            "bytes=" + "0-1," * 1_000 + "0-1",
            "bytes=\xb2-\xb3",
            "bytes=0x0-0x10",
            "bytes=1.5-2",
            "items=0-1",
            "BYTES=0-1",
            "bytes=0-1\t;x",
        )
    ),
    *(
        (name, value)
        for name in ("If-None-Match", "If-Match", "If-Range", "If-Modified-Since", "If-Unmodified-Since")
        for value in (
            "",
            "*",
            '"',
            'W/"',
            '"' * 1_001,
            '"a",' * 800,
            "Thu, 99 Foo 9999 99:99:99 GMT",
            "Sun, 31 Dec 999999999 23:59:59 GMT",
            "-1",
            "\xff",
        )
    ),
)


def problem_of(response: Response) -> str | None:
    """Tell what is wrong with the answer to anything here, if something is."""
    if response.status >= 500:
        return f"status {response.status}"
    for _, value in response.fields:
        if SECRET.decode() in value or "evil.example/" in value.removeprefix("./evil.example/"):
            return f"a field that says {value!r}"
    if any(name == "set-cookie" for name, _ in response.fields):
        return "a field that the client has written"
    if SECRET in response.body or b"root:" in response.body:
        return "the body is from outside"
    return None
