"""The Django project among the examples: on real servers, by raw requests and in a real browser."""

from __future__ import annotations

import ast
import contextlib
import os
import random
import re
import shlex
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.support import servers
from tests.support.browser import Page, chromium
from tests.support.kernel import trace_sendfile
from tests.support.servers import ROOT, Server, wait_until
from tests.support.wire import format_request

PROJECT = ROOT / "examples/django_project"
OWNER, STRANGER = "ann", "bob"
PASSWORD = "only for tests"
# It is sound alone, which a <video> plays too. Any second of it can be told from its place in the file, and there are
# so many bytes that no browser fetches them all before somebody clicks.
SECONDS, BYTES_PER_SECOND = 250, 4 * 44_100


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the project's database and uploads are, with two users and nothing else."""
    data = tmp_path_factory.mktemp("data")
    manage(data, "migrate")
    for name in (OWNER, STRANGER):
        more = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        manage(data, "createsuperuser", "--noinput", "--username", name, "--email", f"{name}@example.org", **more)
    return data


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(random.Random("clip").randbytes(SECONDS * BYTES_PER_SECOND))
    return path.read_bytes()


def environment(data: Path) -> dict[str, str]:
    return {"SECRET_KEY": "only for tests", "DATA_DIR": str(data)}


def manage(data: Path, *arguments: str, **more: str) -> str:
    """Run one of the project's commands; warnings are errors."""
    env = {**os.environ, **environment(data), **more, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-X", "dev", "-W", "error", "manage.py", *arguments]
    run = subprocess.run(argv, cwd=PROJECT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


def test_the_migrations_are_those_of_the_models(data: Path) -> None:
    assert "No changes detected" in manage(data, "makemigrations", "--check", "--dry-run")


def test_the_projects_own_tests_pass(data: Path) -> None:
    assert re.search(r"Ran [1-9]\d* tests.*\nOK\n", manage(data, "test"), re.DOTALL)


def start(module: str, data: Path) -> AbstractContextManager[Server]:
    """Run the command in the docstring of one of the project's modules, at a port of its own."""
    shown = ast.get_docstring(ast.parse((PROJECT / "project" / f"{module}.py").read_text("utf-8")))
    assert shown is not None
    program, *arguments = shlex.split(shown.splitlines()[-1])
    if program == "gunicorn":
        return servers.gunicorn(*arguments, "--chdir", str(PROJECT), "--access-logfile", "-", env=environment(data))
    assert program == "uvicorn"
    argv = [sys.executable, "-m", program, *arguments, "--port", "0"]
    return servers.run_server(
        argv, announced=r"running on http://127\.0\.0\.1:(\d+)", cwd=PROJECT, env=environment(data)
    )


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def server(request: pytest.FixtureRequest, data: Path) -> Iterator[Server]:
    with start(request.param, data) as server:
        yield server
    assert "Traceback" not in server.log()


@contextlib.contextmanager
def log_in(server: Server, name: str) -> Iterator[httpx.Client]:
    address = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=address, follow_redirects=True, trust_env=False) as client:
        client.get("/login/")
        answer = client.post("/login/", data=with_token(client, username=name, password=PASSWORD))
        assert (answer.status_code, answer.url.path) == (200, "/")
        yield client


def with_token(client: httpx.Client, **values: str) -> dict[str, str]:
    return {"csrfmiddlewaretoken": client.cookies["csrftoken"], **values}


@pytest.fixture(scope="module")
def owner(server: Server) -> Iterator[httpx.Client]:
    with log_in(server, OWNER) as client:
        yield client


@pytest.fixture(scope="module")
def video(owner: httpx.Client, clip: bytes, data: Path) -> str:
    """The address of a video that the owner has uploaded."""
    page = owner.post("/", data=with_token(owner), files={"file": ("clip.wav", clip)}).text
    address, name = re.findall(r'<a href="(/\d+/)">(videos/clip\w*\.wav)</a>', page)[-1]
    # A file that is younger than two seconds could be changed without a trace: its ETag is weak, and resumes nothing.
    os.utime(stored(data), (1_700_000_000, 1_700_000_000))
    assert stored(data).name == Path(name).name
    return str(address)


def stored(data: Path) -> Path:
    """The last upload."""
    return max((data / "media/videos").iterdir(), key=lambda path: path.stat().st_ctime_ns)


def cookie(client: httpx.Client) -> tuple[str, str]:
    return "Cookie", f"sessionid={client.cookies['sessionid']}"


def test_who_is_not_logged_in_is_asked_to(server: Server, video: str) -> None:
    with server.connect() as connection:
        for path in ("/", video, f"{video}video", f"{video}download"):
            response = connection.get(path)
            assert response.status == 302
            assert response.values("location") == [f"/login/?next={path}"]


def test_a_stranger_finds_nothing(server: Server, video: str) -> None:
    with log_in(server, STRANGER) as client:
        assert video not in client.get("/").text
        for path in (video, f"{video}video", f"{video}download"):
            for fields in ({}, {"Range": "bytes=0-9"}):
                assert client.get(path, headers=fields).status_code == 404


@pytest.mark.usefixtures("video")
def test_what_no_browser_plays_is_not_taken(owner: httpx.Client, data: Path) -> None:
    before = stored(data)
    answer = owner.post("/", data=with_token(owner), files={"file": ("page.html", b"<script>alert(1)</script>")})
    assert "not allowed" in answer.text
    assert stored(data) == before


def test_the_kernel_moves_a_download(server: Server, owner: httpx.Client, video: str, clip: bytes, data: Path) -> None:
    with trace_sendfile(server.pid) as trace, server.connect() as connection:
        response = connection.get(f"{video}download", cookie(owner))
        assert response.status == 200
        assert response.body == clip
    assert response.values("content-disposition") == [f'attachment; filename="{stored(data).name}"']
    assert response.values("cache-control") == ["private"]
    assert trace.total_from(stored(data)) == len(clip)


def test_a_download_that_broke_off_is_resumed(
    server: Server, owner: httpx.Client, video: str, clip: bytes, data: Path
) -> None:
    with server.connect() as connection:
        connection.send(format_request("GET", f"{video}download", [cookie(owner)]))
        etag = dict(connection.read_head().fields)["etag"]
        begun = connection.receive_exactly(1_000_000)
        connection.reset()
    for tag, status, rest in ((etag, 206, clip[len(begun) :]), ('"another"', 200, clip)):
        fields = [cookie(owner), ("Range", f"bytes={len(begun)}-"), ("If-Range", tag)]
        with trace_sendfile(server.pid) as trace, server.connect() as connection:
            response = connection.get(f"{video}download", *fields)
            assert response.status == status
            assert response.body == rest
        assert trace.total_from(stored(data)) == len(rest)
    assert begun == clip[: len(begun)]


PLAY = """new Promise((resolve, reject) => {
    video.onerror = () => reject(video.error.message);
    const begin = video.currentTime;
    video.ontimeupdate = () => { if (video.currentTime > begin + 0.5) resolve(video.currentTime); };
    video.play();
})"""
SEEK = """new Promise((resolve, reject) => {
    video.onerror = () => reject(video.error.message);
    video.onseeked = () => resolve(video.currentTime);
    video.currentTime = 0.8 * video.duration;
})"""


def starts(page: Page, video: str) -> list[int]:
    """Where the parts of the video begin that the page was given by answers 206."""
    answers = [each for each in page.responses if each["url"].endswith(f"{video}video")]
    assert all(each["status"] == 206 for each in answers)
    return [int(re.findall(r"bytes (\d+)-", each["headers"]["Content-Range"])[0]) for each in answers]


def test_a_browser_plays_the_video_and_seeks_in_it(server: Server, video: str, data: Path) -> None:
    partial = re.compile(rf'"GET {video}video HTTP/1\.1" 206')
    before = len(partial.findall(server.log()))
    sought = 0.8 * SECONDS
    with trace_sendfile(server.pid) as trace:
        with chromium() as page:
            page.go(f"http://127.0.0.1:{server.port}{video}")
            page.submit(username=OWNER, password=PASSWORD)
            assert page.url.endswith(video)
            page.evaluate("globalThis.video = document.querySelector('video')")
            assert page.evaluate("video.readyState >= HTMLMediaElement.HAVE_METADATA")
            assert page.evaluate("video.duration") == SECONDS
            assert 0.5 < page.evaluate(PLAY) < 10
            assert max(starts(page, video)) < sought * BYTES_PER_SECOND / 2
            assert sought <= page.evaluate(SEEK) < sought + 5
            assert sought + 0.5 < page.evaluate(PLAY) < sought + 10
            parts = starts(page, video)
        # gunicorn's call returns, and its line is written, when the answer is over.
        wait_until(
            lambda: len(partial.findall(server.log())) >= before + len(parts), what="the lines in the access log"
        )
    assert len(parts) >= 2
    start = max(parts)
    assert sought - 2 < start / BYTES_PER_SECOND < sought + 2
    moved = [call for call in trace.sendfiles if call.in_file == str(stored(data))]
    assert sum(call.sent for call in moved if (call.offset or 0) >= start) >= BYTES_PER_SECOND / 2
