"""Whether a compressed file holds what another file holds, found out in blocks, whatever the compressed one claims."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

import brotli
import zstandard

from zcresponse.files import OpenedFile
from zcresponse.files.reading import read_blocking

__all__ = ["ZSTD_WINDOW_LOG", "is_copy"]

#: Decoders need not have a larger window than 8 MiB (RFC 9659 §3), and browsers have none.
ZSTD_WINDOW_LOG: Final = 23

#: Bytes that a decompressor gives at a time, about.
_PART: Final = 256 * 1024

#: Bytes that zstd's is given at a time, for it cannot be told how much to give: four of them can stand for 128 KiB.
_PIECE: Final = 256


class _Cut(Exception):
    """The end is missing."""


def is_copy(coding: str, blocks: Iterator[bytes], file: OpenedFile, compared: Callable[[int], object]) -> bool:
    """Tell whether a compressed file is one of `file`. May wait for the disk.

    What cannot be decompressed is none. What decompresses to more than the file has is given up there, so that a few
    bytes which stand for terabytes cost no more than the file's size.

    Args:
        coding: `br`, `zstd` or `gzip`.
        blocks: the compressed file's bytes.
        compared: told how many bytes of the file were equal, again and again.
    """
    offset = 0
    try:
        for part in _DECOMPRESSORS[coding](blocks):
            stop = offset + len(part)
            if stop > file.size or read_blocking(file.fileno(), offset, len(part)) != part:
                return False
            offset = stop
            compared(len(part))
    except (_Cut, zlib.error, brotli.error, zstandard.ZstdError):
        return False
    return offset == file.size


def _brotli(blocks: Iterator[bytes]) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    for block in blocks:
        part = stream.process(block, output_buffer_limit=_PART)
        # It says that it can accept more when it has read all, also while there is more to come.
        while part or not stream.can_accept_more_data():
            yield part
            part = stream.process(b"", output_buffer_limit=_PART)
    if not stream.is_finished():
        raise _Cut


def _zstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << ZSTD_WINDOW_LOG)
    # Several frames may follow each other (RFC 8878 §3).
    frame = None
    for block in blocks:
        for start in range(0, len(block), _PIECE):
            piece = block[start : start + _PIECE]
            while piece:
                if frame is None or frame.eof:
                    frame = decompressor.decompressobj()
                yield frame.decompress(piece)
                piece = frame.unused_data
    if frame is None or not frame.eof:
        raise _Cut


def _gzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    # Several members may follow each other (RFC 1952 §2.2).
    member = None
    for block in blocks:
        while block:
            if member is None or member.eof:
                member = zlib.decompressobj(16 + zlib.MAX_WBITS)
            yield member.decompress(block, _PART)
            block = member.unconsumed_tail or member.unused_data
    if member is None or not member.eof:
        raise _Cut


_DECOMPRESSORS: Final[dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]]] = {
    "br": _brotli,
    "zstd": _zstd,
    "gzip": _gzip,
}
