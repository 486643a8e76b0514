"""The table of requests and answers that every door and every server has to pass.

A case says what is asked of which file and what must come back. `check` judges a neutral `Response`, so that the same
row is run against a plan in memory, a framework's test client and a socket.

The files are made by `make_files`: their bytes, times and therefore validators are constants, which is why the rows can
be written down at import. Every row is served under one of two addresses, see `Case.url_path`.
"""

from __future__ import annotations

import enum
import functools
import os
import random
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

__all__ = [
    "CACHE_CONTROL",
    "CASES",
    "DOWNLOAD_NAME",
    "FILES",
    "MAX_AGE",
    "STATIC_CASES",
    "Case",
    "Files",
    "FixtureFile",
    "Part",
    "Presence",
    "Response",
    "check",
    "make_files",
    "parse_multipart",
    "problems",
]

# What a door gives to a file that is served under `/dressed/`: both must vanish from a 412 and a 416. The caching field
# may be given as text or as the number.
DOWNLOAD_NAME = "Résumé “final”.bin"
MAX_AGE = 3600
CACHE_CONTROL = f"max-age={MAX_AGE}"

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Presence(enum.Enum):
    """What a row can say of a field whose value it does not know."""

    PRESENT = "present"
    ABSENT = "absent"


PRESENT = Presence.PRESENT
ABSENT = Presence.ABSENT

Expected = tuple[tuple[str, str | Presence], ...]
Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Response:
    """An answer as any client can tell it: names in lower case, the body without its transfer framing."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    @classmethod
    def of(
        cls, status: int, fields: Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]], body: bytes
    ) -> Response:
        """Make one from header pairs in any case, as text or as bytes.

        Args:
            status: The status code.
            fields: Header pairs; bytes are read as Latin-1, as HTTP does.
            body: The body's bytes.
        """
        return cls(status, [(_text(name).lower(), _text(value)) for name, value in fields], body)

    def values(self, name: str) -> list[str]:
        """All values of one field, in the order received."""
        return [value for each, value in self.fields if each == name.lower()]


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


@dataclass(frozen=True, slots=True)
class FixtureFile:
    """One file of the table, known without looking at a disk.

    Attributes:
        name: The name in the directory.
        size: Bytes.
        mtime_ns: Nanoseconds since the epoch, with a fraction that Last-Modified must drop; a multiple of 100, the
            step of Windows' clocks.
        media_type: What a guess from the name has to give.
    """

    name: str
    size: int
    mtime_ns: int
    media_type: str

    @property
    def mtime(self) -> int:
        """Whole seconds since the epoch."""
        return self.mtime_ns // 1_000_000_000

    @property
    def etag(self) -> str:
        """The strong tag made of time and size."""
        return f'"{self.mtime_ns:x}-{self.size:x}"'

    @property
    def last_modified(self) -> str:
        """The time as an IMF-fixdate."""
        return imf_fixdate(self.mtime)

    @property
    def content(self) -> bytes:
        """The bytes, the same in every run."""
        return _content(self.name, self.size)


@functools.cache
def _content(name: str, size: int) -> bytes:
    return random.Random(f"zcresponse {name}").randbytes(size)


def imf_fixdate(seconds: int) -> str:
    """`Sun, 06 Nov 1994 08:49:37 GMT`, the preferred form of RFC 9110 §5.6.7."""
    t = time.gmtime(seconds)
    return f"{_WEEKDAYS[t.tm_wday][:3]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04} {_clock(t)} GMT"


def rfc850_date(seconds: int) -> str:
    """`Sunday, 06-Nov-94 08:49:37 GMT`, the first obsolete form."""
    t = time.gmtime(seconds)
    return f"{_WEEKDAYS[t.tm_wday]}, {t.tm_mday:02}-{_MONTHS[t.tm_mon - 1]}-{t.tm_year % 100:02} {_clock(t)} GMT"


def asctime_date(seconds: int) -> str:
    """`Sun Nov  6 08:49:37 1994`, the second obsolete form."""
    t = time.gmtime(seconds)
    return f"{_WEEKDAYS[t.tm_wday][:3]} {_MONTHS[t.tm_mon - 1]} {t.tm_mday:2} {_clock(t)} {t.tm_year:04}"


def _clock(t: time.struct_time) -> str:
    return f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"


_BINARY = "application/octet-stream"

DATA = FixtureFile("data.bin", 300_000, 1_600_000_000_123_456_700, _BINARY)
SMALL = FixtureFile("small.bin", 1024, 1_610_000_000_987_654_300, _BINARY)
EMPTY = FixtureFile("empty.bin", 0, 1_620_000_000_000_000_000, _BINARY)
LARGE = FixtureFile("large.bin", 5 * 1024 * 1024, 1_630_000_000_999_999_900, _BINARY)
# One digit for the day of the month, so that the padding of asctime's form matters.
ODD = FixtureFile("naïve name ✓ 100%.txt", 3000, 1_604_600_000_500_000_000, "text/plain; charset=utf-8")

FILES: dict[str, FixtureFile] = {file.name: file for file in (DATA, SMALL, EMPTY, LARGE, ODD)}


@dataclass(frozen=True, slots=True)
class Files:
    """The table's files on a disk."""

    directory: Path

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self.directory / name

    def content(self, name: str) -> bytes:
        """The bytes that a file was made of."""
        return FILES[name].content


def make_files(directory: Path) -> Files:
    """Write the table's files with their fixed times.

    Args:
        directory: An existing directory; nothing else should lie in it.

    Raises:
        RuntimeError: The file system keeps times too coarsely for the validators to be known.
    """
    for file in FILES.values():
        path = directory / file.name
        path.write_bytes(file.content)
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
        if path.stat().st_mtime_ns != file.mtime_ns:
            raise RuntimeError(f"{directory} does not keep a file time of {file.mtime_ns} ns")
    return Files(directory)


@dataclass(frozen=True, slots=True)
class Case:
    """One request and the only right answer to it.

    Attributes:
        name: A sentence; also the test's id.
        method: GET, HEAD or POST.
        fields: The request's header pairs, in order, names in any case. A door adds what its client needs (Host).
        file: The file's name, a key of `FILES`.
        status: The status code due.
        expect: Response fields: an exact value, PRESENT or ABSENT. An expected field stands exactly once.
        body: "whole", "none", or half-open intervals of the file: one is sent plainly, several as multipart.
        dressed: The view gives DOWNLOAD_NAME as an attachment and CACHE_CONTROL.
    """

    name: str
    method: str
    fields: tuple[tuple[str, str], ...]
    file: str
    status: int
    expect: Expected
    body: Literal["whole", "none"] | tuple[Interval, ...]
    dressed: bool = False

    @property
    def is_static(self) -> bool:
        """Whether a server of a directory can run it, that knows no POST and no options."""
        return self.method in ("GET", "HEAD") and not self.dressed

    @property
    def raw_fields(self) -> list[tuple[bytes, bytes]]:
        """The request's header pairs as ASGI has them: Latin-1, names in lower case."""
        return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.fields]

    def url_path(self, *, static: bool = False) -> str:
        """The address, percent-encoded.

        Args:
            static: The files are the root's own, as of a server of a directory. Otherwise they lie beneath `/plain/`
                and, for dressed cases, `/dressed/`; both views take GET, HEAD and POST.
        """
        folder = "" if static else "dressed/" if self.dressed else "plain/"
        return f"/{folder}{quote(self.file)}"

    def __str__(self) -> str:
        return self.name


# --- rows -------------------------------------------------------------------------------------------------------------

Field = tuple[str, str]


def _described(file: FixtureFile) -> Expected:
    return (
        ("content-type", file.media_type),
        ("etag", file.etag),
        ("last-modified", file.last_modified),
        ("accept-ranges", "bytes"),
    )


_DRESS: Expected = (("cache-control", CACHE_CONTROL), ("content-disposition", PRESENT))
_UNDRESS: Expected = (("cache-control", ABSENT), ("content-disposition", ABSENT))


def _whole(name: str, file: FixtureFile, *fields: Field, method: str = "GET", dressed: bool = False) -> Case:
    expect: Expected = (("content-length", str(file.size)), ("content-range", ABSENT), *_described(file))
    if dressed:
        expect += _DRESS
    return Case(name, method, fields, file.name, 200, expect, "none" if method == "HEAD" else "whole", dressed)


def _posted(name: str, file: FixtureFile, *fields: Field) -> Case:
    # RFC 9110 §13.2.1 and §14.2: neither preconditions on a file nor ranges mean anything for POST.
    expect: Expected = (
        ("content-length", str(file.size)),
        ("content-range", ABSENT),
        ("content-type", file.media_type),
    )
    return Case(name, "POST", fields, file.name, 200, expect, "whole")


def _part(name: str, file: FixtureFile, wanted: Interval, *fields: Field, dressed: bool = False) -> Case:
    start, stop = wanted
    expect: Expected = (
        ("content-length", str(stop - start)),
        ("content-range", f"bytes {start}-{stop - 1}/{file.size}"),
        ("content-type", file.media_type),
        ("etag", file.etag),
    )
    # RFC 9110 §15.3.7: a 206 carries what the 200 would, but after If-Range it may leave Last-Modified out.
    if not any(field.lower() == "if-range" for field, _ in fields):
        expect += (("last-modified", file.last_modified),)
    if dressed:
        expect += _DRESS
    return Case(name, "GET", fields, file.name, 206, expect, (wanted,), dressed)


def _parts(name: str, file: FixtureFile, wanted: Sequence[Interval], *fields: Field, dressed: bool = False) -> Case:
    expect: Expected = (
        ("content-length", PRESENT),
        # RFC 9110 §15.3.7.2: MUST NOT stand in the header of a multipart answer.
        ("content-range", ABSENT),
        ("content-type", PRESENT),
        ("etag", file.etag),
    )
    if dressed:
        expect += _DRESS
    return Case(name, "GET", fields, file.name, 206, expect, tuple(wanted), dressed)


def _unsatisfied(name: str, file: FixtureFile, *fields: Field, dressed: bool = False) -> Case:
    expect: Expected = (
        ("content-length", "0"),
        ("content-range", f"bytes */{file.size}"),
        ("etag", ABSENT),
        ("last-modified", ABSENT),
        *_UNDRESS,
    )
    return Case(name, "GET", fields, file.name, 416, expect, "none", dressed)


def _failed(name: str, file: FixtureFile, *fields: Field, method: str = "GET", dressed: bool = False) -> Case:
    expect: Expected = (
        ("content-length", "0"),
        ("content-range", ABSENT),
        ("etag", ABSENT),
        ("last-modified", ABSENT),
        *_UNDRESS,
    )
    return Case(name, method, fields, file.name, 412, expect, "none", dressed)


def _unmodified(name: str, file: FixtureFile, *fields: Field, method: str = "GET", dressed: bool = False) -> Case:
    # RFC 9110 §15.4.5: ETag and caching fields as in the 200, no other metadata of the representation.
    expect: Expected = (
        ("content-length", ABSENT),
        ("content-range", ABSENT),
        ("content-type", ABSENT),
        ("etag", file.etag),
    )
    if dressed:
        expect += (("cache-control", CACHE_CONTROL),)
    return Case(name, method, fields, file.name, 304, expect, "none", dressed)


def _range(text: str) -> Field:
    return ("Range", f"bytes={text}")


_OTHER_TAG = '"another-tag"'
_WEAK_TAG = f"W/{DATA.etag}"
_BEFORE = imf_fixdate(DATA.mtime - 1)
_AFTER = imf_fixdate(DATA.mtime + 1)
_NINES = "9" * 3000


def _whole_rows() -> Iterator[Case]:
    yield _whole("a file is sent whole", DATA)
    yield _whole("a small file is sent whole", SMALL)
    yield _whole("a large file is sent whole", LARGE)
    yield _whole("an empty file is sent whole", EMPTY)
    yield _whole("a name with spaces, a percent sign and letters beyond ASCII is served", ODD)
    yield _whole("a download carries its caching and disposition fields", DATA, dressed=True)
    yield _whole("HEAD tells of the whole file and sends nothing", DATA, method="HEAD")
    yield _whole("HEAD of a small file sends nothing", SMALL, method="HEAD")
    yield _whole("HEAD of a large file sends nothing", LARGE, method="HEAD")
    yield _whole("HEAD of an empty file sends nothing", EMPTY, method="HEAD")
    yield _whole("HEAD of a download carries its fields", DATA, method="HEAD", dressed=True)
    # RFC 9110 §14.2: a server MUST ignore Range for a method other than GET that does not define it.
    yield _whole("HEAD ignores a range", DATA, _range("0-9"), method="HEAD")
    yield _whole("HEAD ignores several ranges", DATA, _range("0-9,20-29"), method="HEAD")
    yield _whole("HEAD ignores a range beyond the end", DATA, _range("300000-"), method="HEAD")
    yield _whole("HEAD ignores a range with If-Range", DATA, _range("0-9"), ("If-Range", DATA.etag), method="HEAD")


def _single_range_rows() -> Iterator[Case]:
    yield _part("the first byte", DATA, (0, 1), _range("0-0"))
    yield _part("the last byte", DATA, (299_999, 300_000), _range("299999-299999"))
    yield _part("bytes from the middle", DATA, (100_003, 200_001), _range("100003-200000"))
    yield _part("the tail by an open range", DATA, (299_000, 300_000), _range("299000-"))
    yield _part("the tail by a suffix", DATA, (299_500, 300_000), _range("-500"))
    yield _part("the last byte by a suffix", DATA, (299_999, 300_000), _range("-1"))
    yield _part("a suffix larger than the file", DATA, (0, 300_000), _range("-300001"))
    yield _part("a suffix as large as the file", DATA, (0, 300_000), _range("-300000"))
    yield _part("an open range from the start", DATA, (0, 300_000), _range("0-"))
    yield _part("the whole file by numbers", DATA, (0, 300_000), _range("0-299999"))
    yield _part("an end beyond the file is cut to the file", DATA, (299_990, 300_000), _range("299990-300010"))
    yield _part("an end of thousands of digits is cut to the file", DATA, (5, 300_000), _range(f"5-{_NINES}"))
    yield _part("a suffix of thousands of digits is the file", DATA, (0, 300_000), _range(f"-{_NINES}"))
    yield _part("leading zeros change nothing", DATA, (10, 20), _range("00010-0000000000000000000000019"))
    yield _part("the unit's case does not matter", DATA, (0, 10), ("Range", "ByTeS=0-9"))
    yield _part("the field name's case does not matter", DATA, (0, 10), ("rANGE", "bytes=0-9"))
    yield _part("spaces and tabs around a member are allowed", DATA, (0, 10), _range(" \t0-9 \t,"))
    yield _part("empty list members are ignored", DATA, (0, 10), _range(",,0-9, ,"))
    yield _part("a range of a small file", SMALL, (100, 200), _range("100-199"))
    yield _part("a range of a large file", LARGE, (1_000_003, 4_000_001), _range("1000003-4000000"))
    yield _part("the tail of a large file", LARGE, (LARGE.size - 70_001, LARGE.size), _range("-70001"))
    yield _part("a range of a file with an odd name", ODD, (7, 2000), _range("7-1999"))
    yield _part("a part of a download carries its fields", DATA, (0, 10), _range("0-9"), dressed=True)


def _ignored_range_rows() -> Iterator[Case]:
    """RFC 9110 §14.2: an invalid set or an unknown unit MUST or MAY be ignored; never a 400."""
    yield _whole("an unknown unit is ignored", DATA, ("Range", "items=0-9"))
    yield _whole("an unknown unit that begins like bytes is ignored", DATA, ("Range", "bytess=0-9"))
    yield _whole("a set without a unit is ignored", DATA, ("Range", "0-9"))
    yield _whole("a unit without a set is ignored", DATA, ("Range", "bytes"))
    yield _whole("an empty Range is ignored", DATA, ("Range", ""))
    yield _whole("an empty set is ignored", DATA, _range(""))
    yield _whole("a set of empty members is ignored", DATA, _range(", ,"))
    yield _whole("a space before the equals sign is malformed", DATA, ("Range", "bytes =0-9"))
    yield _whole("a space for the equals sign is malformed", DATA, ("Range", "bytes 0-9"))
    yield _whole("spaces within a member are malformed", DATA, _range("0 - 9"))
    yield _whole("words for numbers are malformed", DATA, _range("abc"))
    yield _whole("a number alone is malformed", DATA, _range("5"))
    yield _whole("a dash alone is malformed", DATA, _range("-"))
    yield _whole("a negative start is malformed", DATA, _range("-5-9"))
    yield _whole("two dashes are malformed", DATA, _range("0--9"))
    yield _whole("a sign is malformed", DATA, _range("+0-9"))
    yield _whole("hexadecimal digits are malformed", DATA, _range("0-0x9"))
    yield _whole("an underscore between digits is malformed", DATA, _range("0-1_0"))
    yield _whole("digits beyond ASCII are malformed", DATA, _range("0-\xb2"))
    yield _whole("an end before the start is malformed", DATA, _range("9-5"))
    yield _whole("a long start with a short end is malformed", DATA, _range(f"{_NINES}-1"))
    yield _whole("one malformed member spoils the set", DATA, _range("0-9,abc"))
    yield _whole("one backward member spoils the set", DATA, _range("0-9,30-20"))
    yield _whole("one backward member spoils a set beyond the end", DATA, _range("300000-,30-20"))
    yield _whole("members parted by a semicolon are malformed", DATA, _range("0-9;20-29"))
    yield _whole("several Range lines are ignored", DATA, _range("0-9"), _range("20-29"))
    yield _whole("several equal Range lines are ignored", DATA, _range("0-9"), ("range", "bytes=0-9"))
    yield _whole("a malformed set on a download", DATA, _range("9-5"), dressed=True)


def _unsatisfiable_rows() -> Iterator[Case]:
    yield _unsatisfied("a start at the end of the file", DATA, _range("300000-"))
    yield _unsatisfied("a range beyond the end", DATA, _range("300000-300009"))
    yield _unsatisfied("a start of thousands of digits", DATA, _range(f"{_NINES}-"))
    yield _unsatisfied("both ends of thousands of digits", DATA, _range(f"{_NINES}-{_NINES}"))
    yield _unsatisfied("a suffix of no bytes", DATA, _range("-0"))
    yield _unsatisfied("several ranges, all beyond the end", DATA, _range("300000-300009, 400000-, -0"))
    yield _unsatisfied("a small file's end", SMALL, _range("1024-"))
    yield _unsatisfied("no caching or disposition fields on a 416", DATA, _range("300000-"), dressed=True)
    yield _unsatisfied(
        "If-Range that holds does not save a bad range", DATA, _range("300000-"), ("If-Range", DATA.etag)
    )
    yield _unsatisfied("an open range of an empty file", EMPTY, _range("0-"))
    yield _unsatisfied("the first byte of an empty file", EMPTY, _range("0-0"))
    yield _unsatisfied("a suffix of no bytes of an empty file", EMPTY, _range("-0"))
    yield _whole("a suffix of an empty file is the empty file", EMPTY, _range("-5"))


def _multi_range_rows() -> Iterator[Case]:
    yield _parts("two ranges", DATA, [(0, 10), (20, 30)], _range("0-9,20-29"))
    yield _parts("two ranges in the order asked", DATA, [(200, 300), (0, 10)], _range("200-299,0-9"))
    yield _parts(
        "first, middle, open and suffix",
        DATA,
        [(0, 1), (1000, 2000), (299_000, 299_500), (299_900, 300_000)],
        _range("0-0, 1000-1999, 299000-299499, -100"),
    )
    yield _parts("two ranges that together are all but a byte", SMALL, [(0, 512), (513, 1024)], _range("0-511,513-"))
    yield _parts(
        "ranges of megabytes", LARGE, [(2_000_000, 4_000_000), (0, 1_000_001)], _range("2000000-3999999,0-1000000")
    )
    yield _parts("parts of a text file carry its charset", ODD, [(0, 5), (2990, 3000)], _range("0-4,-10"))
    yield _parts("ranges of a download carry its fields", DATA, [(0, 10), (20, 30)], _range("0-9,20-29"), dressed=True)
    yield _parts("spaces and empty members between ranges", DATA, [(0, 10), (20, 30)], _range(" 0-9 ,,\t20-29 ,"))
    yield _parts("a member beyond the end is left out", DATA, [(0, 10), (20, 30)], _range("0-9,300000-,20-29"))
    yield _parts(
        "an end beyond the file is cut in a set", DATA, [(0, 10), (299_990, 300_000)], _range("0-9,299990-999999")
    )
    yield _part("one satisfiable member is a plain part", DATA, (0, 10), _range("0-9,300000-300010"))
    yield _part("a suffix of no bytes is left out", DATA, (0, 10), _range("-0,0-9"))
    yield _part("overlapping ranges are merged", DATA, (0, 150), _range("0-99,50-149"))
    yield _part("overlapping ranges asked backwards are merged", DATA, (0, 150), _range("50-149,0-99"))
    yield _part("touching ranges are merged", DATA, (0, 200), _range("0-99,100-199"))
    yield _part("touching ranges asked backwards are merged", DATA, (0, 200), _range("100-199,0-99"))
    yield _part("equal ranges are merged", DATA, (10, 20), _range("10-19,10-19"))
    yield _part("a range within another is merged", DATA, (0, 100), _range("0-99,40-49"))
    yield _part("a later range joins two earlier ones", DATA, (0, 30), _range("0-9,20-29,10-19"))
    yield _part("two halves are merged to the file", DATA, (0, 300_000), _range("0-149999,150000-"))
    yield _parts("a byte between ranges keeps them apart", DATA, [(0, 10), (11, 20)], _range("0-9,11-19"))
    yield _parts("some are merged, some are not", DATA, [(0, 20), (100, 110)], _range("0-9,100-109,5-19"))
    yield _parts(
        "a merged range stands where its first member stood",
        DATA,
        [(200, 210), (0, 15), (100, 120)],
        _range("200-209,5-14,100-109,0-4,110-119"),
    )
    yield _parts("a later range joins its neighbours", DATA, [(0, 30), (100, 110)], _range("0-9,20-29,100-109,10-19"))
    hundred = [(1000 * i, 1000 * i + 1) for i in range(100)]
    text = ",".join(f"{start}-{start}" for start, _ in hundred)
    yield _parts("a hundred ranges are served", DATA, hundred, _range(text))
    yield _whole("more than a hundred ranges give the whole file", DATA, _range(text + ",200000-200000"))
    yield _part("a hundred equal ranges are one", DATA, (7, 9), _range(",".join(["7-8"] * 100)))
    yield _whole("the hundred are counted before merging", DATA, _range(",".join(["7-8"] * 101)))
    yield _whole("thousands of ranges give the whole file", DATA, _range(",".join(["0-"] * 5000)))
    yield _whole("more bytes than the file holds give the whole file", DATA, _range("0-199999,100000-299999"))
    yield _whole("one byte more than the file holds gives the whole file", DATA, _range("0-,0-0"))
    yield _whole("the bytes are counted after cutting to the file", DATA, _range("0-9999999,5-6"))
    yield _whole("more bytes than a small file holds", SMALL, _range("-1024,-1"))


def _if_range_rows() -> Iterator[Case]:
    wanted = _range("10-19")
    yield _part("If-Range with the tag", DATA, (10, 20), wanted, ("If-Range", DATA.etag))
    yield _part("If-Range with the date", DATA, (10, 20), wanted, ("If-Range", DATA.last_modified))
    yield _part("the order of Range and If-Range does not matter", DATA, (10, 20), ("If-Range", DATA.etag), wanted)
    yield _parts(
        "If-Range with the tag and several ranges",
        DATA,
        [(0, 10), (20, 30)],
        _range("0-9,20-29"),
        ("If-Range", DATA.etag),
    )
    yield _whole("If-Range with an old tag gives the whole file", DATA, wanted, ("If-Range", _OTHER_TAG))
    yield _whole("If-Range with another file's tag", DATA, wanted, ("If-Range", SMALL.etag))
    # RFC 9110 §13.1.5: MUST use the strong comparison.
    yield _whole("If-Range with a weak tag gives the whole file", DATA, wanted, ("If-Range", _WEAK_TAG))
    yield _whole("If-Range with a newer date gives the whole file", DATA, wanted, ("If-Range", _AFTER))
    yield _whole("If-Range with an older date gives the whole file", DATA, wanted, ("If-Range", _BEFORE))
    yield _whole("If-Range with an unreadable date", DATA, wanted, ("If-Range", "last Tuesday"))
    yield _whole("If-Range with an unclosed tag", DATA, wanted, ("If-Range", DATA.etag[:-1]))
    yield _whole("If-Range with an unquoted tag", DATA, wanted, ("If-Range", DATA.etag.strip('"')))
    yield _whole("If-Range takes no list", DATA, wanted, ("If-Range", f"{_OTHER_TAG}, {DATA.etag}"))
    yield _whole("If-Range takes no asterisk", DATA, wanted, ("If-Range", "*"))
    yield _whole("an empty If-Range never holds", DATA, wanted, ("If-Range", ""))
    yield _whole("several If-Range lines never hold", DATA, wanted, ("If-Range", DATA.etag), ("If-Range", DATA.etag))
    yield _whole("If-Range without Range means nothing", DATA, ("If-Range", DATA.etag))
    yield _whole("If-Range that fails saves a bad range", DATA, _range("300000-"), ("If-Range", _OTHER_TAG))
    yield _whole("If-Range that fails on a download", DATA, wanted, ("If-Range", _OTHER_TAG), dressed=True)


def _if_none_match_rows() -> Iterator[Case]:
    yield _unmodified("If-None-Match with the tag", DATA, ("If-None-Match", DATA.etag))
    # RFC 9110 §13.1.2: MUST use the weak comparison.
    yield _unmodified("If-None-Match with the tag marked weak", DATA, ("If-None-Match", _WEAK_TAG))
    yield _unmodified("If-None-Match with a list", DATA, ("If-None-Match", f'{_OTHER_TAG}, "x" ,{DATA.etag}'))
    yield _unmodified("If-None-Match with empty members", DATA, ("If-None-Match", f", ,{DATA.etag},"))
    yield _unmodified("If-None-Match with a comma within a tag", DATA, ("If-None-Match", f'"a, b", {DATA.etag}'))
    yield _unmodified("If-None-Match on two lines", DATA, ("If-None-Match", _OTHER_TAG), ("If-None-Match", DATA.etag))
    yield _unmodified("If-None-Match with an asterisk", DATA, ("If-None-Match", "*"))
    yield _unmodified("a malformed tag is skipped", DATA, ("If-None-Match", f"unquoted, {DATA.etag}"))
    yield _unmodified("If-None-Match on HEAD", DATA, ("If-None-Match", DATA.etag), method="HEAD")
    yield _unmodified("If-None-Match on an empty file", EMPTY, ("If-None-Match", EMPTY.etag))
    yield _unmodified("If-None-Match on a file with an odd name", ODD, ("If-None-Match", ODD.etag))
    yield _unmodified("a 304 keeps the caching field", DATA, ("If-None-Match", DATA.etag), dressed=True)
    yield _unmodified("If-None-Match comes before Range", DATA, ("If-None-Match", DATA.etag), _range("0-9"))
    yield _unmodified("If-None-Match comes before a bad range", DATA, ("If-None-Match", DATA.etag), _range("300000-"))
    yield _unmodified(
        "If-None-Match comes before If-Range",
        DATA,
        _range("0-9"),
        ("If-Range", _OTHER_TAG),
        ("If-None-Match", DATA.etag),
    )
    yield _whole("If-None-Match with another tag", DATA, ("If-None-Match", _OTHER_TAG))
    yield _whole("If-None-Match with a list of other tags", DATA, ("If-None-Match", f'{_OTHER_TAG}, W/"x"'))
    yield _whole("If-None-Match with an unquoted tag", DATA, ("If-None-Match", DATA.etag.strip('"')))
    yield _whole("If-None-Match with a part of the tag", DATA, ("If-None-Match", DATA.etag[:-2] + '"'))
    yield _whole("If-None-Match with another tag on HEAD", DATA, ("If-None-Match", _OTHER_TAG), method="HEAD")
    yield _part(
        "If-None-Match that misses lets Range through", DATA, (0, 10), ("If-None-Match", _OTHER_TAG), _range("0-9")
    )


def _if_modified_since_rows() -> Iterator[Case]:
    field = "If-Modified-Since"
    yield _unmodified("If-Modified-Since of the same second", DATA, (field, DATA.last_modified))
    yield _unmodified("If-Modified-Since of a later second", DATA, (field, _AFTER))
    yield _unmodified("If-Modified-Since years later", DATA, (field, imf_fixdate(DATA.mtime + 100_000_000)))
    yield _unmodified("If-Modified-Since in the form of RFC 850", DATA, (field, rfc850_date(DATA.mtime)))
    yield _unmodified("If-Modified-Since in the form of asctime", DATA, (field, asctime_date(DATA.mtime)))
    yield _unmodified("asctime's form with a day of one digit", ODD, (field, asctime_date(ODD.mtime)))
    yield _unmodified("If-Modified-Since on HEAD", DATA, (field, DATA.last_modified), method="HEAD")
    yield _unmodified("If-Modified-Since on an empty file", EMPTY, (field, EMPTY.last_modified))
    yield _unmodified("a 304 by date keeps the caching field", DATA, (field, DATA.last_modified), dressed=True)
    yield _unmodified("If-Modified-Since comes before Range", DATA, _range("0-9"), (field, DATA.last_modified))
    yield _whole("If-Modified-Since of an earlier second", DATA, (field, _BEFORE))
    yield _whole("RFC 850's form of an earlier second", DATA, (field, rfc850_date(DATA.mtime - 1)))
    yield _whole("asctime's form of an earlier second", DATA, (field, asctime_date(DATA.mtime - 1)))
    yield _whole("an unreadable If-Modified-Since", DATA, (field, "yesterday"))
    yield _whole("an If-Modified-Since without a zone", DATA, (field, _AFTER.removesuffix(" GMT")))
    yield _whole("an If-Modified-Since on the thirtieth of February", DATA, (field, "Tue, 30 Feb 2021 10:00:00 GMT"))
    yield _whole("an If-Modified-Since in seconds", DATA, (field, str(DATA.mtime + 1)))
    yield _whole("an empty If-Modified-Since", DATA, (field, ""))
    yield _whole("several If-Modified-Since lines", DATA, (field, _AFTER), (field, _AFTER))
    yield _part("If-Modified-Since that misses lets Range through", DATA, (0, 10), (field, _BEFORE), _range("0-9"))


def _if_match_rows() -> Iterator[Case]:
    yield _whole("If-Match with the tag", DATA, ("If-Match", DATA.etag))
    yield _whole("If-Match with a list", DATA, ("If-Match", f"{_OTHER_TAG}, {DATA.etag}"))
    yield _whole("If-Match on two lines", DATA, ("If-Match", _OTHER_TAG), ("If-Match", DATA.etag))
    yield _whole("If-Match with an asterisk", DATA, ("If-Match", "*"))
    yield _whole("If-Match with the tag on HEAD", DATA, ("If-Match", DATA.etag), method="HEAD")
    yield _part("If-Match that holds lets Range through", DATA, (0, 10), ("If-Match", DATA.etag), _range("0-9"))
    yield _failed("If-Match with another tag", DATA, ("If-Match", _OTHER_TAG))
    # RFC 9110 §13.1.1: MUST use the strong comparison.
    yield _failed("If-Match with a weak tag", DATA, ("If-Match", _WEAK_TAG))
    yield _failed("If-Match with an unquoted tag", DATA, ("If-Match", DATA.etag.strip('"')))
    yield _failed("If-Match with another tag on HEAD", DATA, ("If-Match", _OTHER_TAG), method="HEAD")
    yield _failed("If-Match with another tag on an empty file", EMPTY, ("If-Match", _OTHER_TAG))
    yield _failed("If-Match comes before Range", DATA, ("If-Match", _OTHER_TAG), _range("0-9"))
    yield _failed("If-Match comes before a bad range", DATA, ("If-Match", _OTHER_TAG), _range("300000-"))
    yield _failed("no caching or disposition fields on a 412", DATA, ("If-Match", _OTHER_TAG), dressed=True)


def _if_unmodified_since_rows() -> Iterator[Case]:
    field = "If-Unmodified-Since"
    yield _whole("If-Unmodified-Since of the same second", DATA, (field, DATA.last_modified))
    yield _whole("If-Unmodified-Since of a later second", DATA, (field, _AFTER))
    yield _whole("If-Unmodified-Since in the form of RFC 850", DATA, (field, rfc850_date(DATA.mtime)))
    yield _whole("If-Unmodified-Since in the form of asctime", DATA, (field, asctime_date(DATA.mtime)))
    yield _whole("an unreadable If-Unmodified-Since", DATA, (field, "long ago"))
    yield _whole("several If-Unmodified-Since lines", DATA, (field, _BEFORE), (field, _BEFORE))
    yield _part("If-Unmodified-Since that holds lets Range through", DATA, (0, 10), (field, _AFTER), _range("0-9"))
    yield _failed("If-Unmodified-Since of an earlier second", DATA, (field, _BEFORE))
    yield _failed("RFC 850's form of an earlier second fails", DATA, (field, rfc850_date(DATA.mtime - 1)))
    yield _failed("asctime's form of an earlier second fails", DATA, (field, asctime_date(DATA.mtime - 1)))
    yield _failed("If-Unmodified-Since on HEAD", DATA, (field, _BEFORE), method="HEAD")
    yield _failed("If-Unmodified-Since comes before Range", DATA, _range("0-9"), (field, _BEFORE))
    yield _failed("no caching or disposition fields on a 412 by date", DATA, (field, _BEFORE), dressed=True)


def _precedence_rows() -> Iterator[Case]:
    """The order of RFC 9110 §13.2.2."""
    yield _whole(
        "If-None-Match that misses silences If-Modified-Since",
        DATA,
        ("If-None-Match", _OTHER_TAG),
        ("If-Modified-Since", DATA.last_modified),
    )
    yield _whole(
        "a malformed If-None-Match silences If-Modified-Since",
        DATA,
        ("If-None-Match", "unquoted"),
        ("If-Modified-Since", DATA.last_modified),
    )
    yield _unmodified(
        "If-None-Match that holds needs no date", DATA, ("If-Modified-Since", _BEFORE), ("If-None-Match", DATA.etag)
    )
    yield _unmodified(
        "an unreadable date beside If-None-Match", DATA, ("If-Modified-Since", "never"), ("If-None-Match", DATA.etag)
    )
    yield _whole(
        "If-Match that holds silences If-Unmodified-Since",
        DATA,
        ("If-Match", DATA.etag),
        ("If-Unmodified-Since", _BEFORE),
    )
    yield _failed(
        "If-Match that fails is not saved by a date", DATA, ("If-Unmodified-Since", _AFTER), ("If-Match", _OTHER_TAG)
    )
    yield _failed(
        "If-Match that fails comes before If-None-Match", DATA, ("If-None-Match", DATA.etag), ("If-Match", _OTHER_TAG)
    )
    yield _unmodified(
        "If-Match that holds lets If-None-Match speak", DATA, ("If-Match", DATA.etag), ("If-None-Match", DATA.etag)
    )
    yield _failed(
        "If-Unmodified-Since that fails comes before If-None-Match",
        DATA,
        ("If-None-Match", DATA.etag),
        ("If-Unmodified-Since", _BEFORE),
    )
    yield _unmodified(
        "If-Unmodified-Since that holds lets If-Modified-Since speak",
        DATA,
        ("If-Unmodified-Since", DATA.last_modified),
        ("If-Modified-Since", DATA.last_modified),
    )
    yield _part(
        "every precondition that lets through, with a range",
        DATA,
        (10, 20),
        ("If-Match", DATA.etag),
        ("If-Unmodified-Since", _AFTER),
        ("If-None-Match", _OTHER_TAG),
        ("If-Modified-Since", _BEFORE),
        ("If-Range", DATA.etag),
        _range("10-19"),
    )


def _post_rows() -> Iterator[Case]:
    yield _posted("POST is answered with the whole file", DATA)
    yield _posted("POST ignores a range", DATA, _range("0-9"))
    yield _posted("POST ignores a range beyond the end", DATA, _range("300000-"))
    yield _posted("POST ignores If-None-Match", DATA, ("If-None-Match", DATA.etag))
    yield _posted("POST ignores If-Modified-Since", DATA, ("If-Modified-Since", _AFTER))
    yield _posted("POST ignores If-Match", DATA, ("If-Match", _OTHER_TAG))
    yield _posted("POST ignores If-Unmodified-Since", DATA, ("If-Unmodified-Since", _BEFORE))


CASES: tuple[Case, ...] = (
    *_whole_rows(),
    *_single_range_rows(),
    *_ignored_range_rows(),
    *_unsatisfiable_rows(),
    *_multi_range_rows(),
    *_if_range_rows(),
    *_if_none_match_rows(),
    *_if_modified_since_rows(),
    *_if_match_rows(),
    *_if_unmodified_since_rows(),
    *_precedence_rows(),
    *_post_rows(),
)

# What a server of a directory can be asked too.
STATIC_CASES: tuple[Case, ...] = tuple(case for case in CASES if case.is_static)


# --- judging ----------------------------------------------------------------------------------------------------------

# Fields that may stand once at most, whether a row speaks of them or not.
_ONCE = (
    "accept-ranges",
    "content-disposition",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "last-modified",
)
# No row asks for a coding, and every answer's length is known, so that neither has a place in an answer.
_NEVER = ("content-encoding", "transfer-encoding")

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MULTIPART = re.compile(rf'multipart/byteranges; ?boundary=(?:"([^"\\]+)"|({_TOKEN}))', re.IGNORECASE)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart answer, as half-open `[start, stop)` of a file of `size` bytes."""

    fields: list[tuple[str, str]]
    start: int
    stop: int
    size: int
    data: bytes


def parse_multipart(content_type: str, body: bytes) -> list[Part]:
    """Take a multipart/byteranges body apart, allowing nothing that RFC 2046 §5.1 and RFC 9110 §14.6 do not.

    A CRLF before the first delimiter and one after the last are the only optional bytes.

    Args:
        content_type: The answer's Content-Type.
        body: The whole body.

    Raises:
        ValueError: Says what is wrong with the body, and where.
    """
    found = _MULTIPART.fullmatch(content_type)
    if found is None:
        raise ValueError(f"Content-Type {content_type!r} is not multipart/byteranges with a boundary")
    boundary = found[1] or found[2]
    if not _BOUNDARY.fullmatch(boundary):
        raise ValueError(f"boundary {boundary!r} is not one of RFC 2046")
    delimiter = b"--" + boundary.encode("ascii")
    parts: list[Part] = []
    at = 2 if body.startswith(b"\r\n") else 0
    if not body.startswith(delimiter, at):
        raise ValueError(f"the body begins with {body[:80]!r}, not with {delimiter!r}")
    at += len(delimiter)
    while body.startswith(b"\r\n", at):
        end = body.find(b"\r\n\r\n", at)
        if end < 0:
            raise ValueError(f"the header of part {len(parts)} does not end")
        fields = _part_fields(body[at + 2 : end].decode("latin-1"), len(parts))
        ranges = [_CONTENT_RANGE.fullmatch(value) for name, value in fields if name == "content-range"]
        if len(ranges) != 1 or ranges[0] is None:
            raise ValueError(f"part {len(parts)} has no single Content-Range: {fields!r}")
        first, last, size = (int(number) for number in ranges[0].groups())
        data = body[end + 4 : end + 4 + last - first + 1]
        parts.append(Part(fields, first, last + 1, size, data))
        at = end + 4 + len(data)
        if len(data) != last - first + 1 or not body.startswith(b"\r\n" + delimiter, at):
            near = body[at : at + 80]
            raise ValueError(f"part {len(parts) - 1} ({first}-{last}) is not followed by the delimiter but by {near!r}")
        at += 2 + len(delimiter)
    if body[at:] not in (b"--", b"--\r\n"):
        raise ValueError(f"the body ends with {body[at : at + 80]!r}, not with the closing delimiter")
    if not parts:
        raise ValueError("the body has no part")
    if body.count(delimiter) != len(parts) + 1:
        raise ValueError(f"the boundary {boundary!r} stands within a part")
    return parts


def _part_fields(head: str, index: int) -> list[tuple[str, str]]:
    fields = []
    for line in head.split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z-]+", name) or "\n" in value or "\r" in value:
            raise ValueError(f"part {index} has the header line {line!r}")
        fields.append((name.lower(), value.strip(" \t")))
    return fields


def check(case: Case, response: Response, files: Files) -> None:
    """Fail unless an answer is the one that a case asks for.

    Args:
        case: The row.
        response: What came back.
        files: The files that were served.

    Raises:
        AssertionError: Lists the request and everything that is wrong with the answer.
    """
    __tracebackhide__ = True
    found = problems(case, response, files)
    if found:
        lines = [f"{case.name}: {case.method} {case.file!r}"]
        lines += [f"  > {name}: {_short(value)}" for name, value in case.fields]
        lines += [f"  < {response.status}", *(f"  < {name}: {_short(value)}" for name, value in response.fields)]
        lines += [f"  < ({len(response.body)} bytes of body)", *(f"  ! {problem}" for problem in found)]
        raise AssertionError("\n".join(lines))


def problems(case: Case, response: Response, files: Files) -> list[str]:
    """Everything that is wrong with an answer, in words; empty when nothing is."""
    found: list[str] = []
    if response.status != case.status:
        found.append(f"status {response.status}, not {case.status}")
    for name, want in case.expect:
        values = response.values(name)
        if want is ABSENT and values:
            found.append(f"{name} is {values}, it should be absent")
        elif want is PRESENT and (len(values) != 1 or not values[0]):
            found.append(f"{name} is {values or 'absent'}, it should stand once")
        elif isinstance(want, str) and values != [want]:
            found.append(f"{name} is {values or 'absent'}, not {want!r}")
    spoken = {name for name, _ in case.expect}
    for name in _ONCE:
        if name not in spoken and len(response.values(name)) > 1:
            found.append(f"{name} stands {len(response.values(name))} times: {response.values(name)}")
    for name in _NEVER:
        if response.values(name):
            found.append(f"{name} is {response.values(name)}, it should be absent")
    if case.method != "HEAD":
        for length in response.values("content-length"):
            if length != str(len(response.body)):
                found.append(f"content-length is {length!r}, the body has {len(response.body)} bytes")
    found += _body_problems(case, response, files.content(case.file))
    return found


def _body_problems(case: Case, response: Response, content: bytes) -> list[str]:
    if case.body == "none":
        return _difference(response.body, b"", "the body")
    if case.body == "whole":
        return _difference(response.body, content, "the body")
    if len(case.body) == 1:
        start, stop = case.body[0]
        return _difference(response.body, content[start:stop], "the body")
    types = response.values("content-type")
    try:
        parts = parse_multipart(types[0] if len(types) == 1 else repr(types), response.body)
    except ValueError as error:
        return [str(error)]
    asked = list(case.body)
    sent = [(part.start, part.stop) for part in parts]
    if sent != asked:
        return [f"the parts are {_short(sent)}, not {_short(asked)}"]
    found: list[str] = []
    for index, part in enumerate(parts):
        if part.size != len(content):
            found.append(f"part {index} speaks of a file of {part.size} bytes, not {len(content)}")
        types = [value for name, value in part.fields if name == "content-type"]
        if types != [FILES[case.file].media_type]:
            found.append(f"part {index} has content-type {types}, not {FILES[case.file].media_type!r}")
        found += _difference(part.data, content[part.start : part.stop], f"part {index}")
    return found


def _difference(got: bytes, want: bytes, what: str) -> list[str]:
    if got == want:
        return []
    # By blocks first: byte by byte, megabytes would take a second.
    common = min(len(got), len(want))
    block = next((i for i in range(0, common, 4096) if got[i : i + 4096] != want[i : i + 4096]), common)
    at = next((i for i in range(block, common) if got[i] != want[i]), common)
    lengths = f"{len(got)} bytes, not {len(want)}" if len(got) != len(want) else f"{len(got)} bytes as it should"
    return [f"{what} has {lengths}; from byte {at} it is {got[at : at + 16]!r}, not {want[at : at + 16]!r}"]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 160 else f"{text[:120]}... ({len(text)} characters)"
