from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from gunicorn.http.wsgi import FileWrapper as GunicornFileWrapper

from tests.support.servers import ROOT
from tests.support.table import FILES, Files, parse_multipart
from zcresponse import OpenedFile, RequestHead, ResponsePlan, Transfer, open_file, plan_file_response
from zcresponse.errors import FileTruncatedError, NotARegularFileError, SettingError
from zcresponse.testing import record_transfers
from zcresponse.wsgi import send_file, transport
from zcresponse.wsgi.chunks import BLOCK
from zcresponse.wsgi.servers import Server, Takes
from zcresponse.wsgi.transport import choose_delivery, deliver, make_body, request_head, status_line

Environ = dict[str, Any]

CONTENT = os.urandom(3 * BLOCK + 5)
SIZE = len(CONTENT)

_SOCKET = socket.socket()
_SOCKET.close()
_TLS_SOCKET = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(socket.socket(), server_hostname="localhost")
_TLS_SOCKET.close()


def _gunicorn(version: str = "27.0.1", wrapper: Any = GunicornFileWrapper, made: socket.socket = _SOCKET) -> Environ:
    return {"gunicorn.socket": made, "wsgi.file_wrapper": wrapper, "SERVER_SOFTWARE": f"gunicorn/{version}"}


class OtherWrapper(FileWrapper):
    """Of a server that nobody has measured."""


SERVERS: dict[str, Environ] = {
    "no wrapper": {},
    "wrapper is None": {"wsgi.file_wrapper": None},
    "unknown": {"wsgi.file_wrapper": OtherWrapper},
    "gunicorn": _gunicorn(),
    "old gunicorn": _gunicorn("20.1.0"),
    "gunicorn with TLS": _gunicorn(made=_TLS_SOCKET),
    "gunicorn without a wrapper": _gunicorn(wrapper=None),
    "mod_wsgi": {"mod_wsgi.version": (6, 1, 1), "wsgi.file_wrapper": FileWrapper},
}

#: What a body can be made of here, by what the server offers.
WAYS: dict[str, Environ] = {
    "chunks": {},
    "file_wrapper": _gunicorn(),
    "file_wrapper of another class": _gunicorn(wrapper=FileWrapper),
}


def request(method: str = "GET", **fields: str) -> Environ:
    """A request's part of environ: `range="bytes=0-1"` is `HTTP_RANGE`."""
    return {"REQUEST_METHOD": method, **{f"HTTP_{name.upper()}": value for name, value in fields.items()}}


class Started:
    """A server's `start_response`, and what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[tuple[str, str]]]] = []

    def __call__(self, status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.calls.append((status, fields))

    @property
    def status(self) -> str:
        ((status, _),) = self.calls
        return status

    @property
    def fields(self) -> dict[str, str]:
        ((_, fields),) = self.calls
        return dict(fields)


def close(body: Any) -> None:
    """As a server does it."""
    if hasattr(body, "close"):
        body.close()


def read(body: Iterable[bytes]) -> bytes:
    try:
        return b"".join(body)
    finally:
        close(body)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def descriptors_of(path: Path) -> int:
    """How many descriptors this process has of a file, deleted or not."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").removesuffix(" (deleted)") == str(path)
        except FileNotFoundError:
            continue  # the one that listed them
    return count


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    if os.listdir("/proc/self/fd") != before:
        # An error's frames may still hold something.
        gc.collect()
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def without_the_collector() -> Iterator[None]:
    """What is not freed by counting references stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# --- the choice -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "wanted", "sendfile", "way", "reason"),
    [
        ("no wrapper", "", None, "chunks", "the server offers no wsgi.file_wrapper"),
        ("wrapper is None", "", None, "chunks", "the server offers no wsgi.file_wrapper"),
        ("unknown", "", None, "chunks", "it is not known what this server does with a file"),
        ("unknown", "", True, "chunks", "it is not known"),
        ("unknown", "bytes=0-9,20-29", None, "chunks", "several ranges"),
        ("gunicorn", "", None, "file_wrapper", "the server moves the file"),
        ("gunicorn", "bytes=0-65535", None, "file_wrapper", "the server moves the file"),
        ("gunicorn", "bytes=-65536", True, "file_wrapper", "the server moves the file"),
        ("gunicorn", "bytes=0-65534", None, "chunks", "a small body costs gunicorn less as bytes"),
        ("gunicorn", "bytes=-1", True, "chunks", "a small body costs gunicorn less as bytes"),
        ("gunicorn", "bytes=0-9,20-29", None, "chunks", "wsgi.file_wrapper cannot send several ranges"),
        ("gunicorn", "", False, "chunks", "switched off by sendfile=False"),
        ("gunicorn", "bytes=999999-", None, "none", ""),
        ("gunicorn", "bytes=999999-", False, "none", ""),
        ("no wrapper", "bytes=999999-", None, "none", ""),
        ("old gunicorn", "", None, "chunks", "gunicorn before 21"),
        ("gunicorn with TLS", "", None, "chunks", "TLS"),
        ("mod_wsgi", "", None, "file_wrapper", "the server moves the file"),
        ("mod_wsgi", "bytes=-5", None, "file_wrapper", "the server moves the file"),
        ("mod_wsgi", "bytes=5-999", None, "chunks", "mod_wsgi would go on behind the part"),
        ("gunicorn without a wrapper", "", None, "chunks", "somebody has taken wsgi.file_wrapper out"),
    ],
)
def test_the_best_way_that_is_exact_is_chosen_and_told(
    server: str, wanted: str, sendfile: bool | None, way: str, reason: str, files: Files
) -> None:
    with open_file(files.path("data.bin")) as file:
        plan = plan_file_response(RequestHead("GET", range=wanted or None), file)
        delivery = choose_delivery(SERVERS[server], plan, file, sendfile=sendfile)
    assert delivery.way == way
    assert reason in delivery.reason
    assert bool(delivery.reason) == (way != "none")


@pytest.mark.parametrize("own", [True, False])
def test_mod_wsgi_is_given_a_part_where_its_own_start_response_is_told(own: bool, files: Files) -> None:
    # A method of a class that is written in C, as its own is.
    start_response: Any = [].append if own else lambda status, fields: None
    with open_file(files.path("data.bin")) as file:
        plan = plan_file_response(RequestHead("GET", range="bytes=5-999"), file)
        delivery = choose_delivery(SERVERS["mod_wsgi"], plan, file, start_response=start_response)
    assert delivery.way == ("file_wrapper" if own else "chunks")


@pytest.mark.parametrize("server", SERVERS)
def test_a_body_of_bytes_is_no_file(server: str) -> None:
    plan = ResponsePlan(404, [], (b"no such file",))
    assert choose_delivery(SERVERS[server], plan, None) == ("chunks", "the body is not a file")


def test_bytes_beside_a_file_are_no_file(files: Files) -> None:
    with open_file(files.path("data.bin")) as file:
        plan = ResponsePlan(200, [], (b"something else",))
        assert choose_delivery(SERVERS["gunicorn"], plan, file) == ("chunks", "the body is not a file")


def test_the_environment_switches_sendfile_off_unless_the_caller_says_otherwise(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_file(files.path("data.bin")) as file:
        plan = plan_file_response(RequestHead("GET"), file)

        def ways() -> list[str]:
            return [choose_delivery(SERVERS["gunicorn"], plan, file, sendfile=way).way for way in (None, True, False)]

        assert ways() == ["file_wrapper", "file_wrapper", "chunks"]
        monkeypatch.setenv("ZCRESPONSE_SENDFILE", "off")
        assert ways() == ["chunks", "file_wrapper", "chunks"]
        assert choose_delivery(SERVERS["gunicorn"], plan, file).reason == "switched off by ZCRESPONSE_SENDFILE"


@pytest.mark.parametrize(
    ("wanted", "window", "age_s", "reason"),
    [
        ("", {}, 3600, "the server moves the file"),
        ("bytes=0-", {}, 3600, "the server moves the file"),
        ("bytes=1-", {}, 3600, "the server sends every file from its beginning to its end"),
        ("bytes=0-99", {}, 3600, "the server sends every file from its beginning to its end"),
        ("", {"offset": 1}, 3600, "the server sends every file from its beginning to its end"),
        ("", {"count": SIZE - 1}, 3600, "the server sends every file from its beginning to its end"),
        ("", {}, 0, "the server sends every file to its end, and this one may be growing"),
        # Its clock is not ours.
        ("", {}, -3600, "the server sends every file to its end, and this one may be growing"),
    ],
)
def test_a_server_that_sends_files_to_their_end_is_given_whole_ones_that_do_not_grow(
    path: Path, wanted: str, window: Any, age_s: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "server_behind", lambda environ: Server("the server", "", Takes.WHOLE))
    os.utime(path, (time.time() - age_s,) * 2)
    with open_file(path, **window) as file:
        plan = plan_file_response(RequestHead("GET", range=wanted or None), file)
        delivery = choose_delivery({"wsgi.file_wrapper": OtherWrapper}, plan, file)
    assert delivery == ("file_wrapper" if "moves" in reason else "chunks", reason)


def test_a_file_that_has_grown_since_it_was_opened_may_go_on_growing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "server_behind", lambda environ: Server("the server", "", Takes.WHOLE))
    with open_file(path) as file:
        plan = plan_file_response(RequestHead("GET"), file)
        os.truncate(path, SIZE + 1)
        os.utime(path, (time.time() - 3600,) * 2)
        assert choose_delivery({"wsgi.file_wrapper": OtherWrapper}, plan, file).way == "chunks"


def test_the_servers_wrapper_is_used_where_the_application_is_shown_another(path: Path) -> None:
    environ = {**request(), **_gunicorn(wrapper=OtherWrapper), "zcresponse.file_wrapper": GunicornFileWrapper}
    body = send_file(environ, Started(), path)
    assert type(body) is GunicornFileWrapper
    assert read(body) == CONTENT
    assert read(send_file({**environ, "zcresponse.file_wrapper": None}, Started(), path)) == CONTENT


@pytest.mark.parametrize(("way", "kind"), [("file_wrapper", GunicornFileWrapper), ("chunks", None)])
def test_the_server_is_given_its_own_wrapper_untouched(path: Path, way: str, kind: Any) -> None:
    # Servers look for the very type, and for the file inside.
    body: Any = send_file({**request(range="bytes=5-99999"), **WAYS[way]}, Started(), path)
    assert (type(body) is kind) == (kind is not None)
    if kind is not None:
        assert body.filelike.tell() == 5
        assert body.blksize == BLOCK
    assert read(body) == CONTENT[5:100_000]


# --- before the answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"path_or_file": "missing"}, FileNotFoundError),
        ({"path_or_file": "."}, NotARegularFileError),
        ({"path_or_file": "/dev/null"}, NotARegularFileError),
        ({"path_or_file": "secret\0.txt"}, ValueError),
        ({"path_or_file": None}, TypeError),
        ({"offset": SIZE + 1}, ValueError),
        ({"offset": -1}, ValueError),
        ({"count": SIZE + 1}, ValueError),
        ({"etag": 'bro"ken'}, ValueError),
        ({"headers": [("X-Name", "a\r\nSet-Cookie: b")]}, ValueError),
        ({"media_type": "text/plain\r\n"}, ValueError),
        ({"filename": "x", "disposition": "in line"}, ValueError),
        ({"max_age": -1}, ValueError),
        ({"no_such_option": 1}, TypeError),
        ({"environ": {}}, KeyError),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_told_before_the_answer_starts(
    path: Path, way: str, arguments: dict[str, Any], error: type[Exception]
) -> None:
    arguments = {"environ": {**request(), **WAYS[way]}, "path_or_file": path, **arguments}
    started = Started()
    with record_transfers() as transfers, pytest.raises(error):
        send_file(start_response=started, **arguments)
    assert started.calls == []
    assert transfers == []
    assert descriptors_of(path) == 0


def test_a_file_that_may_not_be_read_is_told_before_the_answer_starts(path: Path) -> None:
    path.chmod(0)
    started = Started()
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError):
            send_file(request(), started, path)
    finally:
        os.seteuid(user)
    assert started.calls == []


@pytest.mark.parametrize("way", WAYS)
def test_a_switch_that_cannot_be_read_is_told_before_the_answer_starts(
    path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZCRESPONSE_SENDFILE", "maybe")
    started = Started()
    with pytest.raises(SettingError, match="ZCRESPONSE_SENDFILE"):
        send_file({**request(), **WAYS[way]}, started, path)
    assert started.calls == []
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shared", [False, True])
def test_a_server_that_does_not_take_the_head_gets_no_body(path: Path, way: str, shared: bool) -> None:
    def refuses(status: str, fields: object, exc_info: object = None) -> None:
        raise AssertionError("hop-by-hop")

    source: Any = os.open(path, os.O_RDONLY) if shared else path
    with record_transfers() as transfers, pytest.raises(AssertionError, match="hop-by-hop"):
        send_file({**request(), **WAYS[way]}, refuses, source)
    assert descriptors_of(path) == 0
    assert len(transfers) == 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_wrapper_that_fails_leaves_nothing_open(path: Path, shared: bool) -> None:
    def fails(file: object, size: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send_file(
            {**request(), **_gunicorn(wrapper=fails)},
            Started(),
            os.open(path, os.O_RDONLY) if shared else path,
        )
    gc.collect()
    assert descriptors_of(path) == 0


@pytest.mark.parametrize(
    ("status", "line"),
    [(200, "200 OK"), (206, "206 Partial Content"), (404, "404 Not Found"), (299, "299 Unknown"), (599, "599 Unknown")],
)
def test_a_status_has_a_phrase(status: int, line: str) -> None:
    assert status_line(status) == line


def test_every_field_that_matters_is_found_in_environ() -> None:
    names = "range if_range if_match if_none_match if_modified_since if_unmodified_since accept_encoding".split()
    head = request_head(request("PUT", **{name: f"the {name}" for name in names}))
    assert head.method == "PUT"
    assert [getattr(head, name) for name in names] == [f"the {name}" for name in names]
    assert request_head(request()) == RequestHead("GET")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("wanted", "status", "start", "stop"),
    [
        ("", "200 OK", 0, SIZE),
        ("bytes=0-0", "206 Partial Content", 0, 1),
        ("bytes=10-99999", "206 Partial Content", 10, 100_000),
        (f"bytes=5-{SIZE - 6}", "206 Partial Content", 5, SIZE - 5),
        ("bytes=-7", "206 Partial Content", SIZE - 7, SIZE),
        (f"bytes={BLOCK}-", "206 Partial Content", BLOCK, SIZE),
    ],
)
def test_exactly_the_promised_bytes_are_given(
    path: Path, way: str, wanted: str, status: str, start: int, stop: int
) -> None:
    started = Started()
    body = send_file({**request(range=wanted), **WAYS[way]}, started, path)
    assert started.status == status
    assert started.fields["Content-Length"] == str(stop - start)
    assert read(body) == CONTENT[start:stop]
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("way", WAYS)
def test_several_ranges_are_parts_of_one_body(path: Path, way: str) -> None:
    started = Started()
    body = read(send_file({**request(range=f"bytes=0-9,50-{2 * BLOCK},-5"), **WAYS[way]}, started, path))
    assert started.fields["Content-Length"] == str(len(body))
    parts = parse_multipart(started.fields["Content-Type"], body)
    assert [(part.start, part.stop) for part in parts] == [(0, 10), (50, 2 * BLOCK + 1), (SIZE - 5, SIZE)]
    assert all(part.data == CONTENT[part.start : part.stop] for part in parts)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("window", "wanted", "start", "stop"),
    [
        ({"offset": 5}, "", 5, SIZE),
        ({"count": 500}, "", 0, 500),
        ({"offset": 5, "count": BLOCK}, "", 5, BLOCK + 5),
        ({"offset": 5, "count": 500}, "bytes=10-19", 15, 25),
        ({"offset": 5, "count": 500}, "bytes=-10", 495, 505),
        ({"offset": 5, "count": 500}, "bytes=490-999999", 495, 505),
    ],
    ids=str,
)
def test_a_window_ends_where_it_ends(
    path: Path, way: str, window: dict[str, int], wanted: str, start: int, stop: int
) -> None:
    started = Started()
    body: Any = send_file({**request(range=wanted), **WAYS[way]}, started, path, **window)  # type: ignore[arg-type]
    assert read(body) == CONTENT[start:stop]
    assert started.fields["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("environ", "window", "status"),
    [
        (request("HEAD"), {}, 200),
        (request("HEAD", range="bytes=0-9"), {}, 200),
        (request(if_none_match="*"), {}, 304),
        (request(if_match='"other"'), {}, 412),
        (request(range=f"bytes={SIZE}-"), {}, 416),
        (request(), {"offset": SIZE}, 200),
        (request(), {"count": 0}, 200),
    ],
    ids=str,
)
def test_an_answer_without_a_body_gives_nothing(
    path: Path, way: str, environ: Environ, window: dict[str, int], status: int, transfers: list[Transfer]
) -> None:
    started = Started()
    body = send_file({**environ, **WAYS[way]}, started, path, **window)  # type: ignore[arg-type]
    assert started.status.startswith(str(status))
    assert list(body) == []
    close(body)
    assert [(t.way, t.reason, t.status, t.bytes_promised, t.bytes_sent, t.completed) for t in transfers] == [
        ("none", "", status, 0, 0, True)
    ]
    assert descriptors_of(path) == 0


def test_an_answer_without_a_body_needs_not_be_read(path: Path, transfers: list[Transfer]) -> None:
    # Servers do not ask for the body of a HEAD.
    close(send_file(request("HEAD"), Started(), path))
    assert [(t.way, t.bytes_sent, t.completed) for t in transfers] == [("none", 0, True)]
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_plan_without_a_file_is_given_as_it_is(way: str, transfers: list[Transfer]) -> None:
    started = Started()
    plan = ResponsePlan(404, [("Content-Length", "12")], (b"no such", b" file"))
    assert read(deliver(plan, None, {**request(), **WAYS[way]}, started)) == b"no such file"
    assert started.status == "404 Not Found"
    assert [(t.way, t.reason, t.bytes_sent, t.completed) for t in transfers] == [
        ("chunks", "the body is not a file", 12, True)
    ]


@pytest.mark.parametrize("way", WAYS)
def test_a_middleware_that_reads_gets_the_bytes(path: Path, way: str) -> None:
    def middleware(body: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for block in body:
                yield block[:1000]
                yield block[1000:]
        finally:
            close(body)

    body = middleware(send_file({**request(range=f"bytes=3-{SIZE - 3}"), **WAYS[way]}, Started(), path))
    assert read(body) == CONTENT[3 : SIZE - 2]
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("way", WAYS)
def test_many_are_answered_at_once(path: Path, way: str) -> None:
    wrong: list[int] = []

    def fetch(number: int) -> None:
        environ = {**request(range=f"bytes={number * 1000}-{number * 1000 + BLOCK}"), **WAYS[way]}
        for _ in range(10):
            if read(send_file(environ, Started(), path)) != CONTENT[number * 1000 : number * 1000 + BLOCK + 1]:
                wrong.append(number)

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- the end ----------------------------------------------------------------------------------------------------------


def read_all(body: Iterable[bytes]) -> None:
    for _ in body:
        pass


def read_half(body: Iterable[bytes]) -> None:
    blocks = iter(body)
    assert [len(next(blocks)), len(next(blocks))] == [BLOCK, BLOCK]


def never_start(body: Iterable[bytes]) -> None:
    pass


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", [read_all, read_half, never_start])
def test_the_end_is_told_once_however_often_it_is_closed(path: Path, way: str, use: Callable[[Any], None]) -> None:
    closed: list[int] = []
    with open_file(path) as file:
        plan = plan_file_response(RequestHead("GET"), file)
        body = make_body(plan, file, {**request(), **WAYS[way]}, on_close=lambda: closed.append(1))
        use(body)
        assert closed == []
        for _ in range(3):
            close(body)
        assert closed == [1]
        # Nobody else's file is closed by it.
        assert descriptors_of(path) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", [read_all, read_half, never_start])
def test_a_body_that_is_closed_leaves_nothing_open(path: Path, way: str, use: Callable[[Any], None]) -> None:
    body = send_file({**request(), **WAYS[way]}, Started(), path)
    use(body)
    assert descriptors_of(path) == 1
    close(body)
    assert descriptors_of(path) == 0
    close(body)


@pytest.mark.usefixtures("without_the_collector")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("use", [read_all, read_half, never_start])
@pytest.mark.parametrize("shared", [False, True])
def test_a_body_that_is_dropped_leaves_nothing_open(
    path: Path, way: str, use: Callable[[Any], None], shared: bool
) -> None:
    given: Any = os.open(path, os.O_RDONLY) if shared else path
    body = send_file({**request(), **WAYS[way]}, Started(), given)
    use(body)
    del body
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("way", WAYS)
def test_what_was_lent_stays_open(path: Path, way: str) -> None:
    with path.open("rb") as file:
        environ = {**request(), **WAYS[way]}
        assert read(send_file(environ, Started(), file, closefd=False)) == CONTENT
        del environ
        assert not file.closed
        assert descriptors_of(path) == 1
        body = send_file({**request(), **WAYS[way]}, Started(), file)
        assert not file.closed
        close(body)
        assert file.closed
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("way", WAYS)
def test_what_closing_the_file_raises_comes_out_and_the_transfer_is_told(
    path: Path, way: str, transfers: list[Transfer]
) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    with open_file(path) as file:
        plan = plan_file_response(RequestHead("GET"), file)
        body = make_body(plan, file, {**request(), **WAYS[way]}, on_close=fails)
        with pytest.raises(ZeroDivisionError):
            close(body)
        close(body)
    assert len(transfers) == 1


# --- files that change ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("wanted", ["", f"bytes=10-{SIZE - 1}"])
def test_a_file_that_grows_is_sent_as_promised(
    path: Path, way: str, started: bool, wanted: str, transfers: list[Transfer]
) -> None:
    body = send_file({**request(range=wanted), **WAYS[way]}, Started(), path)
    blocks = iter(body)
    got = next(blocks) if started else b""
    with path.open("ab") as file:
        file.write(b"more" * BLOCK)
    got += b"".join(blocks)
    close(body)
    assert got == CONTENT[10 if wanted else 0 :]
    assert [transfer.completed for transfer in transfers] == [True if way == "chunks" else None]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("taken", [0, 1, 3])
@pytest.mark.parametrize("size", [0, BLOCK + 1, SIZE - 1])
def test_a_file_that_is_cut_ends_with_an_error(
    path: Path, way: str, taken: int, size: int, transfers: list[Transfer]
) -> None:
    body = send_file({**request(), **WAYS[way]}, Started(), path)
    blocks = iter(body)
    got = b"".join([next(blocks) for _ in range(taken)])
    os.truncate(path, size)
    with pytest.raises(FileTruncatedError, match="before"):
        for block in blocks:
            got += block
    with contextlib.suppress(FileTruncatedError):
        close(body)
    close(body)
    assert CONTENT.startswith(got)
    assert len(got) < SIZE
    (transfer,) = transfers
    assert (transfer.completed, transfer.bytes_promised) == (False, SIZE)
    assert "the file ended" in transfer.reason
    assert transfer.bytes_sent == (len(got) if way == "chunks" else None)
    assert descriptors_of(path) == 0


def test_a_server_that_moves_a_file_hears_that_nobody_can_tell_how_it_went(path: Path) -> None:
    # As on a network file system that has lost the file.
    transfers: list[Transfer] = []
    file = open_file(path)
    plan = plan_file_response(RequestHead("GET"), file)
    environ = {**request(), **WAYS["file_wrapper"]}
    body: Any = make_body(plan, file, environ, on_close=lambda: None, on_transfer=transfers.append)
    os.close(body.filelike.fileno())
    with pytest.raises(FileTruncatedError, match="cannot be read any more"):
        body.close()
    body.close()
    assert [(transfer.bytes_sent, transfer.completed) for transfer in transfers] == [(None, False)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.close()


def test_a_server_that_moves_a_file_hears_at_the_end_that_it_was_cut(path: Path, transfers: list[Transfer]) -> None:
    # It may have taken the early end of the file for the end of the body, and would keep the connection.
    body: Any = send_file({**request(range="bytes=-70000"), **WAYS["file_wrapper"]}, Started(), path)
    fd = body.filelike.fileno()
    os.truncate(path, SIZE - 69_950)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert os.sendfile(ours.fileno(), fd, None, 70_000) == 50
    with pytest.raises(FileTruncatedError, match="69950 bytes before"):
        body.close()
    body.close()
    assert transfers == [
        Transfer(
            "file_wrapper",
            "the server moves the file; the file ended 69950 bytes before the promised end",
            206,
            70_000,
            None,
            transfers[0].duration_s,
            False,
        )
    ]
    assert descriptors_of(path) == 0


def test_what_is_cut_behind_a_range_is_nobodys_concern(path: Path) -> None:
    body = send_file({**request(range="bytes=10-99999"), **WAYS["file_wrapper"]}, Started(), path)
    os.truncate(path, 100_000)
    assert read(body) == CONTENT[10:100_000]


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_replaced_by_rename_is_sent_as_it_was(path: Path, way: str) -> None:
    body = send_file({**request(), **WAYS[way]}, Started(), path)
    blocks = iter(body)
    got = next(blocks)
    other = path.with_name("other")
    other.write_bytes(b"x")
    other.replace(path)
    assert got + b"".join(blocks) == CONTENT
    close(body)


# --- accounts ---------------------------------------------------------------------------------------------------------


def take_all_but_the_end(body: Iterable[bytes]) -> None:
    # As a server that counts along with Content-Length.
    blocks = iter(body)
    assert sum(len(next(blocks)) for _ in range(4)) == SIZE


@pytest.mark.parametrize(
    ("use", "bytes_sent", "completed", "ending"),
    [
        (read_all, SIZE, True, ""),
        (take_all_but_the_end, None, None, ""),
        (read_half, BLOCK, False, "; the server asked for no more, as when the client has left"),
        (never_start, 0, False, "; the server asked for no more, as when the client has left"),
    ],
)
def test_what_a_server_has_asked_for_is_what_it_has_taken(
    path: Path, use: Callable[[Any], None], bytes_sent: int | None, completed: bool | None, ending: str
) -> None:
    transfers: list[Transfer] = []
    body = send_file(request(), Started(), path, on_transfer=transfers.append)
    use(body)
    assert transfers == []
    close(body)
    close(body)
    (transfer,) = transfers
    assert transfer == Transfer(
        "chunks",
        f"the server offers no wsgi.file_wrapper{ending}",
        200,
        SIZE,
        bytes_sent,
        transfer.duration_s,
        completed,
    )
    assert 0 <= (transfer.duration_s or 0.0) < 60


@pytest.mark.parametrize("use", [read_all, take_all_but_the_end, read_half, never_start])
def test_of_a_server_that_moves_the_file_nothing_is_claimed(path: Path, use: Callable[[Any], None]) -> None:
    transfers: list[Transfer] = []
    environ = {**request(range="bytes=0-"), **WAYS["file_wrapper"]}
    body = send_file(environ, Started(), path, on_transfer=transfers.append)
    use(body)
    close(body)
    (transfer,) = transfers
    assert transfer == Transfer("file_wrapper", "the server moves the file", 206, SIZE, None, transfer.duration_s, None)


@pytest.mark.parametrize("way", WAYS)
def test_a_listener_that_fails_changes_nothing(
    path: Path, way: str, transfers: list[Transfer], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(transfer: Transfer) -> None:
        raise ZeroDivisionError

    assert read(send_file({**request(), **WAYS[way]}, Started(), path, on_transfer=fails)) == CONTENT
    assert len(transfers) == 1
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


def test_a_log_line_tells_how(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="zcresponse")
    size = FILES["data.bin"].size
    for environ in WAYS["chunks"], WAYS["file_wrapper"]:
        read(send_file({**request(), **environ}, Started(), files.path("data.bin")))
    assert caplog.messages == [
        f"200 by chunks (the server offers no wsgi.file_wrapper): {size} of {size} bytes",
        f"200 by file_wrapper (the server moves the file): unknown of {size} bytes",
    ]


# --- descriptors that are shared --------------------------------------------------------------------------------------


def lend(kind: str, path: Path) -> Any:
    if kind == "descriptor":
        return os.open(path, os.O_RDONLY)
    if kind == "file object":
        return path.open("rb")
    return open_file(path)


@pytest.mark.parametrize("kind", ["descriptor", "file object", "opened file"])
@pytest.mark.parametrize("way", WAYS)
def test_responses_that_share_a_descriptor_do_not_disturb_each_other(path: Path, way: str, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        shared = lend(kind, path)
        stack.callback(os.close, shared) if kind == "descriptor" else stack.enter_context(shared)
        fd = shared if kind == "descriptor" else shared.fileno()
        os.lseek(fd, 7, os.SEEK_SET)
        intervals = [(0, SIZE), (5, SIZE), (BLOCK + 1, SIZE), (SIZE - 10, SIZE)]
        bodies = [
            send_file({**request(range=f"bytes={start}-{stop - 1}"), **WAYS[way]}, Started(), shared, closefd=False)
            for start, stop in intervals
        ]
        # In turn, block by block; the first is done last.
        got = [b""] * len(bodies)
        for _ in range(6):
            for number, body in reversed(list(enumerate(bodies))):
                got[number] += next(iter(body), b"")
        for body in bodies:
            close(body)
        assert got == [CONTENT[start:stop] for start, stop in intervals]
        assert os.lseek(fd, 0, os.SEEK_CUR) == 7
        assert descriptors_of(path) == 1


def test_a_server_may_move_two_parts_of_one_descriptor_at_once(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    environ = WAYS["file_wrapper"]
    first: Any = send_file({**request(range="bytes=0-"), **environ}, Started(), fd, closefd=False)
    second: Any = send_file({**request(range="bytes=5000-"), **environ}, Started(), fd, closefd=False)
    os.close(fd)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # By the descriptor's own position, as some servers do.
        for body in (first, second) * 2:
            assert os.sendfile(ours.fileno(), body.filelike.fileno(), None, 500) == 500
        assert theirs.recv(5000) == CONTENT[:500] + CONTENT[5000:5500] + CONTENT[500:1000] + CONTENT[5500:6000]
    close(first)
    close(second)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", [False, True])
def test_a_file_that_was_deleted_is_sent(path: Path, way: str, given: bool) -> None:
    source: Any = os.open(path, os.O_RDONLY) if given else open_file(path)
    path.unlink()
    with record_transfers() as transfers:
        body = send_file({**request(range="bytes=5-99999"), **WAYS[way]}, Started(), source)
        assert read(body) == CONTENT[5:100_000]
    assert [transfer.way for transfer in transfers] == [way.partition(" ")[0]]
    assert descriptors_of(path) == 0


REASON = "the descriptor is shared and cannot be opened a second time"


def test_a_descriptor_that_cannot_be_opened_again_is_read(path: Path, transfers: list[Transfer]) -> None:
    import resource

    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 7, os.SEEK_SET)
    lent = open_file(fd, closefd=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        body = send_file({**request(), **WAYS["file_wrapper"]}, Started(), lent)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert read(body) == CONTENT
    assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    os.close(fd)
    assert [(t.way, t.reason, t.bytes_sent, t.completed) for t in transfers] == [("chunks", REASON, SIZE, True)]


ELSEWHERE = """
import os, sys
from gunicorn.http.wsgi import FileWrapper
from socket import socket
from zcresponse.errors import FileTruncatedError
from zcresponse.wsgi import send_file, transport

path, action, place = sys.argv[1:]
environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": FileWrapper, "SERVER_SOFTWARE": "gunicorn/27.0.1"}
environ |= {"gunicorn.socket": socket(), "HTTP_RANGE": "bytes=5-"}
transfers = []
with open(path, "rb") as given, open(path, "rb") as kept:
    content = kept.read()
    opened = os.open(path, os.O_RDONLY)
    if action == "leave":
        os.chroot(place)
    else:
        os.setresuid(65534, 65534, 65534)
    for source in opened, given:
        body = send_file(environ, lambda *_: None, source, on_transfer=transfers.append)
        assert b"".join(body) == content[5:]
        body.close()
environ["gunicorn.socket"].close()
for transfer in transfers:
    print(transfer.way, transfer.reason, transfer.completed, sep="|")
"""


@pytest.mark.parametrize("action", ["leave", "become nobody"])
def test_without_proc_or_the_right_to_open_it_again_a_descriptor_is_read(path: Path, action: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can leave the file system, or become nobody")
    path.chmod(0o600)
    place = path.with_name("empty")
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", ELSEWHERE, str(path), action, str(place)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"chunks|{REASON}|True"] * 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("closefd", [True, False])
@pytest.mark.parametrize("wanted", ["", "bytes=5-99", "bytes=0-9,20-29"])
def test_content_in_memory_is_given_in_blocks(way: str, closefd: bool, wanted: str, transfers: list[Transfer]) -> None:
    started, buffer = Started(), io.BytesIO(CONTENT)
    body = read(send_file({**request(range=wanted), **WAYS[way]}, started, buffer, closefd=closefd))
    if "," in wanted:
        parts = parse_multipart(started.fields["Content-Type"], body)
        assert [part.data for part in parts] == [CONTENT[:10], CONTENT[20:30]]
    else:
        assert body == (CONTENT[5:100] if wanted else CONTENT)
    assert buffer.closed is closefd
    assert [(t.way, t.reason, t.completed) for t in transfers] == [("chunks", "the body is not a file", True)]


def test_an_opened_file_can_be_sent_with_its_window(path: Path) -> None:
    file, window = open_file(path, offset=10, count=100_000), CONTENT[10:100_010]
    assert read(send_file({**request(), **WAYS["file_wrapper"]}, Started(), file)) == window
    assert file.closed
    with open_file(path, offset=10, count=100_000) as kept:
        assert read(send_file({**request(), **WAYS["file_wrapper"]}, Started(), kept, closefd=False)) == window
        assert isinstance(kept, OpenedFile)
        assert not kept.closed
