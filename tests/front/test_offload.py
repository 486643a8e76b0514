"""Files that real front servers send, with the documentation's configurations, for applications that only name them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support import servers
from tests.support.front_servers import FRONTS, mod_wsgi, senders
from tests.support.kernel import trace_sendfile, trace_syscalls
from tests.support.offload_apps import FIELDS
from tests.support.servers import Server
from tests.support.table import parse_multipart
from tests.support.wire import Connection, WireResponse, format_request

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into processes through /proc")

SIZE = 3_000_000
CONTENT = random.Random("offload").randbytes(SIZE)
MTIME = 1_700_000_000

NAMES = [
    "a file.bin",
    "100%.bin",
    "p%41%2f.bin",
    "what?x=1.bin",
    "a+b&c=d#e;f,g.bin",
    "\"quotes'.bin",
    "back\\slash.bin",
    "日本 – ü.bin",
    "line\r\nSet-Cookie: evil=1.bin",
    "tab\tand space .bin ",
    "[x]*{http.x}$uri.bin",
    "raw\udcff\udcfe.bin",
    "deep/er/..still here/file.bin",
]


@dataclass(slots=True)
class Pair:
    """A front server before an application, and one connection to it that all requests of a test use."""

    name: str
    front: Server
    app: Server
    connection: Connection

    def ask(self, target: str = "/media/data.bin", method: str = "GET", **fields: str) -> WireResponse:
        """One request; what it is answered must end exactly where it says."""
        headers = [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.connection.send(format_request(method, target, headers))
        response = self.connection.read_response(method)
        assert response.head.keeps_alive
        if self.name == "nginx" and response.status == 412:
            # It closes, although it says that it does not; for its own files too.
            self.connection.assert_closed()
            self.connection.close()
            self.connection = self.front.connect()
        else:
            self.connection.assert_nothing_pending()
        assert not {"x-accel-redirect", "x-sendfile"} & {name for name, _ in response.head.fields}
        return response

    def header(self, name: str) -> str:
        """A field of the plain answer."""
        return value_of(self.ask(method="HEAD"), name)


def value_of(response: WireResponse, name: str) -> str:
    (value,) = [value for each, value in response.head.fields if each == name]
    return value


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What applications serve: a folder that is offloaded, and one that is not."""
    site = tmp_path_factory.mktemp("site")
    for place in (*(f"media/{name}" for name in ("data.bin", *NAMES)), "private/data.bin", "media/empty.bin"):
        path = site / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "empty" in place else CONTENT if "data" in place else os.fsencode(place))
        os.utime(path, (MTIME, MTIME))
    return site


APPS = {
    "flask": lambda env: servers.gunicorn(
        "tests.support.offload_apps:flask_app", "--threads=2", worker_class="gthread", env=env
    ),
    "django": lambda env: servers.gunicorn(
        "tests.support.offload_apps:wsgi_app", "--threads=2", worker_class="gthread", env=env
    ),
    "starlette": lambda env: servers.uvicorn("tests.support.offload_apps:starlette_app", env=env),
    "dressed": lambda env: servers.gunicorn(
        "tests.support.offload_apps:dressed", "--threads=2", worker_class="gthread", env=env
    ),
}


def running(names: str, site: Path, stack: ExitStack) -> Pair:
    front, app = names.split("-")
    media = site / "media"
    python = stack.enter_context(APPS[app]({"OFFLOAD_FILES": str(site), **FRONTS[front].environment(media)}))
    server = stack.enter_context(FRONTS[front].start(python.port, media))
    pair = Pair(front, server, python, server.connect())
    stack.callback(lambda: pair.connection.close())
    return pair


@pytest.fixture(
    scope="module",
    params=["nginx-flask", "nginx-django", "nginx-starlette", "apache-flask", "lighttpd-django", "caddy-starlette"],
)
def pair(request: pytest.FixtureRequest, site: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield running(request.param, site, stack)


@pytest.fixture(scope="module", params=FRONTS)
def dressed(request: pytest.FixtureRequest, site: Path) -> Iterator[Pair]:
    """Before an application that knows files of any name, and sends many header fields."""
    with ExitStack() as stack:
        yield running(f"{request.param}-dressed", site, stack)


def test_the_front_server_sends_the_file_by_sendfile_and_the_application_no_byte(pair: Pair, site: Path) -> None:
    path = site / "media/data.bin"
    sent_by_python = ("write", "writev", "sendto", "sendmsg", "sendfile", "splice")
    with trace_sendfile(*senders(pair.front)) as front, trace_syscalls(pair.app.pid, names=sent_by_python) as python:
        whole, part = pair.ask(), pair.ask(Range="bytes=1000-2000999")
    assert (whole.status, part.status) == (200, 206)
    assert whole.body == CONTENT
    assert part.body == CONTENT[1000:2_001_000]
    # Caddy reads the beginning of a file, which goes with the head.
    assert front.total_from(path) >= 5_000_000 - 2 * 4096
    assert 0 < sum(call.returned or 0 for call in python.calls) < 4000


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [("0-0", 0, 1), ("100-199", 100, 200), ("2999999-", SIZE - 1, SIZE), ("-5", SIZE - 5, SIZE)],
)
def test_a_range(pair: Pair, wanted: str, start: int, stop: int) -> None:
    answer = pair.ask(Range=f"bytes={wanted}")
    assert (answer.status, answer.body) == (206, CONTENT[start:stop])
    assert value_of(answer, "content-range") == f"bytes {start}-{stop - 1}/{SIZE}"


def test_several_ranges(pair: Pair) -> None:
    answer = pair.ask(Range="bytes=0-9,1000-1009,-10")
    assert answer.status == 206
    parts = parse_multipart(value_of(answer, "content-type"), answer.body)
    assert [part.data for part in parts] == [CONTENT[:10], CONTENT[1000:1010], CONTENT[-10:]]


def test_head_has_the_files_length_and_no_body(pair: Pair) -> None:
    answer = pair.ask(method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert value_of(answer, "content-length") == str(SIZE)
    assert pair.ask("/media/empty.bin").body == b""


def test_conditions(pair: Pair) -> None:
    tag, date = pair.header("etag"), pair.header("last-modified")
    assert date == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert pair.ask(If_None_Match=tag).status == 304
    assert pair.ask(If_None_Match=f'"x", W/{tag}').status == 304
    assert pair.ask(If_None_Match='"x"', If_Modified_Since=date).status == 200
    assert pair.ask(If_Modified_Since=date).status == 304
    assert pair.ask(If_Modified_Since="Thu, 01 Jan 2026 00:00:00 GMT").status == 304
    assert pair.ask(If_Modified_Since="Thu, 01 Jan 2015 00:00:00 GMT").status == 200
    assert pair.ask(Range="bytes=0-0", If_None_Match=tag).status == 304


def test_conditions_that_fail(pair: Pair) -> None:
    # lighttpd does not know these two.
    failed = 200 if pair.name == "lighttpd" else 412
    assert pair.ask(If_Match='"x"').status == failed
    assert pair.ask(If_Unmodified_Since="Thu, 01 Jan 2015 00:00:00 GMT").status == failed
    assert pair.ask(If_Match=pair.header("etag")).status == 200
    assert pair.ask(Range="bytes=3000000-").status == 416


def test_a_range_of_another_file_than_the_client_has(pair: Pair) -> None:
    same = pair.ask(Range="bytes=0-0", If_Range=pair.header("etag"))
    assert (same.status, same.body) == (206, CONTENT[:1])
    other = pair.ask(Range="bytes=0-0", If_Range='"x"')
    assert (other.status, other.body) == (200, CONTENT)
    older = pair.ask(Range="bytes=0-0", If_Range="Thu, 01 Jan 2015 00:00:00 GMT")
    assert (older.status, older.body) == (200, CONTENT)


@pytest.mark.parametrize("name", NAMES[:5] + NAMES[7:8], ids=ascii)
def test_a_file_with_a_name_that_urls_cannot_hold(pair: Pair, name: str) -> None:
    answer = pair.ask(f"/media/{quote(name)}")
    assert (answer.status, answer.body) == (200, f"media/{name}".encode())


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_file_of_any_name(dressed: Pair, name: str) -> None:
    if dressed.name == "lighttpd" and not name.isprintable():
        pytest.skip("lighttpd refuses requests for control characters and for what is not UTF-8")
    answer = dressed.ask(f"/media/{quote(os.fsencode(name))}")
    assert (answer.status, answer.body) == (200, os.fsencode(f"media/{name}"))
    assert [value for field, value in answer.head.fields if field == "set-cookie"] == ["a=1", "b=2"]


def test_what_lies_elsewhere_is_sent_by_the_application(pair: Pair, site: Path) -> None:
    with trace_sendfile(*senders(pair.front)) as front:
        answer = pair.ask("/private/data.bin", Range="bytes=0-99999")
    assert (answer.status, answer.body) == (206, CONTENT[:100_000])
    assert front.total_from(site / "private/data.bin") == 0


@pytest.mark.parametrize("front", FRONTS)
def test_slow_clients_keep_no_worker_busy(front: str, site: Path) -> None:
    env = {"OFFLOAD_FILES": str(site), **FRONTS[front].environment(site / "media")}
    with ExitStack() as stack:
        # One request at a time.
        app = stack.enter_context(servers.gunicorn("tests.support.offload_apps:flask_app", env=env))
        server = stack.enter_context(FRONTS[front].start(app.port, site / "media"))
        for _ in range(8):
            stalled = stack.enter_context(server.connect(receive_buffer=4096))
            stalled.send(format_request("GET", "/media/data.bin"))
            assert stalled.read_head().length == SIZE
        with server.connect() as connection:
            assert connection.get("/media/data.bin").body == CONTENT


def test_no_client_gets_at_a_file_by_itself(pair: Pair, site: Path) -> None:
    for target in "/_media/data.bin", quote(f"{site}/media/data.bin"):
        assert pair.ask(target, X_Accel_Redirect="/_media/data.bin", X_Sendfile=f"{site}/media/data.bin").status == 404
    named = pair.ask("/private/data.bin", X_Accel_Redirect="/_media/empty.bin", X_Sendfile=f"{site}/media/empty.bin")
    assert named.body == CONTENT


@pytest.mark.parametrize("daemon", [False, True], ids=["embedded", "daemon"])
def test_apache_sends_for_an_application_that_runs_in_it(daemon: bool, site: Path) -> None:
    app = "tests.support.offload_apps:flask_app"
    with mod_wsgi(app, site, daemon=daemon) as server, server.connect() as connection:
        pair = Pair("apache", server, server, connection)
        with trace_sendfile(*senders(server)) as trace:
            part = pair.ask(Range="bytes=1000-2000999")
        assert (part.status, part.body) == (206, CONTENT[1000:2_001_000])
        assert trace.total_from(site / "media/data.bin") == 2_000_000
        assert pair.ask(If_None_Match=pair.header("etag")).status == 304
        assert value_of(pair.ask(method="HEAD"), "content-length") == str(SIZE)
        assert pair.ask("/media/what%3Fx%3D1.bin").body == b"media/what?x=1.bin"


# --- header fields ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["whole", "range", "unchanged"])
def test_the_applications_fields_reach_the_client(dressed: Pair, asked: str) -> None:
    # nginx is told which to give back.
    lost = {"X-Custom"} if dressed.name == "nginx" else set()
    tag = dressed.header("etag")
    fields = {"whole": {}, "range": {"Range": "bytes=0-0"}, "unchanged": {"If-None-Match": tag}}[asked]
    answer = dressed.ask(**fields)
    wanted = [(name.lower(), value) for name, value in FIELDS if name not in lost]
    if asked == "unchanged":
        wanted = [field for field in wanted if field[0] not in ("content-type", "content-language")]
    assert [field for field in wanted if field not in answer.head.fields] == []
    for name in {name.lower() for name, _ in FIELDS} - {"set-cookie"}:
        assert sum(each == name for each, _ in answer.head.fields) <= 1


def test_nginx_and_caddy_have_tags_of_their_own_and_the_others_the_applications(pair: Pair) -> None:
    with pair.app.connect() as connection:
        connection.send(format_request("HEAD", "/media/data.bin"))
        application = value_of(connection.read_response("HEAD"), "etag")
    assert (pair.header("etag") == application) is (pair.name in ("apache", "lighttpd"))
