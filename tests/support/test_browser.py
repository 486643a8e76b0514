"""The browser does what it is told, and what goes wrong in a page is an error here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.browser import Page, PageFailed, chromium
from tests.support.servers import Server, wait_until

PAGE = """<!doctype html>
<form><input name="word"><button>Send</button></form>
<script>document.write(new URLSearchParams(location.search).get("word"))</script>
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("pages")
    Path(directory, "index.html").write_text(PAGE)
    with servers.http_server(directory) as server:
        yield server


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium(timeout=10) as page:
        yield page


def test_a_form_is_filled_and_sent(page: Page, server: Server) -> None:
    address = f"http://127.0.0.1:{server.port}/"
    page.go(address)
    page.submit(word="half done & more")
    assert page.url == f"{address}?word=half+done+%26+more"
    assert page.evaluate("document.body.innerText").strip().endswith("half done & more")
    assert [each["status"] for each in page.responses if each["url"].startswith(f"{address}?")] == [200]


def test_a_promise_is_waited_for(page: Page) -> None:
    assert page.evaluate("new Promise(resolve => setTimeout(() => resolve([1, 'two']), 50))") == [1, "two"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("throw new Error('because')", "because"),
        ("Promise.reject('because')", "because"),
        ("new Promise((", "SyntaxError"),
        ("nothing.at.all", "ReferenceError"),
    ],
)
def test_a_script_that_fails_is_an_error_that_tells_it(page: Page, script: str, told: str) -> None:
    with pytest.raises(PageFailed, match=told):
        page.evaluate(script)


def test_a_page_that_cannot_be_had_is_an_error(page: Page) -> None:
    with pytest.raises(PageFailed, match="ERR_NAME_NOT_RESOLVED"):
        page.go("http://example.org/")


def test_what_does_not_come_in_time_is_an_error_and_nothing_runs_on() -> None:
    with pytest.raises(PageFailed, match=r"Runtime\.evaluate: nothing in") as raised:
        with chromium(timeout=10) as page:
            group = page._process.pid
            page._timeout = 0.5
            page.evaluate("new Promise(() => {})")
    # What Chromium wrote.
    assert raised.value.__notes__
    wait_until(lambda: not members_of(group), what="its processes to be gone")


def members_of(group: int) -> list[int]:
    """The processes of a group, zombies left out."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state != "Z":
            members.append(int(stat.parent.name))
    return members
