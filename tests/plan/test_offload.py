from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse import Offload, RequestHead, ResponsePlan, open_file, plan_file_response
from zcresponse.errors import SettingError
from zcresponse.files import MemoryFile, OpenedFile
from zcresponse.files.linux import Storage
from zcresponse.plan.offload import SETTING, offload_of
from zcresponse.plan.response import values_of

ACCEL = Offload("X-Accel-Redirect", {"/srv/media": "/_media"})
SENDFILE = Offload("X-Sendfile", ["/srv/media"])


def opened(path: str) -> OpenedFile:
    """A file of that path, as far as its text goes."""
    return OpenedFile(-1, os.stat(__file__), Storage.UNKNOWN, path=path, close=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a file.bin"
    path.write_bytes(b"0123456789")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def plan(path: Path, method: str = "GET", *, header: str = "X-Accel-Redirect", **options: Any) -> ResponsePlan:
    offload = Offload(header, {path.parent: "/_media"})
    with open_file(path, **options.pop("window", {})) as file:
        request = options.pop("request", RequestHead(method))
        return plan_file_response(request, file, offload=offload, **options)


# --- what is said of a file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/srv/media/a.bin", "/_media/a.bin"),
        ("/srv/media/deep/er/a.bin", "/_media/deep/er/a.bin"),
        ("/srv//media/./a.bin", "/_media/a.bin"),
        ("/srv/media/a b.bin", "/_media/a%20b.bin"),
        ("/srv/media/p%41.bin", "/_media/p%2541.bin"),
        ("/srv/media/q?x=1#y&z.bin", "/_media/q%3Fx%3D1%23y%26z.bin"),
        ("/srv/media/a+b;c,d.bin", "/_media/a%2Bb%3Bc%2Cd.bin"),
        ("/srv/media/\"'\\<>.bin", "/_media/%22%27%5C%3C%3E.bin"),
        ("/srv/media/line\r\nSet-Cookie: x.bin", "/_media/line%0D%0ASet-Cookie%3A%20x.bin"),
        ("/srv/media/日本.bin", "/_media/%E6%97%A5%E6%9C%AC.bin"),
        ("/srv/media/raw\udcff.bin", "/_media/raw%FF.bin"),
        ("/srv/media/..a", "/_media/..a"),
    ],
)
def test_x_accel_redirect_is_a_percent_encoded_path(path: str, value: str) -> None:
    assert ACCEL.tell(opened(path), ()) == (value, "")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/srv/media/a b+c#d&e;f,g.bin", "/srv/media/a b+c#d&e;f,g.bin"),
        ("/srv/media/\"'\\<>.bin", "/srv/media/\"'\\<>.bin"),
        ("/srv/media/日本.bin", "/srv/media/日本.bin".encode().decode("latin-1")),
    ],
)
def test_x_sendfile_is_the_path_as_it_is(path: str, value: str) -> None:
    assert SENDFILE.tell(opened(path), ()) == (value, "")


@pytest.mark.parametrize(
    "name", ["100%.bin", "p%41.bin", "q?.bin", "raw\udcff.bin", "a\nb", "a\rb", "a\tb", "a\x7fb", "space "]
)
def test_x_sendfile_names_nothing_that_front_servers_read_differently(name: str) -> None:
    value, reason = SENDFILE.tell(opened(f"/srv/media/{name}"), ())
    assert value is None
    assert reason == "not offloaded: front servers differ in how they read the file's name"


@pytest.mark.parametrize(
    "path",
    ["/srv/medial/a", "/srv/media", "/srv/a", "/srv/media/../a", "/srv/media/x/../a", "/srv/../srv/media/a", "/a"],
)
@pytest.mark.parametrize("offload", [ACCEL, SENDFILE])
def test_what_lies_elsewhere_or_may_lie_elsewhere_is_ours_to_send(offload: Offload, path: str) -> None:
    value, reason = offload.tell(opened(path), ())
    assert value is None
    assert reason.startswith("not offloaded: the ")


def test_the_innermost_directory_counts() -> None:
    offload = Offload("x-accel-redirect", {"/": "/_all/", "/srv/media/": "/_media/", "/srv": "/"})
    assert offload.header == "X-Accel-Redirect"
    told = [offload.tell(opened(path), ()).value for path in ("/etc/a", "/srv/a", "/srv/media/a", "/srv/medial/a")]
    assert told == ["/_all/etc/a", "/a", "/_media/a", "/medial/a"]


def test_another_mount_has_another_name() -> None:
    offload = Offload("X-Sendfile", {"/srv/media": "/mnt/media"})
    assert offload.tell(opened("/srv/media/a b"), ()).value == "/mnt/media/a b"


def test_a_name_of_the_front_servers_is_encoded_too() -> None:
    offload = Offload("X-Accel-Redirect", {"/srv/media": "/my files/100%"})
    assert offload.tell(opened("/srv/media/a"), ()).value == "/my%20files/100%25/a"


@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1))
def test_no_name_can_end_the_field(name: str) -> None:
    for offload in ACCEL, SENDFILE:
        value = offload.tell(opened(f"/srv/media/{name}/x"), ()).value
        assert value is None or re.fullmatch(r"/[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff]", value)


# --- the answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "length"), [("GET", 10), ("HEAD", 0)])
def test_an_offloaded_file_is_named_and_not_sent(path: Path, method: str, length: int) -> None:
    answer = plan(path, method, filename="report.bin", max_age=60, fields=[("Set-Cookie", "a=1")])
    assert (answer.status, answer.segments, answer.offloaded, answer.promised) == (200, (), length, length)
    assert dict(answer.fields) == {
        "Set-Cookie": "a=1",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": 'attachment; filename="report.bin"',
        "Cache-Control": "max-age=60",
        "ETag": answer.fields[4][1],
        "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
        "X-Accel-Redirect": "/_media/a%20file.bin",
        "Content-Length": "0",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"range": "bytes=2-3"},
        {"range": "bytes=99-"},
        {"if_none_match": "*"},
        {"if_match": '"other"'},
        {"if_modified_since": "Tue, 14 Nov 2023 22:13:20 GMT"},
    ],
)
def test_conditions_and_ranges_are_the_front_servers(path: Path, fields: dict[str, str]) -> None:
    answer = plan(path, request=RequestHead("GET", **fields), header="X-Sendfile")
    assert answer.status == 200
    assert values_of(answer.fields, "X-Sendfile") == ["/_media/a file.bin"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"window": {"offset": 1}}, "a part of the file is sent"),
        ({"window": {"count": 10}}, "a part of the file is sent"),
        ({"coding": "gzip"}, "the content is encoded"),
        ({"fields": [("content-encoding", "gzip")]}, "the content is encoded"),
        ({"fields": [("accept-ranges", "none")]}, "no range may be answered"),
    ],
)
def test_what_no_front_server_may_send_is_sent_here_and_it_is_said_why(
    path: Path, options: dict[str, Any], reason: str
) -> None:
    answer = plan(path, **options)
    assert (answer.offloaded, answer.not_offloaded) == (None, f"not offloaded: {reason}")
    assert answer.segments
    assert values_of(answer.fields, "X-Accel-Redirect") == []


def test_what_has_no_path_is_sent_here(path: Path) -> None:
    with path.open("rb") as stream, open_file(stream, closefd=False) as file:
        for content in file, MemoryFile(b"0123456789"):
            answer = plan_file_response(RequestHead("GET"), content, offload=Offload("X-Sendfile", [path.parent]))
            assert answer.not_offloaded == "not offloaded: the file was given open"


@pytest.mark.parametrize(("method", "status"), [("POST", 200), ("GET", 404), ("GET", 201)])
def test_another_method_or_status_is_not_offloaded(path: Path, method: str, status: int) -> None:
    answer = plan(path, method, status=status)
    assert (answer.status, answer.body_length, answer.offloaded) == (status, 10, None)


def test_fields_that_the_front_server_says_itself_are_left_out(path: Path) -> None:
    fields = [("Accept-Ranges", "bytes"), ("x-accel-redirect", "/elsewhere")]
    answer = plan(path, fields=fields)
    assert values_of(answer.fields, "Accept-Ranges") == []
    assert values_of(answer.fields, "X-Accel-Redirect") == ["/_media/a%20file.bin"]


# --- what a deployer writes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "directories"),
    [
        ("X-Accel-Redirect /srv/media=/_media", {"/srv/media": "/_media"}),
        ('x-accel-redirect /srv/media=/_m "/srv/my files=/_my"', {"/srv/media": "/_m", "/srv/my files": "/_my"}),
        ("X-Accel-Redirect /srv/a=b=/_m", {"/srv/a=b": "/_m"}),
        ("X-Sendfile /srv/media", {"/srv/media": "/srv/media"}),
        ("X-Sendfile /srv/media=/mnt/media /srv/a=b", {"/srv/media": "/mnt/media", "/srv/a=b": "/srv/a=b"}),
    ],
)
def test_words_as_in_a_shell_say_the_same(
    text: str, directories: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offload_of(text) == Offload(text.split()[0], directories)
    monkeypatch.setenv(SETTING, text)
    assert offload_of() == offload_of("") == offload_of(text)
    assert offload_of(ACCEL) == ACCEL
    assert offload_of(False) is None


def test_without_a_word_nothing_is_offloaded() -> None:
    assert offload_of() is offload_of("") is offload_of(None) is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (" ", "header: ''"),
        ("X-Sendfile", "none is given"),
        ("X-Lighttpd-Send-File /srv/media", "header: 'X-Lighttpd-Send-File'"),
        ("X-Accel-Redirect /srv/media", "needs the front server's name"),
        ("X-Accel-Redirect media=/_media", "'media'"),
        ("X-Accel-Redirect /srv/../media=/_media", "'/srv/../media'"),
        ("X-Accel-Redirect /srv/media=/_media/..", "'/_media/..'"),
        ("X-Sendfile media", "'media'"),
        ("X-Sendfile '/srv/media", "No closing quotation"),
        (7, "7"),
        (True, "True"),
    ],
)
def test_a_mistake_is_named(text: object, mistake: str) -> None:
    with pytest.raises(SettingError, match=re.escape(mistake)) as caught:
        offload_of(text)
    assert str(caught.value).startswith(f"{SETTING}: {text!r}")


@pytest.mark.parametrize("door", ["asgi", "wsgi", "starlette", "flask", "django"])
def test_no_door_loads_with_a_mistake_in_the_environment(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "X-Sendfile media")
    run = subprocess.run([sys.executable, "-c", f"import zcresponse.{door}"], capture_output=True, text=True)
    assert run.returncode == 1
    assert f"SettingError: {SETTING}: 'X-Sendfile media': directories: 'media'" in run.stderr


@pytest.mark.parametrize(
    "directories",
    [
        "/srv/media",
        Path("/srv/media"),
        {},
        [],
        ["media"],
        [b"/srv/media"],
        {"/srv/media": "media"},
        {"/srv/media": b"/media"},
        {"/srv/media": None},
    ],
)
def test_directories_that_cannot_be_meant_are_refused(directories: Any) -> None:
    with pytest.raises(ValueError, match="directories: "):
        Offload("X-Sendfile", directories)


def test_an_offload_is_a_value() -> None:
    same = Offload("x-sendfile", [Path("/srv/media/")])
    assert same == SENDFILE != ACCEL
    assert hash(same) == hash(SENDFILE)
    with pytest.raises(AttributeError):
        same.header = "X-Other"  # type: ignore[misc]
