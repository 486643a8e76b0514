"""`zcresponse compress`, on real files with the real compressors; each result is decompressed."""

from __future__ import annotations

import gzip
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard
from click.testing import CliRunner, Result

from tests.support.asking import ask_asgi
from tests.test_cli import COMMAND, environment, one_line, run
from zcresponse.asgi import static_app
from zcresponse.commands import compressing
from zcresponse.commands.compress import command
from zcresponse.files.sidecars import SUFFIXES

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions, links and signals")

#: The command by somebody who may not read everything; root may, unless it gives that up.
_IS_ROOT = os.name == "posix" and os.geteuid() == 0
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if _IS_ROOT else []

TEXT = b"".join(b"%d: all work and no play makes %d a dull number\n" % (n, n * n) for n in range(2000))

DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".br": brotli.decompress,
    ".zst": zstandard.ZstdDecompressor().decompress,
    ".gz": gzip.decompress,
}


def compress(*args: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(command, [str(arg) for arg in args])


def noise(count: int) -> bytes:
    return random.Random(0).randbytes(count)


def beside(path: Path) -> list[str]:
    return sorted(found.suffix for found in path.parent.glob(f"{path.name}.*"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_bytes(TEXT)
    (root / "assets" / "app.js").write_bytes(TEXT * 3)
    (root / "assets" / "photo.jpg").write_bytes(TEXT)
    (root / "assets" / "noise.bin").write_bytes(noise(50_000))
    (root / "small.txt").write_bytes(TEXT[:1000])
    return root


# --- what is made -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", DECOMPRESS)
def test_a_result_decompresses_to_its_file(site: Path, suffix: str) -> None:
    assert compress(site).exit_code == 0
    for path in (site / "index.html", site / "assets" / "app.js"):
        compressed = Path(f"{path}{suffix}").read_bytes()
        assert len(compressed) < path.stat().st_size / 3
        assert DECOMPRESS[suffix](compressed) == path.read_bytes()


def test_what_gains_nothing_is_left_alone(site: Path) -> None:
    done = compress(site)
    assert beside(site / "assets" / "photo.jpg") == []
    assert beside(site / "assets" / "noise.bin") == []
    assert beside(site / "small.txt") == []
    assert "Left alone: 1 file of a compressed type, 1 file too small." in done.output


def test_several_blocks_make_one_result(site: Path) -> None:
    large = site / "large.csv"
    large.write_bytes(b"".join(b"%d;%d\n" % (n, n * n * n) for n in range(300_000)))
    assert compress(site, "--brotli-quality", "1", "--zstd-level", "1", "--gzip-level", "1").exit_code == 0
    assert large.stat().st_size > 5_000_000
    for suffix, decompress in DECOMPRESS.items():
        assert decompress(Path(f"{large}{suffix}").read_bytes()) == large.read_bytes()


def test_a_large_file_is_given_up_after_a_look_at_parts_of_it(site: Path) -> None:
    large = site / "large.bin"
    large.write_bytes(noise(5_000_000))
    began = time.process_time()
    assert compress(large.parent, "--include", "large.bin").exit_code == 0
    assert beside(large) == []
    # Whole, by brotli at its best, it takes more than ten.
    assert time.process_time() - began < 5


@posix
def test_a_result_has_the_permissions_and_the_time_of_its_file(site: Path) -> None:
    path = site / "index.html"
    path.chmod(0o640)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    compress(site)
    for suffix in DECOMPRESS:
        made = os.stat(f"{path}{suffix}")
        assert stat.S_IMODE(made.st_mode) == 0o640
        assert made.st_mtime_ns == path.stat().st_mtime_ns


def test_results_are_the_same_every_time(site: Path) -> None:
    compress(site)
    first = {path: path.read_bytes() for path in site.rglob("*") if path.suffix in DECOMPRESS}
    os.utime(site / "index.html")
    compress(site, "--force")
    assert {path: path.read_bytes() for path in first} == first
    # RFC 1952 §2.3.1: no flags, so no name, and no time.
    assert (site / "index.html.gz").read_bytes()[3:8] == bytes(5)


@pytest.mark.parametrize("level", [3, 19, 22])
def test_zstandard_windows_are_such_as_browsers_have(level: int) -> None:
    # RFC 9659 §3: 8 MiB. Level 22 alone would take more.
    size = 9 * 1024 * 1024
    compressed = b"".join(compressing._zstd(iter([bytes(size)]), level, size))
    assert zstandard.get_frame_parameters(compressed).window_size <= 8 * 1024 * 1024
    assert zstandard.ZstdDecompressor().decompress(compressed) == bytes(size)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip"])
def test_a_static_application_sends_the_results(site: Path, coding: str) -> None:
    compress(site)
    app = static_app(site, precompressed=True)
    got = ask_asgi(app, "/assets/app.js", headers=[(b"accept-encoding", coding.encode())])
    assert got.values("content-encoding") == [coding]
    assert DECOMPRESS[SUFFIXES[coding]](got.body) == TEXT * 3


# --- again ------------------------------------------------------------------------------------------------------------


def stamps(site: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_size) for path in site.rglob("*") if path.suffix in DECOMPRESS}


def test_what_is_up_to_date_is_kept(site: Path) -> None:
    compress(site)
    before = stamps(site)
    done = compress(site)
    assert stamps(site) == before
    assert re.search(r"^br +0 +2 +0 ", done.output, re.MULTILINE), done.output


def test_what_is_older_than_its_file_is_made_anew(site: Path) -> None:
    compress(site)
    (site / "index.html").write_bytes(TEXT[::-1])
    os.utime(site / "index.html", ns=(0, (site / "index.html.br").stat().st_mtime_ns + 1))
    assert compress(site).exit_code == 0
    for suffix, decompress in DECOMPRESS.items():
        assert decompress((site / f"index.html{suffix}").read_bytes()) == TEXT[::-1]


@pytest.mark.parametrize("content", [noise(20_000), b"short"])
def test_what_is_stale_and_gains_nothing_any_more_is_removed(site: Path, content: bytes) -> None:
    compress(site)
    (site / "index.html").write_bytes(content)
    os.utime(site / "index.html", ns=(0, (site / "index.html.br").stat().st_mtime_ns + 1))
    done = compress(site)
    assert done.exit_code == 0
    assert beside(site / "index.html") == []
    assert re.search(r"^gzip +0 +1 +1 ", done.output, re.MULTILINE), done.output


def test_an_empty_result_which_no_server_uses_is_made_anew(site: Path) -> None:
    (site / "index.html.br").touch()
    compress(site)
    assert brotli.decompress((site / "index.html.br").read_bytes()) == TEXT


def test_force_makes_everything_anew(site: Path) -> None:
    compress(site, "--brotli-quality", "0")
    before = (site / "index.html.br").stat().st_size
    compress(site)
    assert (site / "index.html.br").stat().st_size == before
    compress(site, "--force")
    assert (site / "index.html.br").stat().st_size < before


# --- newer than their files -------------------------------------------------------------------------------------------


def roll_back(path: Path, content: bytes) -> None:
    """Put an older version in the place of a file, with its time, as `cp -p`, `tar` and `rsync -t` do."""
    older = path.stat().st_mtime_ns - 10_000_000_000
    path.write_bytes(content)
    os.utime(path, ns=(older, older))


@pytest.mark.parametrize("content", [TEXT[::-1], TEXT[:-1], TEXT + b"x", TEXT[:50_000] + b"x" + TEXT[50_001:]])
def test_what_was_made_of_a_version_that_was_taken_back_is_found_and_made_anew(site: Path, content: bytes) -> None:
    compress(site)
    roll_back(site / "index.html", content)
    done = compress(site, "--check", "--quiet")
    assert done.exit_code == 1
    assert done.output.splitlines() == [f"stale: {site}/index.html{suffix}" for suffix in (".br", ".gz", ".zst")]
    assert compress(site).exit_code == 0
    for suffix, decompress in DECOMPRESS.items():
        assert decompress((site / f"index.html{suffix}").read_bytes()) == content
    assert compress(site, "--check").exit_code == 0


def test_what_gains_nothing_since_it_was_taken_back_is_removed(site: Path) -> None:
    compress(site)
    roll_back(site / "index.html", b"short")
    assert f"stale: {site}/index.html.gz (would be removed)" in compress(site, "--dry-run").output
    assert compress(site).exit_code == 0
    assert beside(site / "index.html") == []


#: Made by hand, each with the right content, later than its file, and not as this command would make it.
BY_HAND: dict[str, Callable[[bytes], bytes]] = {
    ".br": lambda content: brotli.compress(content, quality=1),
    ".zst": lambda content: zstandard.compress(content[:5000]) + zstandard.compress(content[5000:]),
    ".gz": lambda content: gzip.compress(content[:5000], 1) + gzip.compress(content[5000:]),
}


@pytest.mark.parametrize("suffix", BY_HAND)
@pytest.mark.parametrize("size", [len(TEXT), 500, 1_000_000])
def test_what_somebody_else_has_made_later_is_kept(site: Path, suffix: str, size: int) -> None:
    path, sidecar = site / "index.html", site / f"index.html{suffix}"
    path.write_bytes((TEXT * 10)[:size])
    made = BY_HAND[suffix](path.read_bytes())
    sidecar.write_bytes(made)
    os.utime(path, ns=(0, sidecar.stat().st_mtime_ns - 1))
    before = sidecar.stat()
    options = ["--include", "index.html", "--codings", {v: k for k, v in SUFFIXES.items()}[suffix]]
    assert compress(site, *options, "--check").exit_code == 0
    done = compress(site, *options)
    assert re.search(r"^\w+ +0 +1 +0 ", done.output, re.MULTILINE), done.output
    assert (sidecar.read_bytes(), sidecar.stat().st_ino, sidecar.stat().st_mtime_ns) == (
        made,
        before.st_ino,
        before.st_mtime_ns,
    )
    compress(site, *options, "--force", "--min-size", "1")
    assert sidecar.read_bytes() != made


@pytest.mark.parametrize("suffix", BY_HAND)
@pytest.mark.parametrize("damage", ["none of it", "cut", "longer", "other"])
def test_what_cannot_be_decompressed_is_stale(site: Path, suffix: str, damage: str) -> None:
    path, sidecar = site / "index.html", site / f"index.html{suffix}"
    made = BY_HAND[suffix](TEXT)
    damaged = {"none of it": b"text", "cut": made[:-1], "longer": made + b"text", "other": noise(1000)}[damage]
    sidecar.write_bytes(damaged)
    os.utime(path, ns=(0, sidecar.stat().st_mtime_ns - 1))
    assert f"stale: {sidecar}\n" in compress(site, "--check").output
    compress(site)
    assert DECOMPRESS[suffix](sidecar.read_bytes()) == TEXT


@pytest.mark.skipif(sys.platform != "linux", reason="asks how much memory a process has had")
@pytest.mark.parametrize("coding", SUFFIXES)
@pytest.mark.parametrize("size", [1024, 64 * 1024 * 1024])
def test_a_sidecar_of_gigabytes_is_told_in_the_memory_of_blocks(site: Path, coding: str, size: int) -> None:
    path = site / "index.html"
    path.write_bytes(bytes(size))
    gigabyte = compressing._COMPRESSORS[coding](iter([bytes(2**20)] * 1024), 1, 2**30)
    sidecar = Path(f"{path}{SUFFIXES[coding]}")
    sidecar.write_bytes(b"".join(gigabyte))
    os.utime(path, ns=(0, sidecar.stat().st_mtime_ns - 1))
    code = (
        "from zcresponse.commands.compress import command\n"
        f"try: command(['--check', '--quiet', '--codings', '{coding}', '--include', 'index.html', {str(site)!r}])\n"
        "finally: print(open('/proc/self/status').read())"
    )
    done = run(python=[sys.executable, "-c", code])
    assert done.returncode == 1
    assert done.stdout.startswith(f"stale: {sidecar}\n")
    (kibibytes,) = re.findall(r"VmHWM:\s*(\d+) kB", done.stdout)
    assert int(kibibytes) < 100 * 1024


# --- which files ------------------------------------------------------------------------------------------------------


def made_in(site: Path) -> set[str]:
    return {path.relative_to(site).as_posix() for path in site.rglob("*.gz")}


@pytest.mark.parametrize(
    ("args", "made"),
    [
        (["--include", "*.js"], {"assets/app.js.gz"}),
        (["--include", "assets"], {"assets/app.js.gz"}),
        (["--include", "assets/*.js"], {"assets/app.js.gz"}),
        (["--include", "/index.html"], {"index.html.gz"}),
        (["--exclude", "*.js"], {"index.html.gz"}),
        (["--exclude", "assets"], {"index.html.gz"}),
        (["--include", "*.js", "--exclude", "assets/*"], set()),
        (["--min-size", "500"], {"assets/app.js.gz", "index.html.gz", "small.txt.gz"}),
        (["--codings", "br,zstd"], set()),
    ],
)
def test_options_say_which_files(site: Path, args: list[str], made: set[str]) -> None:
    assert compress(site, *args).exit_code == 0
    assert made_in(site) == made


def test_several_directories_are_done_in_one_go(site: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.txt").write_bytes(TEXT)
    assert compress(site, tmp_path / "other", "--jobs", "3").exit_code == 0
    assert beside(tmp_path / "other" / "b.txt") == [".br", ".gz", ".zst"]
    assert beside(site / "index.html") == [".br", ".gz", ".zst"]


def test_what_is_told_of_several_directories_tells_them_apart(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_bytes(TEXT)
    done = compress("site/", "other", "--check", "--codings", "gzip", "--include", "index.html")
    told = [line.partition(" (")[0] for line in done.output.splitlines() if line.startswith("missing")]
    assert told == ["missing: other/index.html.gz", "missing: site/index.html.gz"]


def test_hidden_files_are_left_alone_but_well_known_ones_are_not(site: Path) -> None:
    for folder in (".git", ".well-known"):
        (site / folder).mkdir()
        (site / folder / "x.txt").write_bytes(TEXT)
    (site / ".secret.txt").write_bytes(TEXT)
    compress(site)
    assert {name for name in made_in(site) if "x" in name.rpartition("/")[2][:1] or "secret" in name} == {
        ".well-known/x.txt.gz"
    }


@posix
def test_links_are_not_followed(site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(TEXT)
    (site / "folder").symlink_to(outside)
    (site / "link.txt").symlink_to(outside / "secret.txt")
    assert compress(site).exit_code == 0
    assert os.listdir(outside) == ["secret.txt"]
    assert beside(site / "link.txt") == []


@posix
def test_a_link_in_the_place_of_a_result_is_told_and_left(site: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.gz"
    outside.write_bytes(b"precious")
    (site / "index.html.gz").symlink_to(outside)
    (site / "index.html.br").mkdir()
    done = compress(site)
    assert done.exit_code == 1
    assert outside.read_bytes() == b"precious"
    for name in ("index.html.gz", "index.html.br"):
        assert f"zcresponse: {site}/{name}: in the way, and not a regular file" in done.output
    assert (site / "index.html.zst").exists()


# --- without writing --------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_be_made(site: Path) -> None:
    done = compress(site, "--dry-run")
    assert done.exit_code == 0
    assert made_in(site) == set()
    assert re.search(
        rf"^missing: {re.escape(str(site))}/assets/app\.js\.br \({len(TEXT) * 3} bytes would be \d+\)$",
        done.output,
        re.MULTILINE,
    )
    assert "noise" not in done.output
    assert "Nothing was written." in done.output


def test_a_check_fails_until_everything_is_there(site: Path) -> None:
    assert compress(site, "--check").exit_code == 1
    assert made_in(site) == set()
    compress(site)
    assert compress(site, "--check").exit_code == 0
    os.utime(site / "index.html", ns=(0, (site / "index.html.br").stat().st_mtime_ns + 1))
    done = compress(site, "--check", "--quiet")
    assert done.exit_code == 1
    assert done.output.splitlines() == [f"stale: {site}/index.html{suffix}" for suffix in (".br", ".gz", ".zst")]


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="root gives up a privilege by setpriv")
def test_an_unreadable_file_is_told_and_the_rest_is_done(site: Path) -> None:
    (site / "index.html").chmod(0)
    (site / "locked").mkdir(mode=0o100)
    done = run("compress", str(site), "--codings", "gzip", python=[*UNPRIVILEGED, *COMMAND])
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"zcresponse: {site}/locked: Permission denied",
        f"zcresponse: {site}/index.html.gz: Permission denied",
    ]
    assert made_in(site) == {"assets/app.js.gz"}


@posix
def test_a_file_that_changes_meanwhile_gets_no_result(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site / "index.html"

    def reading(fd: int, offset: int, count: int) -> bytes:
        data = os.pread(fd, count, offset)
        # Renamed into its place, as a deployment does, with a time of long ago.
        (site / "new").write_bytes(TEXT)
        os.utime(site / "new", ns=(0, 0))
        os.replace(site / "new", path)
        return data

    monkeypatch.setattr(compressing, "read_blocking", reading)
    done = compress(site, "--include", "index.html", "--codings", "br")
    assert done.exit_code == 1
    assert "index.html.br: changed while it was compressed; run it again" in done.output
    assert sorted(os.listdir(site)) == ["assets", "index.html", "small.txt"]


@posix
@pytest.mark.parametrize("coding", SUFFIXES)
def test_a_file_that_is_cut_meanwhile_is_told(site: Path, coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressing, "read_blocking", lambda fd, offset, count: os.pread(fd, count // 2, offset))
    done = compress(site, "--include", "index.html", "--codings", coding)
    assert done.exit_code == 1
    assert f"index.html{SUFFIXES[coding]}: changed while it was compressed; run it again" in done.output
    assert sorted(os.listdir(site)) == ["assets", "index.html", "small.txt"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("nothing", "no such directory"), ("small.txt", "not a directory"), ("", "no such directory")],
)
def test_what_is_no_directory_is_told_in_one_line(site: Path, name: str, said: str) -> None:
    done = compress(site / name if name else "")
    assert done.exit_code == 1
    assert said in done.output
    assert done.output.count("\n") == 1


@pytest.mark.parametrize(
    "args", [("--codings", "br,lzma"), ("--codings", ""), ("--zstd-level", "23"), ("--jobs", "0"), ("--min-size", "0")]
)
def test_a_bad_option_is_a_usage_error(site: Path, args: tuple[str, ...]) -> None:
    done = compress(site, *args)
    assert done.exit_code == 2
    assert args[0] in done.output


# --- in a process of its own ------------------------------------------------------------------------------------------


def test_the_real_command_prints_a_summary_and_no_bar_to_a_pipe(site: Path) -> None:
    done = run("compress", str(site), PYTHONDEVMODE="1")
    assert done.returncode == 0
    assert done.stderr == ""
    heading, br, zstd, gzip_row, rest = done.stdout.splitlines()
    assert heading.split() == "coding new kept removed no gain failed before after saved".split()
    assert [row.split()[:2] for row in (br, zstd, gzip_row)] == [["br", "2"], ["zstd", "2"], ["gzip", "2"]]
    assert rest.startswith("Left alone:")
    assert run("compress", str(site), "--quiet").stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pseudo-terminals")
def test_a_terminal_sees_a_bar(site: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    env = environment(TERM="xterm", COLUMNS="80")
    with subprocess.Popen([*COMMAND, "compress", str(site)], stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 65536):
                seen += data
        except OSError:
            # The end of a terminal that nobody holds any more.
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    assert b"Compressing" in seen


@posix
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_half_file(site: Path, how: signal.Signals) -> None:
    # Half a minute's work for brotli at its best.
    large = site / "large.txt"
    large.write_bytes(noise(8_000_000).hex().encode())
    argv = [*COMMAND, "compress", str(site), "--include", "large.txt", "--codings", "br"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        deadline = time.monotonic() + 60
        while not list(site.glob(".zcresponse-*.tmp")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert err == b"Stopped: what is done is whole; run it again for the rest.\n"
    assert sorted(os.listdir(site)) == ["assets", "index.html", "large.txt", "small.txt"]


def test_help_teaches() -> None:
    assert "compress" in run("--help").stdout
    help_text = run("compress", "--help").stdout
    for word in (
        "zcresponse compress dist --check",
        "--exclude '*.map'",
        "br,zstd,gzip",
        "--jobs",
        "5 %",
        "1024",
        "Beware",
    ):
        assert word in help_text


@pytest.mark.parametrize("module", ["click", "brotli", "rich", "zstandard"])
def test_a_missing_package_is_told_in_one_line(module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['compress', '.']\n"
        "from zcresponse.cli import main; main()"
    )
    done = run(python=[sys.executable, "-c", code])
    assert done.returncode == 1
    assert f"{module} is not installed" in one_line(done)
    assert "pip install 'zcresponse[compress]'" in done.stderr
