"""`zcresponse compress`: compressed forms beside files, made once, so that a server sends them as files."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from zcresponse.commands import printable, version_option
from zcresponse.commands.compressing import Outcome, Result, Selection, Tree, make_sidecar
from zcresponse.files.sidecars import SUFFIXES
from zcresponse.plan.listing import format_size

__all__ = ["command"]

#: What a shell says of a command that Ctrl-C has ended: 128 and the number of SIGINT.
_INTERRUPTED: Final = 130


def _codings(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    codings = tuple(dict.fromkeys(word.strip() for word in value.split(",")))
    for coding in codings:
        if coding not in SUFFIXES:
            raise click.BadParameter(f"{coding!r} is not one of {', '.join(SUFFIXES)}")
    return codings


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path())
@click.option("--codings", default=",".join(SUFFIXES), metavar="LIST", callback=_codings, help="What to make.")
@click.option("--brotli-quality", default=11, type=click.IntRange(0, 11), help="11 is smallest, 5 much faster.")
@click.option("--zstd-level", default=19, type=click.IntRange(1, 22), help="22 is smallest, 3 much faster.")
@click.option("--gzip-level", default=9, type=click.IntRange(1, 9), help="9 is smallest.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only these files. May be repeated.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Not these files or folders. May be repeated.")
@click.option(
    "--min-size", default=1024, type=click.IntRange(1), metavar="BYTES", help="Leave smaller files as they are."
)
@click.option("--force", is_flag=True, help="Make anew what is up to date, as after a change of levels.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would be made.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 when something is missing or stale.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="How many at a time.  [default: one per processor]")
@click.option("--quiet", is_flag=True, help="No progress bar and no summary; errors are still told.")
@version_option
def command(
    directories: tuple[str, ...],
    codings: tuple[str, ...],
    brotli_quality: int,
    zstd_level: int,
    gzip_level: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    min_size: int,
    force: bool,
    dry_run: bool,
    check: bool,
    jobs: int | None,
    quiet: bool,
) -> None:
    """Make .br, .zst and .gz beside the files in DIR.

    A server with precompressed files switched on sends them in the place of the files to clients that accept them:
    as small as can be, by sendfile, and without compressing anything while somebody waits.

    \b
    zcresponse compress dist                          all three, as small as they get
    zcresponse compress dist --codings br,gzip        two of them
    zcresponse compress dist --exclude '*.map'        not the source maps
    zcresponse compress data --brotli-quality 5 --zstd-level 6
                                                      faster, for much or for large data
    zcresponse compress dist --check                  in CI: has everything been compressed?

    Run it again whenever files have changed, and at the end of a deployment: only what is missing, older than its file
    or newer and of something else is made. A result has the permissions and the time of its file. One that would not be
    at least 5 % smaller is not made; a stale one like that is removed. What is compressed by its type (images, video,
    archives, fonts, office documents), hidden files and links are left alone.

    Beware: dump.sql.gz beside dump.sql is taken for its compressed form, whoever made it. A backup of such a name that
    holds something else is replaced or removed. Keep backups elsewhere, or --exclude 'dump.sql'.

    A PATTERN without a slash is compared with each name in a path, so 'vendor' is a folder of that name with all that
    is in it; with a slash it is compared with the whole path from DIR on. '*' stands for anything, slashes too.

    Results are written under another name and renamed: nobody sees half a file, Ctrl-C leaves none.
    """
    levels = {"br": brotli_quality, "zstd": zstd_level, "gzip": gzip_level}
    console = Console(stderr=True)
    write = not (dry_run or check)
    selection = Selection(include, exclude, min_size)
    results: list[Result] = []
    # As Ctrl-C, so that a service manager or a CI's time limit leaves nothing behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        trees = [_tree(directory, codings, selection, force=force and not check) for directory in directories]
        with _progress(console, trees, shown=not quiet and console.is_terminal) as advance:
            for tree in trees:
                for path, error in tree.failed:
                    _tell(console, path, error)
            for result in _work(trees, levels, jobs or _processors(), advance, write=write, check=check):
                results.append(result)
                if result.error is not None:
                    _tell(console, result.job.name, result.error)
    except KeyboardInterrupt:
        click.echo("Stopped: what is done is whole; run it again for the rest.", err=True)
        sys.exit(_INTERRUPTED)
    if not write:
        for result in sorted(results, key=lambda result: result.job.name):
            _tell_what_would_be(result)
    if not quiet:
        _print_summary(trees, results, codings, written=write)
    failed = any(result.outcome is Outcome.FAILED for result in results) or any(tree.failed for tree in trees)
    lacking = any(result.outcome in (Outcome.NEW, Outcome.STALE) for result in results)
    sys.exit(1 if failed or (check and lacking) else 0)


def _tree(directory: str, codings: tuple[str, ...], selection: Selection, *, force: bool) -> Tree:
    try:
        # What cannot be listed is told at once; empty, by a variable that was not set, is not the current directory.
        with os.scandir(directory or "\0"):
            pass
    except (FileNotFoundError, ValueError):
        raise click.ClickException(f"{printable(directory)}: no such directory")
    except NotADirectoryError:
        raise click.ClickException(f"{printable(directory)}: not a directory")
    except OSError as error:
        raise click.ClickException(f"{printable(directory)}: {error.strerror}")
    return Tree(directory, codings, selection, force=force)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _progress(console: Console, trees: list[Tree], *, shown: bool) -> Iterator[Callable[[int], object]]:
    """Show a bar, and give the function that is told how many bytes have been read."""
    if not shown:
        yield lambda count: None
        return
    columns = (TextColumn("Compressing"), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = sum(job.file.size * (job.wanted + job.doubtful) for tree in trees for job in tree.jobs)
        task = progress.add_task("", total=total)
        yield lambda count: progress.advance(task, count)


def _work(
    trees: list[Tree],
    levels: dict[str, int],
    processors: int,
    advance: Callable[[int], object],
    *,
    write: bool,
    check: bool,
) -> Iterator[Result]:
    # The largest first, so that none of them is left alone at the end.
    jobs = sorted((job for tree in trees for job in tree.jobs), key=lambda job: -job.file.size)
    stop = threading.Event()
    with ThreadPoolExecutor(processors) as threads:
        try:
            futures = []
            for job in jobs:
                work = partial(make_sidecar, job, levels[job.coding], write=write, check=check)
                futures.append(threads.submit(work, stop=stop, advance=advance))
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _tell(console: Console, path: str, error: OSError) -> None:
    text = f"zcresponse: {printable(path)}: {error.strerror or error}"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _tell_what_would_be(result: Result) -> None:
    sidecar = printable(result.job.name)
    if result.outcome is Outcome.NEW:
        click.echo(f"missing: {sidecar} ({result.job.file.size} bytes would be {result.size})")
    elif result.outcome is Outcome.STALE:
        click.echo(f"stale: {sidecar}")
    elif result.outcome is Outcome.REMOVED:
        click.echo(f"stale: {sidecar} (would be removed)")


def _print_summary(trees: list[Tree], results: list[Result], codings: tuple[str, ...], *, written: bool) -> None:
    everything = results + [kept for tree in trees for kept in tree.kept]
    table = Table(box=None, pad_edge=False)
    table.add_column("coding")
    for heading in ("new", "kept", "removed", "no gain", "failed", "before", "after", "saved"):
        table.add_column(heading, justify="right")
    for coding in codings:
        of_this = [result for result in everything if result.job.coding == coding]
        present = [result for result in of_this if result.outcome in (Outcome.NEW, Outcome.KEPT)]
        before = sum(result.job.file.size for result in present)
        after = sum(result.size for result in present)
        counted = (Outcome.NEW, Outcome.KEPT, Outcome.REMOVED, Outcome.NO_GAIN, Outcome.FAILED)
        counts = [str(sum(result.outcome is outcome for result in of_this)) for outcome in counted]
        saved = f"{100 * (before - after) / before:.1f} %" if before else "-"
        table.add_row(coding, *counts, format_size(before), format_size(after), saved)
    console = Console(highlight=False)
    console.print(table)
    compressed = sum(tree.compressed_types for tree in trees)
    small = sum(tree.too_small for tree in trees)
    click.echo(f"Left alone: {_files(compressed)} of a compressed type, {_files(small)} too small.")
    if not written:
        click.echo("Nothing was written.")


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"
