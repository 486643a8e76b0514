from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.servers import wait_until
from zcresponse.errors import FileTruncatedError
from zcresponse.files import FileRegion, OpenedFile, open_file, places, reading
from zcresponse.files.linux import Storage
from zcresponse.plan import Segment
from zcresponse.wsgi.chunks import BLOCK, Block, Chunks, OnClose, read_whole

CONTENT = os.urandom(4 * BLOCK + 7)
SIZE = len(CONTENT)

Ending = tuple[int | None, bool | None, BaseException | None]


class Endings(list[Ending]):
    """What `on_close` was told, each time it was called."""

    def __call__(self, taken: int | None, completed: bool | None, error: BaseException | None) -> None:
        self.append((taken, completed, error))


@pytest.fixture
def endings() -> Endings:
    return Endings()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[OpenedFile]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with open_file(path) as file:
        yield file


def chunks_of(segments: Sequence[Segment], on_close: OnClose, on_error: Callable[[], object] = lambda: None) -> Chunks:
    """A body for a server without greenlets."""
    return Chunks(segments, None, on_error=on_error, on_close=on_close)


def content_of(segments: tuple[Segment, ...]) -> bytes:
    return b"".join(
        CONTENT[segment.offset : segment.offset + segment.count] if isinstance(segment, FileRegion) else segment
        for segment in segments
    )


# --- what it gives ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "stop", "sizes"),
    [
        (0, 0, []),
        (0, 1, [1]),
        (5, BLOCK + 5, [BLOCK]),
        (5, BLOCK + 6, [BLOCK, 1]),
        (0, SIZE, [BLOCK] * 4 + [7]),
        (SIZE - 1, SIZE, [1]),
    ],
)
def test_a_region_comes_in_large_blocks(
    file: OpenedFile, endings: Endings, start: int, stop: int, sizes: list[int]
) -> None:
    blocks = list(chunks_of((file.region(start, stop),), endings))
    assert list(map(len, blocks)) == sizes
    assert b"".join(blocks) == CONTENT[start:stop]


def test_a_small_body_is_one_block_however_many_parts_it_has(file: OpenedFile, endings: Endings) -> None:
    segments = (b"head", file.region(0, 100), b"", b"between", file.region(50, 60), b"tail")
    assert list(chunks_of(segments, endings)) == [content_of(segments)]


def test_the_parts_of_a_large_body_come_in_their_order(file: OpenedFile, endings: Endings) -> None:
    segments = (b"head", file.region(0, BLOCK + 1), b"between", file.region(SIZE - 3, SIZE), file.region(0, 0), b"tail")
    blocks = list(chunks_of(segments, endings))
    assert b"".join(blocks) == content_of(segments)
    assert list(map(len, blocks)) == [4, BLOCK, 1, 7, 3, 4]


def test_bytes_are_given_in_blocks_too(endings: Endings) -> None:
    blocks = list(chunks_of((CONTENT, b"tail"), endings))
    assert b"".join(blocks) == CONTENT + b"tail"
    assert max(map(len, blocks)) == BLOCK


def test_no_block_is_empty(file: OpenedFile, endings: Endings) -> None:
    # PEP 3333 lets a server take an empty block for a reason to wait.
    for segments in ((), (b"",), (file.region(3, 3),), (b"", CONTENT, b"", file.region(), b"")):
        assert b"" not in list(chunks_of(segments, endings))


def test_the_end_is_the_end_however_often_one_asks(file: OpenedFile, endings: Endings) -> None:
    chunks = chunks_of((file.region(),), endings)
    assert iter(chunks) is chunks
    assert b"".join(chunks) == CONTENT
    assert [next(chunks, None) for _ in range(3)] == [None] * 3


def test_reading_does_not_move_the_descriptor(file: OpenedFile, endings: Endings) -> None:
    os.lseek(file.fileno(), 99, os.SEEK_SET)
    one, other = (chunks_of((file.region(start, SIZE),), endings) for start in (0, BLOCK))
    pairs = list(zip(one, other, strict=False))
    assert b"".join(first for first, _ in pairs) == CONTENT[: BLOCK * len(pairs)]
    assert b"".join(second for _, second in pairs) == CONTENT[BLOCK : BLOCK + BLOCK * len(pairs)]
    assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 99


def test_nothing_is_read_before_it_is_asked_for(file: OpenedFile, endings: Endings, tmp_path: Path) -> None:
    chunks = chunks_of((file.region(),), endings)
    (tmp_path / "file").write_bytes(b"x" * SIZE)
    assert next(chunks) == b"x" * BLOCK
    (tmp_path / "file").write_bytes(b"y" * SIZE)
    assert next(chunks) == b"y" * BLOCK


@pytest.mark.parametrize("storage", Storage)
def test_every_storage_gives_the_same_bytes(
    file: OpenedFile, endings: Endings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "storage_behind", lambda fd, stat: storage)
    with open_file(file.path or "") as opened:
        assert opened.storage is storage
        assert b"".join(chunks_of((opened.region(),), endings)) == CONTENT


def test_a_cold_file_is_waited_for_where_no_greenlets_are(file: OpenedFile, endings: Endings) -> None:
    os.fsync(file.fileno())

    def is_cold() -> bool:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return not reading.are_cached(file, 0, SIZE)

    wait_until(is_cold)
    threads = os.listdir("/proc/self/task")
    assert b"".join(chunks_of((file.region(),), endings)) == CONTENT
    assert os.listdir("/proc/self/task") == threads


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "ending"),
    [
        # Nothing was asked for.
        (0, (0, False, None)),
        # The last block may have been taken in part, and whoever asks again has taken all of it.
        (1, (0, False, None)),
        (2, (BLOCK, False, None)),
        (4, (3 * BLOCK, False, None)),
        # All was given. Whether the last block was taken is not known before one asks again.
        (5, (None, None, None)),
        (6, (SIZE, True, None)),
        (9, (SIZE, True, None)),
    ],
)
def test_the_end_is_told_what_the_server_has_asked_for(
    file: OpenedFile, endings: Endings, asked: int, ending: Ending
) -> None:
    chunks = chunks_of((file.region(),), endings)
    for _ in range(asked):
        next(chunks, None)
    assert endings == []
    chunks.close()
    chunks.close()
    assert endings == [ending]


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_body_of_nothing_is_complete_without_being_asked_for(endings: Endings, asked: int) -> None:
    chunks = chunks_of((), endings)
    for _ in range(asked):
        assert next(chunks, None) is None
    chunks.close()
    assert endings == [(0, True, None)]


def test_a_closed_body_gives_nothing_more(file: OpenedFile, endings: Endings) -> None:
    chunks = chunks_of((file.region(),), endings)
    next(chunks)
    chunks.close()
    with pytest.raises(ValueError, match="closed"):
        next(chunks)
    chunks.close()
    assert endings == [(0, False, None)]


def test_what_the_listener_raises_comes_out_once(file: OpenedFile) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    chunks = chunks_of((file.region(),), fails)
    with pytest.raises(ZeroDivisionError):
        chunks.close()
    chunks.close()


@pytest.mark.parametrize(
    ("size", "blocks"), [(0, 0), (1, 0), (BLOCK - 1, 0), (BLOCK, 1), (SIZE - 8, 3), (SIZE - 7, 4), (SIZE - 1, 4)]
)
def test_a_file_that_was_cut_is_an_error_and_no_byte_more(
    file: OpenedFile, endings: Endings, size: int, blocks: int
) -> None:
    chunks = chunks_of((file.region(),), endings)
    os.truncate(file.path or "", size)
    got: list[bytes] = []
    with pytest.raises(FileTruncatedError, match=f"ended {SIZE - size} bytes before the promised end") as caught:
        got.extend(iter(lambda: next(chunks), b""))
    assert b"".join(got) == CONTENT[: blocks * BLOCK]
    # Whoever asks again gets nothing, and what is told stays the same.
    assert next(chunks, None) is None
    chunks.close()
    chunks.close()
    assert endings == [(blocks * BLOCK, False, caught.value)]


def test_a_small_body_that_was_cut_is_an_error_before_its_first_byte(file: OpenedFile, endings: Endings) -> None:
    chunks = chunks_of((b"head", file.region(10, 1000), b"tail"), endings)
    os.truncate(file.path or "", 999)
    with pytest.raises(FileTruncatedError, match="1 bytes before"):
        next(chunks)
    chunks.close()
    assert [ending[:2] for ending in endings] == [(0, False)]


def test_what_was_cut_behind_the_body_is_nobodys_concern(file: OpenedFile, endings: Endings) -> None:
    chunks = chunks_of((file.region(0, BLOCK), b"tail"), endings)
    os.truncate(file.path or "", BLOCK)
    assert b"".join(chunks) == CONTENT[:BLOCK] + b"tail"


def test_a_file_that_grows_is_given_as_promised(file: OpenedFile, endings: Endings) -> None:
    chunks = chunks_of((file.region(),), endings)
    blocks = [next(chunks)]
    with open(file.path or "", "ab") as more:
        more.write(b"more" * BLOCK)
    assert b"".join([*blocks, *chunks]) == CONTENT


@pytest.mark.parametrize("where", ["between two blocks", "at the first block"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, endings: Endings, where: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    file = open_file(path)
    chunks = chunks_of((file.region(),), endings)
    if where == "between two blocks":
        next(chunks)
    file.close()
    with pytest.raises(ValueError, match="closed file") as caught:
        next(chunks)
    chunks.close()
    assert endings == [(BLOCK if where == "between two blocks" else 0, False, caught.value)]


def test_the_server_is_told_to_hang_up_before_an_error_comes_out(file: OpenedFile, endings: Endings) -> None:
    told: list[str] = []
    chunks = chunks_of((file.region(),), endings, lambda: told.append("hang up"))
    next(chunks)
    os.truncate(file.path or "", 0)
    with pytest.raises(FileTruncatedError):
        try:
            next(chunks)
        finally:
            told.append("error")
    assert next(chunks, None) is None
    chunks.close()
    assert told == ["hang up", "error"]


@pytest.mark.parametrize("asked", [0, 2, 9])
def test_the_server_is_not_told_to_hang_up_without_an_error(file: OpenedFile, endings: Endings, asked: int) -> None:
    told: list[str] = []
    chunks = chunks_of((file.region(),), endings, lambda: told.append("hang up"))
    for _ in range(asked):
        next(chunks, None)
    chunks.close()
    assert told == []


def test_hanging_up_may_fail_without_hiding_why(file: OpenedFile, endings: Endings) -> None:
    # The client may have left already.
    def hang_up() -> None:
        with socket.socket() as unconnected:
            unconnected.shutdown(socket.SHUT_RDWR)

    chunks = chunks_of((file.region(),), endings, hang_up)
    os.truncate(file.path or "", 0)
    with pytest.raises(FileTruncatedError):
        next(chunks)
    chunks.close()
    assert [type(error) for _, _, error in endings] == [FileTruncatedError]


# --- a small body, read already ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 1000), (SIZE - 7, SIZE)])
def test_a_small_body_is_read_as_it_was_promised(file: OpenedFile, start: int, stop: int) -> None:
    assert read_whole(file.region(start, stop)) == CONTENT[start:stop]
    assert read_whole(CONTENT[start:stop]) == CONTENT[start:stop]


def test_a_small_body_that_is_not_there_any_more_is_none(file: OpenedFile) -> None:
    os.truncate(str(file.path), 10)
    with pytest.raises(FileTruncatedError, match="1 bytes before the promised end"):
        read_whole(file.region(0, 11))


def test_a_block_tells_when_it_begins_and_ends() -> None:
    told: list[str] = []

    def asked() -> Callable[[], object]:
        told.append("asked")
        return lambda: told.append("done")

    block = Block(b"abc", lambda: told.append("closed"), asked)
    assert iter(block) is block
    assert told == []
    assert [next(block), *block] == [b"abc"]
    assert list(block) == []
    block.close()
    block.close()
    assert told == ["asked", "done", "closed"]
    with pytest.raises(ValueError, match="closed"):
        next(block)


def test_a_block_whose_end_fails_is_closed_all_the_same() -> None:
    told: list[str] = []

    def fails() -> None:
        raise ConnectionResetError

    block = Block(b"abc", lambda: told.append("closed"), lambda: fails)
    assert list(block) == [b"abc"]
    with pytest.raises(ConnectionResetError):
        block.close()
    assert told == ["closed"]
