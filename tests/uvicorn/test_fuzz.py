"""Clients that do everything a client can do, in any order, against a model that knows each byte that may come back.

A `Chat` is one connection: it draws requests (whole, ranges, conditions, HEAD, bodies, HTTP/1.0, scripts), writes them
pipelined and in pieces, reads at its own pace or leaves, and compares what arrives with what the model wants. Many run
at once, while `_meddle` replaces, cuts and extends files and drops their pages from memory.

A failure names its seed. The same seed draws the same requests again, but not the same timing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn

from tests.support import servers
from tests.support.sites import COMBINATIONS, Setup, Site, running, script, vault
from tests.support.table import parse_multipart

_KIB, _MIB = 1024, 1024 * 1024

#: Around every threshold there is: joined with the head or not, the first chunk, shares, turns, and more than buffers.
_SIZES = [0, 1, 1000, *(size + more for size in (32 * _KIB, 64 * _KIB, 256 * _KIB, _MIB) for more in (-1, 0, 1)),
          128 * _KIB, 5 * _MIB]  # fmt: skip
_STEADY = {f"steady-{size}.bin": size for size in _SIZES}
#: Replaced by rename: each size is a content of its own. Cut and extended in place: all sizes share their first bytes.
_RENAMED = [f"renamed-{number}.bin" for number in range(4)]
_INPLACE = [f"inplace-{number}.bin" for number in range(4)]
#: What every version of those has at least.
_LEAST = 64 * _KIB

_BLOB = memoryview(random.Random("blob").randbytes(9 * _MIB))

_GARBAGE = [
    b"\x00\x01\x02garbage\r\n\r\n",
    b"GET\r\n\r\n",
    b"\r\n\r\n\r\n@@@@ / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nA b\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"\xff" * 100_000,
]

_CONDITIONS = [
    (("If-None-Match", "*"), 304),
    (("If-None-Match", '"a", W/"b"'), 200),
    (("If-Match", '"nope"'), 412),
    (("If-Match", "*"), 200),
    (("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"), 304),
    (("If-Modified-Since", "nonsense"), 200),
    (("If-Unmodified-Since", "Fri, 01 Jan 1999 00:00:00 GMT"), 412),
]

_IGNORED_RANGES = ["bytes=", "lines=1-2", "bytes=5-1", "bytes=a-b", "bytes=0-0,x", "bytes" + "=" * 50, "," * 3000,
                   "bytes=" + ",".join(f"{at}-{at}" for at in range(0, 1200, 2))]  # fmt: skip

#: uvicorn before 0.53 knows but the small one when it writes by httptools: where an answer comes before the end of the
#: request's body, it never closes for the other.
_CLOSE = ["close", "Close"] if tuple(map(int, uvicorn.__version__.split(".")[:2])) >= (0, 53) else ["close"]


def _content(name: str, size: int) -> memoryview:
    """The bytes of the file of that name when it has that size."""
    start = random.Random(name if name in _INPLACE else f"{name} {size}").randrange(3 * _MIB)
    return _BLOB[start : start + size]


class Wrong(AssertionError):
    """The server sent what it must not, or nothing."""


class Ended(Exception):
    """The conversation is over: the client left, or the server ended it."""


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Want:
    """A request and what has to answer it.

    Attributes:
        method: Its method.
        head, body: What is written.
        name: The file that is the body of a 200 or 206, or "" where `text` is.
        status: The only right status.
        ranges: The parts of a 206, as intervals.
        closes: Whether the server has to close after the answer.
        pauses: Whether the application awaits between the head and the file.
    """

    method: str
    head: bytes
    body: bytes
    name: str
    status: int
    text: bytes = b""
    ranges: Sequence[tuple[int, int]] = ()
    closes: bool = False
    pauses: bool = False


@dataclass
class World:
    """What is served where, and what happened.

    Attributes:
        site: The server.
        path: Where files are, with a place for the name.
        scripts: Whether `/script` is there.
        post: The status of a POST to a file.
        meddled: The files that change while they are served.
        deadline: When slow readers give up.
    """

    site: Site
    path: str
    scripts: bool
    post: int
    meddled: Sequence[str]
    deadline: float = 0.0
    wrong: list[str] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)


class _Author:
    """Draws requests."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self.dice = dice

    def draw(self, *, last: bool) -> Want:
        """A request; only the last one of a connection may ask to close it."""
        dice, world = self.dice, self.world
        self.fields = [("Host", "a")]
        self.version, self.closes = "1.1", False
        if last and dice.random() < 0.4:
            self.closes = True
            if dice.random() < 0.4:
                self.version = "1.0"
            else:
                self.fields.append(("Connection", dice.choice(_CLOSE)))
        if dice.random() < 0.3:
            self.fields.append(("Accept-Encoding", dice.choice(["gzip", "br, gzip", "identity"])))
        if dice.random() < 0.1:
            # h11 refuses heads above 16 KiB that come in pieces.
            self.fields.append(("X-Long", "y" * dice.choice([10, 1000, 5000])))
        kind = dice.random()
        if kind < 0.04:
            return self._want("GET", "/nothing", "", 404)
        if world.scripts and kind < 0.12 and self.version == "1.1":
            return self._script()
        name = dice.choice([*_STEADY, *world.meddled])
        size = _STEADY.get(name, _LEAST)
        path = world.path.format(name)
        if kind < 0.2:
            return self._want("HEAD", path, name, 200)
        if kind < 0.28 and self.version == "1.1":
            return self._want("POST", path, name if world.post == 200 else "", world.post, body=self._body())
        if kind < 0.36:
            condition, status = dice.choice(_CONDITIONS)
            self.fields.append(condition)
            return self._want("GET", path, name, status)
        if kind < 0.65:
            return self._ranged(path, name, size)
        return self._want("GET", path, name, 200)

    def _want(
        self,
        method: str,
        target: str,
        name: str,
        status: int,
        *,
        body: bytes = b"",
        text: bytes = b"",
        ranges: Sequence[tuple[int, int]] = (),
        pauses: bool = False,
    ) -> Want:
        self.dice.shuffle(self.fields)
        lines = [f"{method} {target} HTTP/{self.version}", *(f"{key}: {value}" for key, value in self.fields), "", ""]
        head = "\r\n".join(lines).encode()
        return Want(method, head, body, name, status, text, ranges, self.closes, pauses)

    def _body(self) -> bytes:
        dice = self.dice
        body = dice.randbytes(dice.choice([0, 1, 100, 5000, 70_000, 200_000]))
        if dice.random() < 0.3:
            self.fields.append(("Expect", "100-continue"))
        if dice.random() < 0.5:
            self.fields.append(("Content-Length", str(len(body))))
            return body
        self.fields.append(("Transfer-Encoding", "chunked"))
        step = dice.choice([1 + len(body) // 20, 65536])
        pieces = [body[at : at + step] for at in range(0, len(body), step)]
        return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    def _ranged(self, path: str, name: str, size: int) -> Want:
        dice = self.dice
        kind = dice.random()
        if kind < 0.15 or size < 8:
            # Of an empty file no range is satisfiable; what is ignored is ignored there as well.
            self.fields.append(("Range", dice.choice(_IGNORED_RANGES)))
            return self._want("GET", path, name, 200)
        if kind < 0.2 and name in _STEADY:
            self.fields.append(("Range", f"bytes={size}-"))
            return self._want("GET", path, name, 416)
        if kind < 0.5:
            points = sorted(dice.sample(range(size), min(2 * dice.choice([2, 3, 10, 100]), size // 2 * 2 - 2)))
            # Distinct points: the ranges neither overlap nor touch.
            ranges = list(zip(points[::2], points[1::2], strict=True))
            if dice.random() < 0.5:
                dice.shuffle(ranges)
        else:
            start = dice.choice([0, 1, dice.randrange(size), size - 1])
            ranges = [(start, dice.choice([size, start + 1, dice.randrange(start, size) + 1]))]
        self.fields.append(("Range", "bytes=" + ", ".join(f"{start}-{stop - 1}" for start, stop in ranges)))
        if dice.random() < 0.1:
            self.fields.append(("If-Range", '"nope"'))
            return self._want("GET", path, name, 200)
        return self._want("GET", path, name, 206, ranges=ranges)

    def _script(self) -> Want:
        dice = self.dice
        if dice.random() < 0.3:
            text = b"ab" * dice.choice([1, 50_000])
            fields = dice.choice([[], [["content-length", str(len(text))]]])
            steps = [["start", 200, fields], ["body", "ab", len(text) // 2, False]]
            return self._want("GET", script(*steps), "", 200, text=text)
        name, size = dice.choice([each for each in _STEADY.items() if each[1]])
        steps = [["start", 200, dice.choice([[], [["content-length", str(size)]]])], ["path", name, {}]]
        if dice.random() < 0.5:
            return self._want("GET", script(*steps), name, 200)
        body = self._body()
        steps.insert(dice.choice([0, 1]), ["read"])
        return self._want("POST", script(*steps), name, 200, body=body, pauses=True)


# --- connections ------------------------------------------------------------------------------------------------------


class Chat:
    """One connection, from its begin to its end.

    Its mood: `polite` reads all; `leave` goes after so many bytes, perhaps in the middle of a request; `garbage` writes
    nonsense behind its requests; `half` closes its sending side behind them.
    """

    def __init__(self, world: World, seed: object) -> None:
        self.world = world
        self.seed = seed
        self.dice = dice = random.Random(repr(seed))
        self.mood = dice.choices(["polite", "leave", "garbage", "half"], [12, 6, 3, 2])[0]
        self.pace = dice.choices(["fast", "slow", "stall", "tiny"], [6, 1, 1, 2])[0]
        self.leaves_after = dice.choice([0, 0, 1, 100, 500, 40_000, 70_000, 300_000, 1_500_000, 4_000_000])
        self.wants: list[Want] = []
        self.answered = 0
        self.received = 0
        self._answer_began = 0
        self._unfinished = False  # whether the requests are cut short
        self._paused_s = 0.0
        self._buffer = bytearray()

    async def run(self) -> None:
        """Talk.

        Raises:
            Wrong: The server did what it must not.
        """
        dice = self.dice
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if dice.random() < 0.3:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, dice.choice([1024, 4096, 16384]))
        try:
            await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self.world.site.server.port))
            await self._talk()
            self._expect_silence()
        except (Ended, OSError) as end:
            self._judge_end(end)
        finally:
            if dice.random() < (0.1 if self.mood == "polite" else 0.5):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.socket.close()
            self.world.happened[self.mood] += 1

    async def _talk(self) -> None:
        dice = self.dice
        author = _Author(self.world, dice)
        for _ in range(dice.choice([1, 1, 2, 3])):
            count = dice.choice([1, 1, 1, 2, 3, 6])
            self.wants = [author.draw(last=number == count - 1 and dice.random() < 0.3) for number in range(count)]
            self.answered = 0
            self._unfinished = self.mood == "leave" and dice.random() < 0.2
            async with self._written():
                for want in self.wants:
                    await self._answer(want)
                    self.answered += 1
                    self.world.happened["answers"] += 1
            if self.wants[-1].closes or self.mood == "half":
                await self._expect_end()
            if self.mood == "garbage":
                await self._expect_refusal()
            if dice.random() < 0.2:
                await asyncio.sleep(dice.choice([0, 0.001, 0.05]))

    # --- writing ---

    @contextlib.asynccontextmanager
    async def _written(self) -> AsyncIterator[None]:
        """Write the requests while the block reads the answers."""
        writing = asyncio.ensure_future(self._write())
        try:
            yield
            try:
                await asyncio.wait_for(writing, 10)
            except TimeoutError:
                raise Wrong(f"the request was not taken for 10 s: {self._where()}") from None
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    async def _write(self) -> None:
        dice = self.dice
        data = b"".join(want.head + want.body for want in self.wants)
        if self.mood == "garbage":
            data += dice.choice(_GARBAGE)
        if self._unfinished:
            data = data[: dice.randrange(len(data))]
        cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice([0, 0, 1, 2, 5])))
        # What becomes of it is seen by the reader.
        with contextlib.suppress(OSError):
            for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
                await asyncio.get_running_loop().sock_sendall(self.socket, data[start:stop])
                await asyncio.sleep(dice.choice([0, 0, 0.001, 0.01]))
            if self.mood == "half":
                await asyncio.sleep(dice.choice([0, 0.005, 0.05]))
                self.socket.shutdown(socket.SHUT_WR)

    # --- reading ---

    async def _fill(self) -> None:
        leaves = self.mood == "leave" and self.received >= self.leaves_after
        if leaves or time.monotonic() > self.world.deadline:
            raise Ended("left")
        size = 256 * _KIB
        if self.pace == "tiny":
            size = self.dice.choice([1, 10, 1000, 65536]) if self.received < 200_000 else 65536
        elif self.pace != "fast" and self._paused_s < 0.5:
            size = 30_000
            pause = self.dice.choice([0, 0.01, 0.03]) if self.pace == "slow" else self.dice.choice([0, 0, 0, 0.25])
            self._paused_s += pause
            await asyncio.sleep(pause)
        # A disk that others write to can take many seconds for a cold page.
        patience = 0.3 if self._unfinished else 30.0
        try:
            receiving = asyncio.get_running_loop().sock_recv(self.socket, size)
            data = await asyncio.wait_for(receiving, patience)
        except TimeoutError:
            if self._unfinished:
                raise Ended("left") from None
            raise Wrong(f"nothing arrived for {patience} s: {self._where()}") from None
        if not data:
            raise Ended("closed")
        self.received += len(data)
        self._buffer += data

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._fill()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _take_line(self, end: bytes) -> bytes:
        while (at := self._buffer.find(end)) < 0:
            if len(self._buffer) > 70_000:
                raise Wrong(f"no end in {bytes(self._buffer[:200])!r}: {self._where()}")
            await self._fill()
        return (await self._take(at + len(end)))[:at]

    async def _head(self) -> tuple[int, dict[str, str]]:
        status = 100
        while status == 100:
            status_line, *lines = (await self._take_line(b"\r\n\r\n")).split(b"\r\n")
            found = re.fullmatch(rb"HTTP/1\.1 (\d{3}) ?[^\r\n]*", status_line)
            if found is None:
                raise Wrong(f"{status_line[:200]!r} is no status line: {self._where()}")
            status = int(found[1])
        fields: dict[str, str] = {}
        for line in lines:
            match = re.fullmatch(rb"([!-9;-~]+): *([^\r\n]*)", line)
            if match is None:
                raise Wrong(f"{line[:200]!r} is no field: {self._where()}")
            name = match[1].decode().lower()
            if name in fields and name != "set-cookie":
                raise Wrong(f"{name} comes twice: {self._where()}")
            fields[name] = match[2].decode("latin-1")
        return status, fields

    async def _answer(self, want: Want) -> None:
        """Read the answer to a request and hold it against what is wanted."""
        self._answer_began = self.received - len(self._buffer)
        status, fields = await self._head()
        if status == 400 and self.mood == "garbage":
            raise Ended("refused")
        if status != want.status:
            raise Wrong(f"{status} {fields} instead of {want.status}: {self._where()}")
        chunked = fields.get("transfer-encoding") == "chunked"
        if chunked == ("content-length" in fields) and status != 304:
            raise Wrong(f"neither one nor the other framing {fields}: {self._where()}")
        if want.method == "HEAD" or status == 304:
            if want.name in _STEADY and status == 200 and fields["content-length"] != str(_STEADY[want.name]):
                raise Wrong(f"the length {fields}: {self._where()}")
            return
        if "content-encoding" in fields and status in (200, 206) and want.name:
            raise Wrong(f"a file was encoded {fields}: {self._where()}")
        if chunked or status not in (200, 206) or not want.name or len(want.ranges) > 1:
            body = await self._collect(want) if chunked else await self._take(int(fields["content-length"]))
            self._judge_body(want, fields, body)
            return
        length = int(fields["content-length"])
        start, total = 0, length
        if status == 206:
            found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", fields["content-range"])
            assert found is not None
            start, total = int(found[1]), int(found[3])
            if [(start, int(found[2]) + 1)] != want.ranges or length != int(found[2]) + 1 - start:
                raise Wrong(f"the range {fields}: {self._where()}")
        self._judge_size(want, total)
        # Compared as it comes: what comes before an end has to be right too.
        stop = start + length
        while start < stop:
            if not self._buffer:
                await self._fill()
            piece = await self._take(min(len(self._buffer), stop - start))
            self._judge_bytes(want, total, start, piece)
            start += len(piece)

    async def _collect(self, want: Want) -> bytes:
        body = bytearray()
        while True:
            line = await self._take_line(b"\r\n")
            if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", line):
                self._allow_refusal(want, line)
                raise Wrong(f"{line[:80]!r} is no chunk: {self._where()}")
            size = int(line, 16)
            body += await self._take(size)
            if await self._take(2) != b"\r\n":
                raise Wrong(f"no end of a chunk: {self._where()}")
            if not size:
                return bytes(body)

    # --- judging ---

    def _where(self) -> str:
        want = self.wants[self.answered] if self.answered < len(self.wants) else None
        place = f"answer {self.answered} of {len(self.wants)}, {self.received - self._answer_began} bytes of it"
        return f"{self.mood}, {self.pace}, seed {self.seed!r}, {place}, to {want and want.head[:200]!r}"

    def _judge_size(self, want: Want, total: int) -> None:
        if total != _STEADY.get(want.name, total):
            raise Wrong(f"a size of {total}: {self._where()}")

    def _judge_body(self, want: Want, fields: dict[str, str], body: bytes) -> None:
        if want.status == 206:
            parts = parse_multipart(fields["content-type"], body)
            if [(part.start, part.stop) for part in parts] != list(want.ranges):
                raise Wrong(f"other parts than asked for: {self._where()}")
            found = re.search(rb"Content-Range: bytes \d+-\d+/(\d+)", body)
            assert found is not None
            self._judge_size(want, int(found[1]))
            for part in parts:
                self._judge_bytes(want, int(found[1]), part.start, part.data)
        elif want.status == 200 and want.name:
            self._judge_size(want, len(body))
            self._judge_bytes(want, len(body), 0, body)
        elif want.status == 200 and body != want.text:
            raise Wrong(f"{len(body)} bytes instead of {len(want.text)}: {self._where()}")

    def _judge_bytes(self, want: Want, total: int, start: int, data: bytes) -> None:
        expected = _content(want.name, total)[start : start + len(data)].tobytes()
        if data == expected:
            return
        different = [at for at, (came, due) in enumerate(zip(data, expected, strict=True)) if came != due]
        # Of a file that is cut while its pages wait in the socket, what is lost is sent as zeros.
        if want.name in _INPLACE and all(data[at] == 0 for at in different):
            return
        self._allow_refusal(want, data)
        at = different[0]
        raise Wrong(f"from {start + at} of {want.name} ({total}) on {data[at : at + 60]!r}: {self._where()}")

    def _allow_refusal(self, want: Want, data: bytes) -> None:
        """Between a head and a body that the application is slow to send, uvicorn itself answers garbage by a 400."""
        if self.mood == "garbage" and want.pauses and data.startswith(b"HTTP/1.1 400 "):
            raise Ended("refused")

    async def _expect_end(self) -> None:
        # The server's word on garbage may come before it.
        if not self._buffer:
            await self._fill()
        if self.mood != "garbage" or not self._buffer.startswith(b"HTTP/1.1 400 "):
            raise Wrong(f"surplus {bytes(self._buffer[:200])!r}: {self._where()}")
        raise Ended("refused")

    async def _expect_refusal(self) -> None:
        # A 400 or the mere end; or silence, where the server takes it for the begin of something.
        with contextlib.suppress(TimeoutError):
            status, _ = await asyncio.wait_for(self._head(), 1)
            if status not in (400, 404, 405):
                raise Wrong(f"{status} for garbage: {self._where()}")
        raise Ended("refused")

    def _expect_silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._buffer += self.socket.recv(1000)
        if self._buffer:
            raise Wrong(f"surplus {bytes(self._buffer[:200])!r}: {self._where()}")

    def _judge_end(self, end: Exception) -> None:
        """Whether the server may have ended the connection here."""
        if self.mood != "polite" or str(end) == "left":
            return
        want = self.wants[self.answered] if self.answered < len(self.wants) else None
        if want is None and self.wants and self.wants[-1].closes:
            return
        if any(each.name in _INPLACE for each in self.wants):
            return
        if self.answered == 0 and 0 < self._answer_began == self.received:
            # The keep-alive time ran out before a slow reader had read the answers before.
            self.world.happened["idle too long"] += 1
            return
        if want is not None and want.closes and want.body:
            # Closed before the request was read: its unread rest makes a reset of it, as with stock uvicorn.
            return
        raise Wrong(f"the connection was ended ({end!r}): {self._where()}")


# --- everything at once -----------------------------------------------------------------------------------------------


def _put(path: Path, data: memoryview) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(data)
    new.rename(path)


async def _meddle(world: World, dice: random.Random) -> None:
    """Change files while they are served, and drop their pages."""
    while True:
        await asyncio.sleep(dice.choice([0.005, 0.02, 0.05]))
        name = dice.choice([*_STEADY, *world.meddled, *world.meddled])
        path = vault() / name
        if name in _RENAMED:
            _put(path, _content(name, dice.choice([_LEAST, 300_000, 2 * _MIB, 3 * _MIB]) + dice.randrange(1000)))
        elif name in _INPLACE:
            with path.open("r+b") as file:
                if dice.random() < 0.5:
                    file.truncate(dice.choice([_LEAST, 100_000, _MIB]))
                else:
                    file.write(_content(name, 3 * _MIB)[file.seek(0, os.SEEK_END) :])
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def _play(world: World, seed: object, seconds: float, connections: int = 40) -> None:
    stop = time.monotonic() + seconds
    world.deadline = stop + 1

    async def seat(number: int) -> None:
        turn = 0
        while time.monotonic() < stop and len(world.wrong) < 10:
            turn += 1
            try:
                await Chat(world, (seed, number, turn)).run()
            except Wrong as wrong:
                world.wrong.append(str(wrong))

    meddling = asyncio.ensure_future(_meddle(world, random.Random(repr(seed))))
    try:
        await asyncio.gather(*map(seat, range(connections)))
        assert not meddling.done(), meddling.exception()
    finally:
        meddling.cancel()


def _ticks(pid: int) -> int:
    """The processor time that a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _is_idle(site: Site) -> None:
    site.wait_idle()
    before = _ticks(site.pid)
    time.sleep(1)
    assert _ticks(site.pid) - before <= 3, "the server is busy although nobody asks for anything"


_SETUPS = [Setup("asyncio", "h11"), Setup("uvloop", "httptools"),
           Setup("asyncio", "httptools", "tests.support.apps:stacked"),
           Setup("uvloop", "h11", "tests.support.apps:wrapped", stock=True)]  # fmt: skip

_LONG = [Setup(each.loop, each.parser, f"tests.support.apps:{app}", stock)
         for app, stock in (("app", False), ("shop", False), ("based", False), ("gzipped", False), ("stacked", False),
                            ("wrapped", True), ("shop_installed", True))
         for each in COMBINATIONS]  # fmt: skip


def _fill_vault() -> None:
    for name, size in _STEADY.items():
        _put(vault() / name, _content(name, size))
    for name in (*_RENAMED, *_INPLACE):
        _put(vault() / name, _content(name, 2 * _MIB))


def _attack(setup: Setup, rounds: int, seconds: float, seed: object) -> None:
    _fill_vault()
    bare = setup.app.partition(":")[2] in ("app", "wrapped")
    path, post = ("/file/{}", 200) if bare else ("/ours/{}", 405)
    with running(setup) as site:
        world = World(site, path, scripts=bare, post=post, meddled=_RENAMED)
        sizes = []
        for number in range(rounds):
            with site.unharmed():
                asyncio.run(_play(world, (seed, number), seconds))
                assert not world.wrong, "\n".join(world.wrong)
                _is_idle(site)
            sizes.append(servers.rss_bytes(site.pid))
        # The log of files that are cut is the application's, and it is allowed to say so.
        world.meddled = _INPLACE
        asyncio.run(_play(world, (seed, "in place"), seconds))
        assert not world.wrong, "\n".join(world.wrong)
        _is_idle(site)
        log = site.log_since()
        found = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception|Warning|Group))(?:: .*)?$", log, re.MULTILINE)
        assert set(found) <= {"FileTruncatedError"}, Counter(found)
        # Of a group of exceptions, which some middleware makes, each line begins with a bar.
        assert len(re.findall(r"^Traceback ", log, re.MULTILINE)) == len(found), log[-4000:]
        site.forget_log()
        with site.unharmed():
            pass
    assert world.happened["answers"] > 50
    # The first round makes what is made once.
    assert sizes[-1] - sizes[len(sizes) > 2] < 4 * _MIB, sizes


@pytest.mark.parametrize("setup", _SETUPS, ids=str)
def test_whatever_clients_do_each_byte_is_right_and_nothing_is_left_behind(setup: Setup) -> None:
    _attack(setup, rounds=1, seconds=1, seed="short")


@pytest.mark.campaign
@pytest.mark.marathon
@pytest.mark.parametrize("setup", _LONG, ids=str)
def test_a_long_time_of_it(setup: Setup) -> None:
    _attack(setup, rounds=4, seconds=15, seed=time.time_ns())
