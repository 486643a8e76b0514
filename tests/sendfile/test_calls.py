from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from zcresponse.sendfile import CLIENT_GONE, is_refusal, send_region


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(4 * 1024 * 1024))
    return path


def test_a_region_reaches_the_socket_and_the_position_stays(path: Path) -> None:
    near, far = socket.socketpair()
    with near, far, path.open("rb") as file:
        near.setblocking(False)
        file.seek(99)
        assert send_region(near.fileno(), file.fileno(), 1000, 500) == 500
        assert far.recv(1000) == path.read_bytes()[1000:1500]
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) >= 99


def test_a_full_socket_is_none_and_what_was_counted_arrives(path: Path) -> None:
    near, far = socket.socketpair()
    with near, far, path.open("rb") as file:
        near.setblocking(False)
        sent = 0
        while (taken := send_region(near.fileno(), file.fileno(), sent, 10**9)) is not None:
            assert taken > 0
            sent += taken
        near.close()
        received = b"".join(iter(lambda: far.recv(65536), b""))
    assert received == path.read_bytes()[:sent]
    assert 0 < sent < path.stat().st_size


def test_the_end_of_the_file_is_zero(path: Path) -> None:
    near, far = socket.socketpair()
    with near, far, path.open("rb") as file:
        assert send_region(near.fileno(), file.fileno(), path.stat().st_size, 10) == 0


def test_a_closed_peer_is_an_errno_of_a_client_that_left(path: Path) -> None:
    near, far = socket.socketpair()
    with near, path.open("rb") as file:
        far.close()
        with pytest.raises(OSError) as caught:
            send_region(near.fileno(), file.fileno(), 0, 10)
    assert caught.value.errno in CLIENT_GONE
    assert not is_refusal(caught.value)


def test_a_source_that_the_kernel_cannot_send_is_told_apart() -> None:
    near, far = socket.socketpair()
    read, write = os.pipe()
    with near, far:
        with pytest.raises(OSError) as caught:
            send_region(near.fileno(), read, 0, 10)
    os.close(read)
    os.close(write)
    assert is_refusal(caught.value)
