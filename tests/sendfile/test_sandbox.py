"""What a container's seccomp filter forbids is done in another way."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sandbox import CALLS
from tests.support.servers import ROOT, uvicorn
from zcresponse.sendfile import is_refusal

MIB = 1024 * 1024
CONTENT = random.Random("sandbox").randbytes(3 * MIB + 1)
ERRORS = ["ENOSYS", "EPERM", "EACCES"]

COPIES = """
import os, socket, sys, threading
from tests.support.sandbox import CALLS, forbid
from zcresponse.sendfile import copy_file, sendfile

def send(source):
    near, far = socket.socketpair()
    got = bytearray()
    reader = threading.Thread(target=lambda: [got.extend(part) for part in iter(lambda: far.recv(65536), b"")])
    reader.start()
    with near:
        sendfile(near, source)
    reader.join()
    return got

error, path, copy = sys.argv[1:]
content = open(path, "rb").read()
forbid(error, *CALLS)
with open(path, "rb") as file, open(copy, "wb") as target:
    assert send(file) == content
    assert file.tell() == len(content)
    assert copy_file(file, target) == len(content)
outlet, inlet = os.pipe()
with open(inlet, "wb") as pipe:
    pipe.write(content[:50_000])
assert send(outlet) == content[:50_000]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("error", ERRORS)
def test_files_and_pipes_are_read_where_a_sandbox_forbids_the_calls(path: Path, error: str) -> None:
    copy = path.with_name("copy")
    subprocess.run([sys.executable, "-X", "dev", "-c", COPIES, error, path, copy], cwd=ROOT, check=True)
    assert copy.read_bytes() == CONTENT


@pytest.mark.parametrize("forbidden", ["sendfile", "preadv2", "openat2", " ".join(CALLS)])
@pytest.mark.parametrize("error", ERRORS)
def test_a_servers_answers_are_exact_where_a_sandbox_forbids_calls(path: Path, error: str, forbidden: str) -> None:
    path.with_name("small").write_bytes(CONTENT[:1024])
    env = {"FORBIDDEN": f"{error} {forbidden}", "VAULT": str(path.parent)}
    http = "zcresponse.uvicorn:ZeroCopyProtocol"
    with uvicorn("tests.support.apps:app", http=http, module="tests.support.sandbox", env=env) as server:
        with server.connect() as connection:
            for _ in range(2):
                assert connection.get("/file/file").body == CONTENT
                assert connection.get("/file/small").body == CONTENT[:1024]
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(("error", "refused"), [("EPERM", True), ("EIO", True), ("EPIPE", False), ("EAGAIN", False)])
def test_a_client_that_left_and_a_full_socket_are_no_refusals(error: str, refused: bool) -> None:
    assert is_refusal(OSError(getattr(errno, error), error)) is refused
