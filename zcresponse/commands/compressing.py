"""What `zcresponse compress` does in one directory: find the files, compress them, put the results beside them.

No option parsing and no printing here. A tree is looked at as a server would (`zcresponse.files.rooted`): what no
address can lead to, links among it, is not there.
"""

from __future__ import annotations

import fnmatch
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import BinaryIO, Final

import brotli
import zstandard

from zcresponse.commands.comparing import ZSTD_WINDOW_LOG, is_copy
from zcresponse.files import OpenedFile
from zcresponse.files.reading import read_blocking
from zcresponse.files.replacing import check_replaceable, replacing
from zcresponse.files.rooted import DirectoryEntry, OpenedDirectory, Root
from zcresponse.files.sidecars import SUFFIXES
from zcresponse.http.mediatype import guess_media_type

__all__ = ["Job", "Outcome", "Result", "Selection", "Stopped", "Tree", "make_sidecar"]

#: What part of a file its compressed form may have at most: less gain is not worth a client's work, nor a second file.
WORTH: Final = 0.95

#: Bytes read at a time: so often is looked whether to stop.
_BLOCK: Final = 256 * 1024

#: Files from this size on are compressed only if parts of them can be, which are tried first: brotli takes a second for
#: each MiB.
_PROBED_FROM: Final = 4 * 1024 * 1024
_PROBE: Final = 64 * 1024

#: What is not hidden though it begins with a dot (RFC 8615 §3).
_WELL_KNOWN: Final = ".well-known"

# Types whose content is compressed already. What is missing here is tried, and left alone because it does not shrink.
_COMPRESSED_FAMILIES: Final = (
    "video/",
    "application/vnd.openxmlformats-officedocument.",
    "application/vnd.oasis.opendocument.",
)
_COMPRESSED: Final = frozenset(
    (
        "image/png image/apng image/jpeg image/gif image/webp image/avif image/heic image/heif image/jxl image/jp2 "
        "image/jpx image/x-canon-cr2 image/x-nikon-nef image/x-sony-arw image/vnd.djvu "
        "audio/mpeg audio/mp4 audio/aac audio/ogg audio/flac audio/webm audio/amr audio/ac3 audio/eac3 "
        "audio/x-matroska audio/x-ms-wma audio/x-ape application/ogg "
        "font/woff font/woff2 "
        "application/zip application/gzip application/x-bzip2 application/x-xz application/zstd application/x-lz4 "
        "application/x-lzip application/x-lzma application/x-compress application/x-7z-compressed "
        "application/vnd.rar application/vnd.ms-cab-compressed application/java-archive "
        "application/vnd.android.package-archive application/vnd.debian.binary-package application/x-rpm "
        "application/vnd.flatpak application/x-apple-diskimage application/x-chrome-extension "
        "application/x-xpinstall application/epub+zip application/vnd.amazon.ebook application/vnd.comicbook+zip "
        "application/vnd.comicbook-rar application/oxps application/vnd.ms-xpsdocument "
        "application/vnd.google-earth.kmz application/vnd.apple.pages application/vnd.apple.numbers "
        "application/vnd.ms-visio.drawing application/vnd.apple.pkpass model/vnd.usdz+zip model/3mf "
        "application/vnd.laszip"
    ).split()
)


_CHANGED: Final = "changed while it was compressed; run it again"


class Stopped(Exception):
    """The user wants no more."""


class _NoGain(Exception):
    """It does not shrink."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a tree are meant.

    Attributes:
        include: patterns of which one must match; none: every file.
        exclude: patterns of which none may match.
        min_size: bytes that a file must have.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_size: int = 1024

    def names(self, path: str) -> bool:
        """Whether a path, relative to the tree and with slashes, is meant."""
        if self.include and not _matches(path, self.include):
            return False
        return not _matches(path, self.exclude)


class Outcome(Enum):
    """What became of a sidecar."""

    NEW = "new"
    KEPT = "kept"
    NO_GAIN = "no gain"
    REMOVED = "removed"
    STALE = "stale"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """One file that lacks a sidecar, or has one that is stale or may be.

    Attributes:
        directory: DIR, as it was given.
        path: relative to the root, with slashes.
        coding: a key of `SUFFIXES`.
        file: the file, as it was when its directory was read.
        sidecar: what lies in the place of the result, if it is a file.
        wanted: False: a stale sidecar is only to be removed.
        doubtful: the sidecar has to be compared with the file.
    """

    root: Root
    directory: str
    path: str
    coding: str
    file: DirectoryEntry
    sidecar: DirectoryEntry | None
    wanted: bool = True
    doubtful: bool = False

    @property
    def name(self) -> str:
        """Path of the sidecar as it is told, from where DIR is."""
        return os.path.join(self.directory, self.path) + SUFFIXES[self.coding]

    @property
    def target(self) -> str:
        """Absolute path of the sidecar."""
        return os.path.join(self.root.directory, *self.path.split("/")) + SUFFIXES[self.coding]


@dataclass(frozen=True, slots=True)
class Result:
    """What a job came to.

    Attributes:
        size: bytes of the sidecar that there is now (or would be); 0 where there is none.
        error: why it failed.
    """

    job: Job
    outcome: Outcome
    size: int = 0
    error: OSError | None = None


class Tree:
    """What lies in a directory.

    Attributes:
        jobs: what is to be done.
        kept: what is up to date.
        failed: directories that could not be read, from where DIR is, and why.
        compressed_types, too_small: how many files were left alone for their type, and for their size.
    """

    def __init__(self, directory: str, codings: tuple[str, ...], selection: Selection, *, force: bool = False) -> None:
        self.jobs: list[Job] = []
        self.kept: list[Result] = []
        self.failed: list[tuple[str, OSError]] = []
        self.compressed_types = 0
        self.too_small = 0
        self._root = Root(directory)
        self._directory = directory
        self._codings = codings
        self._selection = selection
        self._force = force
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                entries = self._entries(folder)
            except OSError as error:
                self.failed.append((os.path.join(directory, folder) if folder else directory, error))
                continue
            for name in sorted(entries, reverse=True):
                path = f"{folder}/{name}" if folder else name
                if name.startswith(".") and path != _WELL_KNOWN:
                    continue
                if entries[name].is_directory:
                    folders.append(path)
                elif not name.lower().endswith(tuple(SUFFIXES.values())) and selection.names(path):
                    self._consider(path, entries)

    def _entries(self, folder: str) -> dict[str, DirectoryEntry]:
        found = self._root.lookup(f"/{folder}/" if folder else "/")
        assert isinstance(found, OpenedDirectory)
        with found:
            return {entry.name: entry for entry in found.entries()}

    def _consider(self, path: str, entries: Mapping[str, DirectoryEntry]) -> None:
        file = entries[path.rpartition("/")[2]]
        if is_compressed_type(file.name):
            self.compressed_types += 1
            return
        wanted = file.size >= self._selection.min_size
        self.too_small += not wanted
        for coding in self._codings:
            sidecar = entries.get(file.name + SUFFIXES[coding])
            if sidecar is not None and sidecar.is_directory:
                # In the way, which is told when the job is done.
                sidecar = None
            job = Job(self._root, self._directory, path, coding, file, sidecar, wanted)
            if sidecar is None or sidecar.size == 0 or sidecar.mtime_ns < file.mtime_ns or (self._force and wanted):
                if wanted or sidecar is not None:
                    self.jobs.append(job)
            elif sidecar.mtime_ns == file.mtime_ns:
                self.kept.append(Result(job, Outcome.KEPT, sidecar.size))
            else:
                # Results have the time of their file. This one is somebody else's work, or of a version that was taken
                # back since: a file that is restored with its time is older than what was made of its successor.
                self.jobs.append(replace(job, doubtful=True))


def is_compressed_type(name: str) -> bool:
    """Whether files of this name are of a type that is compressed already."""
    media_type = guess_media_type(name)
    return media_type in _COMPRESSED or media_type.startswith(_COMPRESSED_FAMILIES)


def make_sidecar(
    job: Job,
    level: int,
    *,
    write: bool,
    check: bool = False,
    stop: threading.Event,
    advance: Callable[[int], object],
) -> Result:
    """Do a job. For a thread: the compressors let others run.

    A sidecar that would gain nothing is not made, and one that lies there is removed: it is older than its file, so no
    server would use it, or holds something else, which no server can know.

    Args:
        level: the coding's level or quality.
        write: False: find out what would be done.
        check: find out no more than whether a sidecar is stale.
        stop: once set, nothing more is done.
        advance: told how many bytes have been read: those of the file, and once more if the sidecar is doubtful.

    Raises:
        Stopped: `stop` was set; nothing is left behind.
    """
    try:
        if job.sidecar is not None:
            if job.doubtful and _holds_the_file(job, stop, advance):
                if job.wanted:
                    # They need not be read again.
                    advance(job.file.size)
                return Result(job, Outcome.KEPT, job.sidecar.size)
            if check:
                return Result(job, Outcome.STALE)
        check_replaceable(job.target)
        if job.wanted:
            size = _compress(job, level, write=write, stop=stop, advance=advance)
            return Result(job, Outcome.NEW, size)
        raise _NoGain
    except _NoGain:
        return _without_sidecar(job, write=write)
    except OSError as error:
        return Result(job, Outcome.FAILED, error=error)


def _holds_the_file(job: Job, stop: threading.Event, advance: Callable[[int], object]) -> bool:
    rest = job.file.size

    def compared(count: int) -> None:
        nonlocal rest
        if stop.is_set():
            raise Stopped
        rest -= count
        advance(count)

    with job.root.lookup(f"/{job.path}") as file, job.root.lookup(f"/{job.path}{SUFFIXES[job.coding]}") as sidecar:
        if not isinstance(file, OpenedFile) or not isinstance(sidecar, OpenedFile):
            raise OSError("became a directory while this ran")
        equal = is_copy(job.coding, _blocks(sidecar, stop, lambda count: None), file, compared)
    advance(max(0, rest))
    return equal


def _without_sidecar(job: Job, *, write: bool) -> Result:
    if job.sidecar is None:
        return Result(job, Outcome.NO_GAIN)
    try:
        if write:
            os.unlink(job.target)
    except FileNotFoundError:
        return Result(job, Outcome.NO_GAIN)
    except OSError as error:
        return Result(job, Outcome.FAILED, error=error)
    return Result(job, Outcome.REMOVED)


def _compress(job: Job, level: int, *, write: bool, stop: threading.Event, advance: Callable[[int], object]) -> int:
    found = job.root.lookup(f"/{job.path}")
    with found:
        if not isinstance(found, OpenedFile):
            raise OSError("became a directory while this ran")
        if found.size >= _PROBED_FROM and not _parts_shrink(found):
            raise _NoGain
        parts = _COMPRESSORS[job.coding](_blocks(found, stop, advance), level, found.size)
        if not write:
            return _copy(parts, None, found.size)
        with replacing(job.target, like=found.stat) as sidecar:
            size = _copy(parts, sidecar, found.size)
            _check_unchanged(found)
        return size


def _copy(parts: Iterator[bytes], sidecar: BinaryIO | None, size: int) -> int:
    most = int(size * WORTH)
    written = 0
    for part in parts:
        written += len(part)
        if written > most:
            raise _NoGain
        if sidecar is not None:
            sidecar.write(part)
    return written


def _check_unchanged(file: OpenedFile) -> None:
    """Tell that a file was written to, or replaced, while it was compressed."""
    now = os.lstat(file.path or "")
    if (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) != (
        file.stat.st_dev,
        file.stat.st_ino,
        file.stat.st_size,
        file.stat.st_mtime_ns,
    ):
        raise OSError(_CHANGED)


def _blocks(file: OpenedFile, stop: threading.Event, advance: Callable[[int], object]) -> Iterator[bytes]:
    for offset in range(0, file.size, _BLOCK):
        if stop.is_set():
            raise Stopped
        count = min(_BLOCK, file.size - offset)
        block = read_blocking(file.fileno(), offset, count)
        if len(block) < count:
            # Not left to the compressors, of which zstd's would raise an error of its own.
            raise OSError(_CHANGED)
        yield block
        advance(len(block))


def _parts_shrink(file: OpenedFile) -> bool:
    """Whether the beginning, the middle or the end of a file can be compressed."""
    for offset in (0, file.size // 2, file.size - _PROBE):
        part = read_blocking(file.fileno(), offset, _PROBE)
        if len(zlib.compress(part, 1)) <= len(part) * WORTH:
            return True
    return False


def _brotli(blocks: Iterator[bytes], quality: int, size: int) -> Iterator[bytes]:
    compressor = brotli.Compressor(quality=quality)
    for block in blocks:
        yield compressor.process(block)
    yield compressor.finish()


def _zstd(blocks: Iterator[bytes], level: int, size: int) -> Iterator[bytes]:
    parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=size)
    if parameters.window_log > ZSTD_WINDOW_LOG:
        parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=size, window_log=ZSTD_WINDOW_LOG)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)
    for block in blocks:
        yield compressor.compress(block)
    yield compressor.flush()


def _gzip(blocks: Iterator[bytes], level: int, size: int) -> Iterator[bytes]:
    # 16 and more: with gzip's head and tail, without a name and with a time of 0.
    compressor = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for block in blocks:
        yield compressor.compress(block)
    yield compressor.flush()


_COMPRESSORS: Final[dict[str, Callable[[Iterator[bytes], int, int], Iterator[bytes]]]] = {
    "br": _brotli,
    "zstd": _zstd,
    "gzip": _gzip,
}


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    names = path.split("/")
    return any(
        fnmatch.fnmatchcase(path, pattern.removeprefix("/"))
        if "/" in pattern
        else any(fnmatch.fnmatchcase(name, pattern) for name in names)
        for pattern in patterns
    )
