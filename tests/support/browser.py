"""A real browser: Debian's Chromium without a window, driven by the DevTools protocol over a pipe.

`--remote-debugging-pipe` makes Chromium read messages from descriptor 3 and write them to descriptor 4, each ended by a
NUL. So it takes neither a port nor a library. A machine without Chromium fails these tests; it does not skip them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Page", "PageFailed", "chromium"]

_FLAGS = [
    "--headless",
    # Chromium does not run as root with its sandbox.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--mute-audio",
    # It asks nobody but this machine.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
]
# The shell puts the pipes to the places that Chromium knows; its own output goes where errors go.
_SHELL = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >&2', "sh"]


class PageFailed(AssertionError):
    """A script threw, a page could not be loaded, or what was waited for did not come."""


class Page:
    """One page of a running Chromium; every wait has the page's time limit.

    Attributes:
        url: Where it is.
        responses: What DevTools told of every response that the page got, in order: `url`, `status`, `headers`, ...
    """

    def __init__(self, process: subprocess.Popen[bytes], timeout: float) -> None:
        self.responses: list[dict[str, Any]] = []
        self._process = process
        self._timeout = timeout
        self._received = bytearray()
        self._last = 0
        self._loaded = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result.

        Raises:
            PageFailed: It answered with an error, or not in time.
        """
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        until = time.monotonic() + self._timeout
        while (answer := self._receive(until, method)).get("id") != number:
            pass
        if "error" in answer:
            raise PageFailed(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self, until: float, what: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        while (end := self._received.find(b"\0")) < 0:
            ready, _, _ = select.select([out], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise PageFailed(f"{what}: nothing in {self._timeout} s")
            data = os.read(out, 1 << 20)
            if not data:
                raise PageFailed(f"{what}: Chromium ended")
            self._received += data
        message: dict[str, Any] = json.loads(self._received[:end])
        del self._received[: end + 1]
        if message.get("method") == "Network.responseReceived":
            self.responses.append(message["params"]["response"])
        elif message.get("method") == "Page.loadEventFired":
            self._loaded += 1
        return message

    @property
    def url(self) -> str:
        return str(self.evaluate("location.href"))

    def go(self, url: str) -> None:
        """Load a page and wait for all that its load event waits for."""
        before = self._loaded
        failed = self.call("Page.navigate", url=url).get("errorText")
        if failed:
            raise PageFailed(f"{url}: {failed}")
        self._wait_loaded(before, url)

    def submit(self, form: str = "form", **values: str) -> None:
        """Fill the fields of a form, send it by its button, and wait for the page that it leads to.

        Args:
            form: A selector.
            values: The fields' values by name.
        """
        before = self._loaded
        self.evaluate(
            f"""{{
                const form = document.querySelector({json.dumps(form)});
                for (const [name, value] of Object.entries({json.dumps(values)})) form.elements[name].value = value;
                form.querySelector("button").click();
            }}"""
        )
        self._wait_loaded(before, form)

    def _wait_loaded(self, before: int, what: str) -> None:
        until = time.monotonic() + self._timeout
        while self._loaded == before:
            self._receive(until, what)

    def evaluate(self, expression: str) -> Any:
        """Run JavaScript as if the user had clicked, wait for its promise, and return its value.

        Raises:
            PageFailed: It threw, or its promise was rejected or not kept in time.
        """
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"].get("exception", {})
            raise PageFailed(f"{thrown.get('description', thrown.get('value'))} in {expression}")
        return answer["result"].get("value")


@contextlib.contextmanager
def chromium(timeout: float = 30.0) -> Iterator[Page]:
    """An empty page in a Chromium of its own, with a fresh profile, ended with the block.

    Args:
        timeout: Seconds that any single wait may take.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is not installed, and without a browser nothing shows that one can seek")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as directory:
        with Path(directory, "log").open("wb") as log:
            process = subprocess.Popen(
                [*_SHELL, program, *_FLAGS, f"--user-data-dir={directory}/profile"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Its helpers are ended with it, whatever happens.
                start_new_session=True,
            )
        try:
            with process:
                try:
                    yield Page(process, timeout)
                finally:
                    _end(process)
        except PageFailed as failed:
            failed.add_note(Path(directory, "log").read_text("utf-8", "replace"))
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    # Chromium ends when nobody is left at the other end of the pipes.
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
