"""What must be read: storages that decode or have no paths, and streams. It is never sent as it lies on a disk."""

# mypy: allow-subclassing-any

from __future__ import annotations

import codecs
import gzip
import io
import os
import threading
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage
from django.http import FileResponse, HttpRequest
from django.http.response import HttpResponseBase

from tests.support.django_project import MIDDLEWARE, ask, descriptors_of, field_file, project
from tests.support.table import FILES
from zcresponse.django import ZeroCopyFileResponse
from zcresponse.errors import FileTruncatedError

DATA = FILES["data.bin"].content
TEXT = "naïve ✓ text\r\n" * 40_000

#: Each reads in its own manner: the server moves a file, one iterates, ours sends messages, Django sends messages.
SOME = ["moving wsgi", "client", "asgi", "pathsend", "stock asgi"]

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


# --- what reads otherwise than it holds -------------------------------------------------------------------------------


def rot13(data: bytes) -> bytes:
    return data.translate(bytes((byte + 13) % 256 for byte in range(256)))


def rot_back(data: bytes) -> bytes:
    return data.translate(bytes((byte - 13) % 256 for byte in range(256)))


class Decrypting(File):
    """Overrides `read`, as storages' files do."""

    def read(self, size: int = -1) -> bytes:
        return rot13(self.file.read(size))


class DecryptingReader:
    """Is no Django file, and has what is needed to be taken for one."""

    def __init__(self, file: Any) -> None:
        self.file = self.raw = file
        self.name = file.name
        self.fileno, self.seek, self.tell, self.close = file.fileno, file.seek, file.tell, file.close

    @property
    def closed(self) -> bool:
        return bool(self.file.closed)

    def read(self, size: int = -1) -> bytes:
        return rot13(self.file.read(size))


class DecryptingBuffer(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        return rot13(super().read(size))


class DecryptingRaw(io.FileIO):
    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer)) or b""
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        return rot13(super().read(size) or b"")


class DecryptingStorage(FileSystemStorage):
    """Keeps its files encrypted on a disk."""

    wrapped: Callable[[Any], Any] = Decrypting

    def _open(self, name: str, mode: str = "rb") -> Any:
        return type(self).wrapped(open(self.path(name), mode))


class ReaderStorage(DecryptingStorage):
    wrapped = staticmethod(lambda file: File(DecryptingReader(file), file.name))


class BufferStorage(DecryptingStorage):
    @staticmethod
    def wrapped(file: Any) -> Any:
        with file:
            return File(DecryptingBuffer(file.read()), file.name)


TRANSFORMING: dict[str, Callable[[Path], Any]] = {
    "File with its own read": lambda path: Decrypting(path.open("rb")),
    "in a File": lambda path: File(Decrypting(path.open("rb"))),
    "a reader": lambda path: DecryptingReader(path.open("rb")),
    "a reader in a File": lambda path: File(DecryptingReader(path.open("rb"))),
    "a BytesIO": lambda path: DecryptingBuffer(path.read_bytes()),
    "a raw file": lambda path: DecryptingRaw(path),
    "a buffered raw file": lambda path: io.BufferedReader(DecryptingRaw(path)),
    "storage with its own File": lambda path: field_file(DecryptingStorage(path.parent), path.name),
    "storage with a reader": lambda path: field_file(ReaderStorage(path.parent), path.name),
    "storage with a buffer": lambda path: field_file(BufferStorage(path.parent), path.name),
}


@pytest.mark.parametrize("way", SOME)
@pytest.mark.parametrize("kind", TRANSFORMING)
def test_what_decrypts_is_sent_decrypted(kind: str, way: str, path: Path) -> None:
    path.write_bytes(rot13(rot13(DATA)).translate(bytes((byte - 26) % 256 for byte in range(256)))[::-1])
    secret = path.read_bytes()
    with project(lambda request: ZeroCopyFileResponse(TRANSFORMING[kind](path))):
        answer = ask(way, Range="bytes=0-9")
    assert (answer.status, answer.body) == (200, rot13(secret))
    assert answer.values("Content-Length") in ([], [str(len(secret))])


# Where a server moves files, Django itself hands it the descriptor.
@pytest.mark.parametrize("way", ["wsgi", "asgi", "pathsend", "plain pathsend", "client"])
@pytest.mark.parametrize("kind", [kind for kind in TRANSFORMING if "storage" not in kind])
def test_djangos_own_response_of_what_decrypts_is_untouched(kind: str, way: str, path: Path) -> None:
    with project(lambda request: FileResponse(TRANSFORMING[kind](path))):
        assert ask(way).body == rot13(DATA)


# --- storages without paths -------------------------------------------------------------------------------------------


class ElsewhereStorage(Storage):
    """Keeps its files elsewhere: there are no paths, and it is asked for sizes.

    Args:
        stored: what is kept.
        opened: makes a file of it.
    """

    def __init__(self, stored: bytes, opened: Callable[[bytes], Any]) -> None:
        self.stored = stored
        self.opened = opened

    def _open(self, name: str, mode: str = "rb") -> Any:
        return self.opened(self.stored)

    def size(self, name: str) -> int:
        return len(self.stored)


class Connection(io.RawIOBase):
    """Can only be read from front to back, and gives little at a time."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part, self.data = self.data[: min(len(buffer), 10_000)], self.data[min(len(buffer), 10_000) :]
        buffer[: len(part)] = part
        return len(part)


class Unzipping(File):
    """What django-storages' files do with `gzip=True`: they are fetched first."""

    def __init__(self, stored: bytes) -> None:
        super().__init__(gzip.GzipFile(fileobj=io.BytesIO(stored)), "report.txt")

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.file.read(size)
        return data


class Inflating(File):
    """Decodes what comes in as it is read."""

    def __init__(self, stored: bytes) -> None:
        super().__init__(Connection(stored), "report.txt")
        self.inflater = zlib.decompressobj(wbits=31)

    def read(self, size: int = -1) -> bytes:
        if size == 0:
            return b""
        data = self.inflater.decompress(self.inflater.unconsumed_tail or self.file.read(100), max(size, 0))
        return data or (self.read(size) if self.inflater.unconsumed_tail or self.file.data else b"")


@pytest.mark.parametrize("way", SOME)
def test_a_storage_without_paths_is_iterated_with_its_size(way: str) -> None:
    storage = ElsewhereStorage(DATA, lambda stored: File(Connection(stored), "report.txt"))
    with project(lambda request: ZeroCopyFileResponse(field_file(storage, "folder/report.txt"))):
        answer = ask(way)
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.values("Content-Length") == [str(len(DATA))]
    assert answer.values("Content-Disposition") == ['inline; filename="report.txt"']
    assert answer.values("Content-Type") == ["text/plain; charset=utf-8"]


@pytest.mark.parametrize("name", ["a.md", "a.js", "a.svg", "a.tar.gz", "a.unknown", "a"])
def test_a_name_means_the_same_type_wherever_the_file_lies(name: str, path: Path) -> None:
    far = ElsewhereStorage(DATA, lambda stored: File(Connection(stored), name))
    near = path.rename(path.with_name(name))
    arguments: list[dict[str, Any]] = [{}, {"charset": "latin-1"}, {"filename": "b.csv"}, {"content_type": "a/b"}]
    for more in arguments:
        one, other = (ZeroCopyFileResponse(given, **more) for given in (near, field_file(far, name)))
        assert one["Content-Type"] == other["Content-Type"]
        one.close()
        other.close()


@pytest.mark.parametrize("way", SOME)
@pytest.mark.parametrize("opened", [Unzipping, Inflating])
def test_the_size_that_a_storage_tells_does_not_cut_what_it_decodes(opened: Any, way: str) -> None:
    storage = ElsewhereStorage(gzip.compress(bytes(100_000)), opened)
    with project(lambda request: ZeroCopyFileResponse(field_file(storage, "report.txt"))):
        answer = ask(way)
    assert answer.body == bytes(100_000)
    assert answer.values("Content-Length") in ([], ["100000"])


# --- streams ----------------------------------------------------------------------------------------------------------


def zip_member(path: Path) -> Any:
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(path, "member.txt")
    with zipfile.ZipFile(archive) as file:
        return file.open("member.txt")


def gzip_file(path: Path) -> Any:
    packed = path.with_suffix(".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return gzip.open(packed)


def generator(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(lambda: file.read(70_000), b"")


async def async_generator(path: Path) -> AsyncIterator[bytes]:
    for part in generator(path):
        yield part


#: These can only be read from front to back.
STREAMS: dict[str, Callable[[Path], Any]] = {
    "gzip": gzip_file,
    "gzip in a File": lambda path: File(gzip_file(path)),
    "zip member": zip_member,
    "generator": generator,
    "async generator": async_generator,
    "list": lambda path: list(generator(path)),
    "map": lambda path: map(bytes, generator(path)),
    "recoded": lambda path: codecs.EncodedFile(path.open("rb"), "latin-1", "latin-1"),
}


@pytest.mark.parametrize("way", SOME)
@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_is_sent_whole(kind: str, way: str, path: Path) -> None:
    if kind == "async generator" and "asgi" not in way and "pathsend" not in way:
        pytest.skip("Django warns that it has to be joined")
    with project(lambda request: ZeroCopyFileResponse(STREAMS[kind](path))):
        answer = ask(way, Range="bytes=5-99", If_None_Match="*")
    assert (answer.status, answer.body) == (200, DATA)
    assert answer.values("Content-Length") in ([], [str(len(DATA))])
    assert answer.values("Accept-Ranges") == []


@pytest.mark.parametrize("kind", ["gzip", "gzip in a File", "zip member"])
def test_what_is_said_of_a_stream_is_what_django_says(kind: str, path: Path) -> None:
    for more in {}, {"filename": "data.pdf", "as_attachment": True}, {"content_type": "a/b"}:
        ours = ZeroCopyFileResponse(STREAMS[kind](path), **more)
        stock = FileResponse(STREAMS[kind](path), **more)
        if "content_type" not in more:
            # Text comes with its encoding, as from a path.
            ours["Content-Type"] = ours["Content-Type"].removesuffix("; charset=utf-8")
        assert dict(ours.items()) == dict(stock.items())
        ours.close()
        stock.close()


@pytest.mark.parametrize("kind", STREAMS)
def test_options_are_said_of_streams_too(kind: str, path: Path) -> None:
    stream = STREAMS[kind](path)
    response = ZeroCopyFileResponse(stream, private=True, max_age=60, etag="v1", last_modified=0)
    assert response["Cache-Control"] == "private, max-age=60"
    assert (response["ETag"], response["Last-Modified"]) == ('"v1"', "Thu, 01 Jan 1970 00:00:00 GMT")
    response.close()


#: Readers without a place on a disk, of which a part can be sent.
READERS: dict[str, Callable[[Path], Any]] = {
    "gzip": gzip_file,
    "zip member": zip_member,
    "recoded": lambda path: codecs.EncodedFile(path.open("rb"), "latin-1", "latin-1"),
    "decrypting": lambda path: DecryptingBuffer(rot_back(path.read_bytes())),
    "from front to back": lambda path: io.BufferedReader(Connection(path.read_bytes())),
    "not seekable": lambda path: File(Connection(path.read_bytes()), "report.txt"),
    "a storage": lambda path: field_file(
        ElsewhereStorage(path.read_bytes(), lambda stored: File(Connection(stored), "report.txt")), "report.txt"
    ),
}
WINDOWS: list[tuple[dict[str, int], slice]] = [
    ({"offset": 0}, slice(None)),
    ({"offset": 290_000}, slice(290_000, None)),
    ({"count": 5}, slice(5)),
    ({"offset": 70_000, "count": 0}, slice(70_000, 70_000)),
    ({"offset": 7, "count": 290_000}, slice(7, 290_007)),
    ({"offset": 10, "count": len(DATA) - 10}, slice(10, None)),
    ({"offset": len(DATA)}, slice(0)),
]


@pytest.mark.parametrize(("window", "part"), WINDOWS, ids=str)
@pytest.mark.parametrize("kind", READERS)
def test_a_window_of_a_stream_is_sent(kind: str, window: dict[str, Any], part: slice, path: Path) -> None:
    with project(lambda request: ZeroCopyFileResponse(READERS[kind](path), **window), MIDDLEWARE):
        for way in SOME:
            answer = ask(way, Range="bytes=1-2")
            assert (answer.status, answer.body) == (200, DATA[part])
            known = "count" in window or kind not in ("from front to back", "not seekable")
            assert answer.values("Content-Length") == ([str(len(DATA[part]))] if known else [])
            assert answer.values("Accept-Ranges") == []


@pytest.mark.parametrize(
    ("window", "error"),
    [
        ({"offset": -1}, ValueError),
        ({"count": -1}, ValueError),
        ({"offset": len(DATA) + 1}, ValueError),
        ({"offset": 1, "count": len(DATA)}, ValueError),
        ({"offset": "1"}, TypeError),
        ({"count": 1.5}, TypeError),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["gzip", "zip member", "a storage"])
def test_a_window_that_cannot_be_names_the_argument(
    kind: str, window: dict[str, Any], error: type[Exception], path: Path
) -> None:
    given = READERS[kind](path)
    with pytest.raises(error, match=r"offset|count"):
        ZeroCopyFileResponse(given, **window)
    # What was given is the caller's still.
    assert kind == "a storage" or not given.closed
    given.close()


def test_a_window_of_a_stream_begins_where_it_stands_or_behind(path: Path) -> None:
    windows: list[tuple[dict[str, Any], bytes]] = [
        ({"count": 5}, DATA[1000:1005]),
        ({"offset": 0, "count": 5}, DATA[:5]),
        ({"offset": 2000}, DATA[2000:]),
    ]
    for window, body in windows:
        reader = gzip_file(path)
        reader.read(1000)
        assert ZeroCopyFileResponse(reader, **window).getvalue() == body


def test_a_stream_that_was_read_cannot_go_back() -> None:
    class Counting(Connection):
        def tell(self) -> int:
            return len(DATA) - len(self.data)

    reader = Counting(DATA)
    reader.read(1000)
    assert ZeroCopyFileResponse(reader, offset=1005, count=5).getvalue() == DATA[1005:1010]
    reader = Counting(DATA)
    reader.read(1000)
    with pytest.raises(ValueError, match="offset"):
        ZeroCopyFileResponse(reader, offset=999)


@pytest.mark.parametrize("window", [{"offset": len(DATA) + 5}, {"offset": 5, "count": len(DATA)}], ids=str)
def test_a_window_of_which_nobody_knew_that_it_cannot_be_ends_the_answer(window: dict[str, Any]) -> None:
    with project(lambda request: ZeroCopyFileResponse(Connection(DATA), **window)):
        for way in "moving wsgi", "asgi":
            with pytest.raises(FileTruncatedError):
                ask(way)


@pytest.mark.parametrize("window", [{"offset": 5}, {"offset": 0}, {"count": 5}], ids=str)
def test_what_has_no_bytes_to_count_has_no_window(window: dict[str, Any], path: Path) -> None:
    for given in iter([b"one"]), [b"one"], io.StringIO("one"), ContentFile("one"), path.open():
        with pytest.raises(TypeError, match="path_or_file"):
            ZeroCopyFileResponse(given, **window)
        if hasattr(given, "close"):
            given.close()


@pytest.mark.parametrize("kind", ["gzip", "zip member", "a storage"])
def test_a_window_on_asgi_is_looked_for_in_a_thread(kind: str, path: Path) -> None:
    threads: set[int] = set()

    class Watched(File):
        def read(self, size: int = -1) -> bytes:
            threads.add(threading.get_ident())
            return self.file.read(size)  # type: ignore[no-any-return]

    with project(lambda request: ZeroCopyFileResponse(Watched(READERS[kind](path)), offset=290_000, count=9)):
        assert ask("asgi").body == DATA[290_000:290_009]
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("way", SOME)
def test_text_is_encoded_and_its_length_never_lies(way: str, path: Path) -> None:
    path.write_text(TEXT, encoding="utf-8", newline="")
    for make in (
        lambda: path.open(encoding="utf-8", newline=""),
        lambda: io.StringIO(TEXT, newline=""),
        lambda: ContentFile(TEXT, "report.txt"),
    ):
        with project(lambda request, make=make: ZeroCopyFileResponse(make())):
            answer = ask(way)
        assert answer.body == TEXT.encode()
        assert answer.values("Content-Length") in ([], [str(len(TEXT.encode()))])


class Lenient:
    """Gives everything to whoever does not say how much."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def read(self, size: int = 0) -> bytes:
        return self.file.read(size or -1)


def test_a_reader_is_not_asked_for_nothing() -> None:
    response = ZeroCopyFileResponse(Lenient(DATA))
    assert response.getvalue() == DATA
    response.close()


# Django's own ASGI application leaves the request's body open.
@pytest.mark.parametrize("way", ["moving wsgi", "asgi", "client"])
def test_a_stream_that_ends_too_soon_raises(way: str, path: Path) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        packed = gzip_file(path)
        response = ZeroCopyFileResponse(packed)
        packed.read(100)
        return response

    with project(view), pytest.raises(FileTruncatedError, match="100 bytes"):
        ask(way)


@needs_proc
def test_a_device_is_a_stream() -> None:
    before = descriptors_of(os.devnull)
    with project(lambda request: ZeroCopyFileResponse(open(os.devnull, "rb"))):
        assert ask("wsgi").body == b""
    assert descriptors_of(os.devnull) == before
