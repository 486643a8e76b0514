"""What conditions and ranges are answered of: paths, open files, memory, Django's files and fields."""

# mypy: allow-subclassing-any

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.images import ImageFile
from django.core.files.storage import FileSystemStorage, InMemoryStorage
from django.core.files.uploadedfile import InMemoryUploadedFile, SimpleUploadedFile, TemporaryUploadedFile
from django.http import FileResponse
from django.test import RequestFactory

from tests.support.django_project import ask, descriptors_of, field_file, project
from tests.support.table import FILES
from zcresponse import open_file
from zcresponse.django import ZeroCopyFileResponse
from zcresponse.errors import NotARegularFileError

DATA = FILES["data.bin"].content

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


def temporary_upload(path: Path) -> Any:
    upload = TemporaryUploadedFile("upload.txt", "text/plain", len(DATA), None)
    upload.write(DATA)
    upload.seek(0)
    return upload


def spooled(path: Path, *, max_size: int) -> Any:
    file = tempfile.SpooledTemporaryFile(max_size)  # noqa: SIM115 - the response closes it
    file.write(DATA)
    file.seek(0)
    return file


def temporary(path: Path) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the response closes it
    file.write(DATA)
    file.seek(0)
    return file


def stored_in_memory(path: Path) -> Any:
    storage = InMemoryStorage()
    storage.save("folder/report.txt", ContentFile(DATA))
    return field_file(storage, "folder/report.txt")


#: Of these conditions and ranges are answered.
KINDS: dict[str, Callable[[Path], Any]] = {
    "text path": str,
    "path": lambda path: path,
    "bytes path": os.fsencode,
    "descriptor": lambda path: os.open(path, os.O_RDONLY),
    "our file": open_file,
    "open file": lambda path: path.open("rb"),
    "unbuffered": lambda path: path.open("rb", buffering=0),
    "read and write": lambda path: path.open("rb+"),
    "temporary": temporary,
    "spooled in memory": lambda path: spooled(path, max_size=1 << 20),
    "spooled on disk": lambda path: spooled(path, max_size=1),
    "BytesIO": lambda path: io.BytesIO(DATA),
    "File": lambda path: File(path.open("rb")),
    "File of a File": lambda path: File(File(path.open("rb"), "inner.txt"), "outer.txt"),
    "ImageFile": lambda path: ImageFile(path.open("rb")),
    "ContentFile": lambda path: ContentFile(DATA, "report.txt"),
    "nameless ContentFile": lambda path: ContentFile(DATA),
    "upload in memory": lambda path: InMemoryUploadedFile(
        io.BytesIO(DATA), "field", "upload.txt", "text/plain", len(DATA), None
    ),
    "simple upload": lambda path: SimpleUploadedFile("upload.txt", DATA),
    "upload on disk": temporary_upload,
    "field": lambda path: field_file(FileSystemStorage(path.parent), path.name),
    "opened field": lambda path: field_file(FileSystemStorage(path.parent), path.name).open(),
    "field in memory": stored_in_memory,
}

#: Or named at random.
UNKNOWN_TO_DJANGO = ["text path", "path", "bytes path", "descriptor", "our file", "temporary"]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_with_a_size_is_sent_whole_and_in_part(kind: str, path: Path) -> None:
    with project(lambda request: ZeroCopyFileResponse(KINDS[kind](path), etag='"v1"')):
        whole = ask("wsgi")
        assert (whole.status, whole.body, whole.values("Content-Length")) == (200, DATA, [str(len(DATA))])
        part = ask("asgi", Range="bytes=5-99")
        assert (part.status, part.body) == (206, DATA[5:100])
        assert part.values("Content-Range") == [f"bytes 5-99/{len(DATA)}"]
        unmodified = ask("wsgi", If_None_Match='"v1"')
        assert (unmodified.status, unmodified.body) == (304, b"")
        assert ask("pathsend", Range="bytes=5-99").body == DATA[5:100]
        assert ask("moving wsgi", Range="bytes=5-99").body == DATA[5:100]


@pytest.mark.parametrize("more", [{}, {"filename": "data.pdf", "as_attachment": True}], ids=str)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNKNOWN_TO_DJANGO])
def test_what_is_said_of_it_is_what_django_says(kind: str, more: dict[str, Any], path: Path) -> None:
    ours = ZeroCopyFileResponse(KINDS[kind](path), **more)
    stock = FileResponse(KINDS[kind](path), **more)
    for name in "Content-Length", "Content-Disposition":
        assert ours.get(name) == stock.get(name)
    # Text comes with its encoding.
    assert ours["Content-Type"].removesuffix("; charset=utf-8") == stock["Content-Type"]
    ours.close()
    stock.close()


@needs_proc
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_closed_with_the_response(kind: str, path: Path) -> None:
    given = KINDS[kind](path)
    response = ZeroCopyFileResponse(given)
    assert response.getvalue() == DATA
    response.close()
    assert response.closed
    assert descriptors_of(path) == 0
    if "ontent" not in kind and "memory" not in kind:
        assert getattr(given, "closed", True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in UNKNOWN_TO_DJANGO])
def test_it_is_sent_from_its_position(kind: str, path: Path) -> None:
    given = KINDS[kind](path)
    given.seek(1000)
    response = ZeroCopyFileResponse(given)
    assert response["Content-Length"] == str(len(DATA) - 1000)
    assert response.getvalue() == DATA[1000:]
    response.close()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "our file"])
def test_a_window_is_sent_whatever_the_position(kind: str, path: Path) -> None:
    given = KINDS[kind](path)
    if hasattr(given, "seek"):
        given.seek(7)
    response = ZeroCopyFileResponse(given, offset=100, count=50)
    assert (response["Content-Length"], response.getvalue()) == ("50", DATA[100:150])
    response.close()


def test_ranges_count_from_the_beginning_of_the_window(path: Path) -> None:
    request = RequestFactory().get("/", headers={"Range": "bytes=10-19"})
    response = ZeroCopyFileResponse(path, offset=100, count=50, request=request)
    assert (response["Content-Range"], response.getvalue()) == ("bytes 10-19/50", DATA[110:120])
    response.close()


def test_a_window_has_a_tag_of_its_own(path: Path) -> None:
    tags = set()
    windows: list[dict[str, Any]] = [{}, {"offset": 5}, {"count": 5}, {"offset": 5, "count": 5}]
    for window in windows:
        response = ZeroCopyFileResponse(path, **window)
        tags.add(response["ETag"])
        response.close()
    assert len(tags) == 4


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
def test_a_window_that_cannot_be_names_the_argument(window: dict[str, Any], error: type[Exception], path: Path) -> None:
    for given in path, path.open("rb"), io.BytesIO(DATA):
        with pytest.raises(error, match=r"offset|count"):
            ZeroCopyFileResponse(given, **window)
        # What was given is the caller's still.
        if not isinstance(given, Path):
            given.close()


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_told_in_the_view(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ZeroCopyFileResponse(path.parent / "missing")
    with pytest.raises(FileNotFoundError):
        ZeroCopyFileResponse(field_file(FileSystemStorage(path.parent), "missing"))


def test_a_folder_is_refused(path: Path) -> None:
    with pytest.raises(NotARegularFileError):
        ZeroCopyFileResponse(path.parent)


def test_a_field_without_a_file_says_so() -> None:
    with pytest.raises(ValueError, match="no file associated"):
        ZeroCopyFileResponse(field_file(FileSystemStorage("/"), ""))


def test_a_closed_file_is_refused(path: Path) -> None:
    file = path.open("rb")
    file.close()
    with pytest.raises(ValueError, match="closed"):
        ZeroCopyFileResponse(file)


def test_a_file_that_cannot_be_read_is_refused(path: Path) -> None:
    for buffering in -1, 0:
        with path.open("ab", buffering) as file, pytest.raises(ValueError):
            ZeroCopyFileResponse(file).getvalue()


@pytest.mark.parametrize("more", [{}, {"offset": 5}, {"count": 5}], ids=str)
@pytest.mark.parametrize("nothing", [None, 1.5, True, object()])
def test_what_can_never_be_sent_is_a_type_error_that_names_it(nothing: Any, more: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="path_or_file"):
        ZeroCopyFileResponse(nothing, **more)


# --- who closes what --------------------------------------------------------------------------------------------------


def test_a_file_in_a_memory_storage_can_be_sent_again() -> None:
    storage = InMemoryStorage()
    storage.save("report.txt", ContentFile(DATA))
    with project(lambda request: ZeroCopyFileResponse(field_file(storage, "report.txt"))):
        assert [ask("wsgi").body, ask("asgi").body, ask("client").body] == [DATA] * 3


def test_a_content_file_can_be_sent_again() -> None:
    logo = ContentFile(DATA, "logo.png")
    for _ in range(2):
        logo.seek(0)
        response = ZeroCopyFileResponse(logo)
        assert response.getvalue() == DATA
        response.close()


def test_a_files_own_close_is_called_once(path: Path) -> None:
    closed: list[str] = []

    class Leased(File):
        def close(self) -> None:
            closed.append("lease given back")
            super().close()

    for way in "wsgi", "moving wsgi", "asgi", "pathsend", "plain pathsend", "client":
        with project(lambda request: ZeroCopyFileResponse(Leased(path.open("rb")))):
            assert ask(way).body == DATA
        assert closed.pop() == "lease given back"
        assert not closed


def test_an_upload_on_disk_is_deleted_with_its_response(path: Path) -> None:
    upload = temporary_upload(path)
    response = ZeroCopyFileResponse(upload)
    assert os.path.exists(upload.temporary_file_path())
    response.close()
    assert not os.path.exists(upload.temporary_file_path())
