"""`zcresponse bench`: ways of sending a file, side by side on the user's own machine."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from zcresponse.bench import measure, output, report, usage
from zcresponse.bench.figures import Figures, Outcome, run_rounds
from zcresponse.bench.files import lend, make_file, parse_size, read_through
from zcresponse.bench.measure import CPU, SECONDS, SWITCHES, SYSCALLS
from zcresponse.bench.peers import RAW, SERVERS, Peer
from zcresponse.bench.servers import Server, ServerFailed
from zcresponse.commands import printable, version_option
from zcresponse.plan.listing import format_size

__all__ = ["command"]

#: What a shell says of a command that Ctrl-C has ended: 128 and the number of SIGINT.
_INTERRUPTED: Final = 130

#: The signals that end this command: Ctrl-C, a service manager, a terminal that is closed.
_ENDING: Final = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

#: What the applications know the file by.
_NAME: Final = "file.bin"

#: Downloads before the first that counts: imports, caches and pools of threads are then what they will be.
_WARM_UP: Final = 2

#: Characters that a table may take where no terminal says how many there are.
_WIDTH: Final = 160

#: Formats of `zcresponse.bench.plots`, which takes its time to load.
_FORMATS: Final = (".png", ".svg", ".pdf")


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error))


def _plot(ctx: click.Context, param: click.Parameter, value: Path) -> Path:
    if value.suffix.lower() not in _FORMATS:
        raise click.BadParameter(f"{printable(str(value))} ends with none of {', '.join(_FORMATS)}")
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--runs", default=100, type=click.IntRange(1), help="How often each way sends the file.")
@click.option("--size", default="64MiB", metavar="SIZE", callback=_size, help="Of the file that is made without FILE.")
@click.option("--only", type=click.Choice(["raw", "servers"]), help="Bare sockets alone, or frameworks and servers.")
@click.option("--match", multiple=True, metavar="WORD", help="Only ways with this word in their name. May be repeated.")
@click.option("--syscalls", is_flag=True, help="Count system calls too, by strace, in a download that is not timed.")
@click.option(
    "--json",
    "json_path",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Write every figure of every run; '-' is standard output, and the tables then go to standard error.",
)
@click.option(
    "--plot",
    default="zcresponse-bench.png",
    metavar="PATH",
    type=click.Path(path_type=Path),
    callback=_plot,
    help="Where the box plots go: .png, .svg or .pdf.",
)
@click.option("--no-plot", is_flag=True, help="Draw nothing.")
@version_option
def command(
    file: Path | None,
    runs: int,
    size: int,
    only: str | None,
    match: tuple[str, ...],
    syscalls: bool,
    json_path: Path | None,
    plot: Path,
    no_plot: bool,
) -> None:
    """Measure what sendfile brings on this machine, with FILE or with one that is made for it.

    Each way sends the file over a loopback connection to a client that throws it away: bare sockets (read and send in
    blocks of 8 KiB, 64 KiB and 1 MiB, shutil.copyfileobj, sendfile), and those frameworks and servers that are
    installed, as they are and with zcresponse. They take turns, so that whatever else the machine does meets them all.

    \b
    zcresponse bench                           everything, 100 times 64 MiB
    zcresponse bench --only raw --runs 10      bare sockets, in a few seconds
    zcresponse bench --match gunicorn          FastAPI, Flask and Django on gunicorn
    zcresponse bench dataset.parquet           a file of yours
    zcresponse bench --size 4GB --only raw --match '8 KiB' --match sendfile
                                               a few ways, with a big file
    zcresponse bench --json run.json --plot run.svg
                                               figures for programs, box plots for people

    The table has the mean and the standard deviation of the time, what the mean amounts to in 10^6 bytes per second,
    and what the server's processes have used per GiB: processor time and context switches. The last column is the
    median of the ratios, run by run: in the first table to reading in blocks of 64 KiB, in the second to the same
    framework and server without zcresponse.

    Loopback has no network to wait for, so it shows what the processor does for a download, and not what a client far
    away sees. Close what else is busy. Servers listen on 127.0.0.1 only; what is made is removed, also on Ctrl-C.

    What reads the whole file into memory, as Django's own response does on uvicorn, is left out above 256 MiB.

    It exits with 1 when something that is installed could not be started or failed on the way.
    """
    _check_outputs(file, json_path, None if no_plot else plot)
    if syscalls and not usage.HAS_STRACE:
        raise click.ClickException("--syscalls: strace is not installed")
    # As Ctrl-C, so that no server and no file outlives this process.
    for name in _ENDING:
        signal.signal(name, signal.default_int_handler)
    console = Console(stderr=True, highlight=False)
    try:
        if not no_plot:
            # Told now, if it is not installed, and not after minutes.
            import zcresponse.bench.plots
        with tempfile.TemporaryDirectory(prefix="zcresponse-bench-") as name:
            directory = Path(name)
            sent = _sent_file(console, directory, file, size)
            run = _Run(sent, sent.stat().st_size, runs)
            run.choose(only, match)
            run.measure(console, syscalls=syscalls)
    except KeyboardInterrupt:
        click.echo("Stopped: nothing was written, and what was made is removed.", err=True)
        sys.exit(_INTERRUPTED)
    if not run.outcome.figures:
        _tell_left_out(run)
        raise click.ClickException("nothing could be measured")
    what = report.describe()
    figures = report.encoded({**what, **run.as_json(made=file is None)})
    to_output = json_path is not None and (str(json_path) == "-" or output.standard_stream(json_path) is sys.stdout)
    with _standard_output():
        _print_tables(run, err=to_output)
        if to_output:
            click.echo(figures, nl=False)
    _tell_left_out(run)
    if json_path is not None and not to_output:
        _write(json_path, lambda: output.write_whole(json_path, figures), err=to_output)
    if not no_plot:
        panels = {name: run.values(name) for name in (SECONDS, CPU) if name in run.outcome.names()}
        title = f"{_downloads(runs)} of {format_size(run.size)} over loopback"
        machine = what["machine"]
        subtitle = f"{machine['processor']}, {machine['system']}, {machine['python']}"
        _write(plot, lambda: zcresponse.bench.plots.draw_boxes(plot, title, panels, subtitle), err=to_output)
    sys.exit(1 if run.failed else 0)


@dataclass(slots=True)
class _Run:
    """What is measured, and what came of it."""

    file: Path
    size: int
    runs: int
    peers: dict[str, Peer] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    outcome: Outcome = field(default_factory=Outcome)

    def choose(self, only: str | None, words: tuple[str, ...]) -> None:
        """Pick the peers that are asked for and can be had.

        Raises:
            click.ClickException: There are none of them.
        """
        asked = [*(RAW if only != "servers" else ()), *(SERVERS if only != "raw" else ())]
        asked = [peer for peer in asked if not words or any(word.casefold() in peer.name.casefold() for word in words)]
        if not asked:
            sought = " or ".join(f"'{printable(word)}'" for word in words)
            raise click.ClickException(f"--match: no way of sending has {sought} in its name")
        for peer in asked:
            if missing := peer.missing():
                self.left_out[peer.name] = f"{missing} is not installed"
            elif peer.most is not None and self.size > peer.most:
                self.left_out[peer.name] = f"reads the file into memory, so only up to {format_size(peer.most)}"
            else:
                self.peers[peer.name] = peer

    def measure(self, console: Console, *, syscalls: bool) -> None:
        """Start everybody, and measure them in turn."""
        with (
            _asked_to_end() as check,
            contextlib.ExitStack() as stack,
            _progress(console, len(self.peers) * (self.runs + 1), check) as advance,
        ):
            running = {}
            for name, peer in self.peers.items():
                advance(f"starting {name}")
                try:
                    running[name] = self._start(peer, stack)
                except (ServerFailed, OSError) as error:
                    self._leave_out(name, str(error))

            def measured(name: str) -> Figures:
                if name in self.left_out:
                    return {}
                try:
                    return measure.download(running[name], _NAME, expected=self.size)
                except OSError as error:
                    self._check_file()
                    said = running[name].log().strip().rpartition("\n")[2]
                    self._leave_out(name, f"{error}" + (f"; its log ends with: {said}" if said else ""))
                    return {}

            self.outcome = run_rounds(list(running), self.runs, measured, lambda number, name: advance(name))
            for name in self.left_out:
                self.outcome.figures.pop(name, None)
            for name in self.outcome.figures if syscalls else ():
                advance(f"tracing {name}", 0)
                try:
                    self.outcome.add(name, {SYSCALLS: measure.syscalls(running[name], _NAME)})
                except (RuntimeError, OSError) as error:
                    self._leave_out(f"{name}, system calls", str(error))

    def _check_file(self) -> None:
        """Tell a file that has changed: nothing that was measured compares any more."""
        size = self.file.stat().st_size if self.file.exists() else 0
        if size != self.size:
            raise click.ClickException(f"the file has changed while it was measured: {size} bytes, not {self.size}")

    def _leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        self.failed = True

    def _start(self, peer: Peer, stack: contextlib.ExitStack) -> Server:
        with contextlib.ExitStack() as on_failure:
            server = on_failure.enter_context(peer.start(self.file.parent))
            for _ in range(_WARM_UP):
                measure.download(server, _NAME, expected=self.size)
            stack.push(on_failure.pop_all())
        return server

    def values(self, figure: str) -> dict[str, list[float]]:
        """All values of a figure, by peer."""
        return {name: figures[figure] for name, figures in self.outcome.figures.items()}

    def as_json(self, *, made: bool) -> dict[str, Any]:
        """Everything, for a JSON file."""
        return {
            "file": {"size": self.size, "made": made},
            "runs": self.runs,
            "compared_with": {name: self.peers[name].stock or None for name in self.outcome.figures},
            "left_out": self.left_out,
            "figures": self.outcome.as_json(),
        }


def _sent_file(console: Console, directory: Path, given: Path | None, size: int) -> Path:
    """Make the file, or lend the one that was given: servers see nothing else of its folder."""
    path = directory / _NAME
    try:
        if given is None:
            with _filling(console, "making the file", size) as show:
                return make_file(path, size, show)
        if not given.is_file():
            raise click.ClickException(f"{printable(str(given))}: no {'regular ' if given.exists() else 'such '}file")
        if not given.stat().st_size:
            raise click.ClickException(f"{printable(str(given))}: empty, so there is nothing to measure")
        with _filling(console, "reading the file", given.stat().st_size) as show:
            read_through(given, show)
        lend(given, path)
    except OSError as error:
        named = "--size" if given is None else printable(str(given))
        raise click.ClickException(f"{named}: {error.strerror}")
    return path


@contextlib.contextmanager
def _filling(console: Console, text: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar for what takes its time with a big file, and give the function that is told how far it is."""
    columns = (BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.update(task, completed=done)


def _check_outputs(file: Path | None, json_path: Path | None, plot: Path | None) -> None:
    """Tell what cannot be written, or would be written over something else.

    Raises:
        click.UsageError: Two of them are the same file.
        click.ClickException: It cannot be written.
    """
    named = {"FILE": file, "--json": None if str(json_path) == "-" else json_path, "--plot": plot}
    paths = {name: path for name, path in named.items() if path is not None}
    checked: dict[str, Path] = {}
    for name, path in paths.items():
        try:
            if name != "FILE":
                output.check_writable(path)
            for other in checked:
                if output.is_same(checked[other], path):
                    raise click.UsageError(f"{other} and {name} are the same file: {printable(str(path))}")
        except OSError as error:
            raise click.ClickException(f"{printable(str(path))}: {error.strerror}")
        checked[name] = path


def _write(path: Path, write: Callable[[], object], *, err: bool) -> None:
    try:
        write()
    except OSError as error:
        raise click.ClickException(f"{printable(str(path))}: {error.strerror}")
    with _standard_output():
        click.echo(f"Written: {printable(str(path))}", err=err)


@contextlib.contextmanager
def _standard_output() -> Iterator[None]:
    """Tell in one line that standard output takes no more."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE:
            # click knows that nobody listens any more.
            raise
        # What is still kept would be tried, and fail, once more at the end.
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise click.ClickException(f"standard output: {error.strerror}")


@contextlib.contextmanager
def _asked_to_end() -> Iterator[Callable[[], None]]:
    """Give the function that raises KeyboardInterrupt if a signal has come.

    It comes between downloads and between starts, so that nothing that was half made is forgotten; a second signal is
    not waited with.
    """
    asked = False

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in _ENDING}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress(console: Console, total: int, check: Callable[[], None]) -> Iterator[Callable[..., None]]:
    """Show a bar, and give the function that is told what comes next, after `check`."""
    if not console.is_terminal:
        yield lambda text, steps=1: check()
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    # Drawn between downloads only: a thread that draws would be measured too.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=total)
        # A step is done when the next one begins.
        done = -1

        def advance(text: str, steps: int = 1) -> None:
            nonlocal done
            check()
            done += steps
            progress.update(task, completed=max(done, 0), description=text, refresh=True)

        yield advance


def _print_tables(run: _Run, *, err: bool) -> None:
    console = Console(highlight=False, stderr=err)
    if not console.is_terminal:
        # A pipe has no width, and whoever reads it wants whole lines.
        console = Console(highlight=False, stderr=err, width=_WIDTH)
    turns = "each over loopback, in turn" if run.runs > 1 else "over loopback"
    click.echo(f"{_downloads(run.runs)} of {format_size(run.size)} {turns}", err=err)
    for title, group in (("Bare sockets", RAW), ("Frameworks and servers", SERVERS)):
        if names := [peer.name for peer in group if peer.name in run.outcome.figures]:
            table = _table(title, names, run)
            # Rather lines that a narrow terminal breaks than figures that it cuts.
            needed = Measurement.get(console, console.options.update_width(_WIDTH), table).minimum
            console.width = max(console.width, needed)
            console.print()
            console.print(table)
    console.print()


def _table(title: str, names: list[str], run: _Run) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    table.add_column("", overflow="fold", min_width=20)
    for heading in ("mean\nms", "deviation\nms", "\nMB/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    measured = run.outcome.names()
    costs = [
        (figure, heading, form)
        for figure, heading, form in (
            (CPU, "CPU s\nper GiB", ".3f"),
            (SWITCHES, "switches\nper GiB", ".0f"),
            (SYSCALLS, "calls\nper GiB", ".0f"),
        )
        if figure in measured
    ]
    for _, heading, _ in costs:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("times\nas fast", justify="right", no_wrap=True)
    for name in names:
        peer = run.peers[name]
        seconds = run.outcome.summary(name, SECONDS)
        ratio = run.outcome.ratio(peer.stock, name, SECONDS)
        below_its_stock = name.startswith(f"{peer.stock}, ") and peer.stock in names
        table.add_row(
            f"  with {name.removeprefix(f'{peer.stock}, ')}" if below_its_stock else name,
            f"{seconds.mean * 1e3:.1f}",
            f"{seconds.deviation * 1e3:.1f}",
            f"{run.size / 1e6 / seconds.mean:.0f}",
            *(
                f"{run.outcome.summary(name, figure).mean:{form}}" if figure in run.outcome.figures[name] else "-"
                for figure, _, form in costs
            ),
            "-" if ratio is None else f"{ratio:.2f}",
        )
    return table


def _downloads(count: int) -> str:
    return "1 download" if count == 1 else f"{count} downloads"


def _tell_left_out(run: _Run) -> None:
    for name, reason in run.left_out.items():
        click.echo(f"Left out: {name}: {printable(reason)}", err=True)
