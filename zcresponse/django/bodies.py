"""What lies behind a response: the file that it sends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from inspect import getattr_static
from typing import Final

from asgiref.sync import sync_to_async

from zcresponse.django.sources import Content
from zcresponse.errors import FileTruncatedError
from zcresponse.files import OpenedFile
from zcresponse.files.positioned import PositionedFile
from zcresponse.plan import Segment
from zcresponse.wsgi.chunks import Block, Chunks

__all__ = ["FileBody", "in_threads", "iterates_as"]

#: Where a class can have its say in what is sent.
_ITERATION: Final = ("__iter__", "__aiter__", "streaming_content")


class FileBody:
    """The file behind a response, which does not refer to the response: dropped, it is closed at once.

    Attributes:
        content: the file.
        segments: what of it is the body.
        source: what a WSGI server is given of it.
        begun: whether somebody has begun to read.
        truncated: the file turned out shorter than was promised.
    """

    # Of the class, not of each: there is one for every answer.
    source: PositionedFile | Block | Chunks | None = None
    begun = False
    truncated: FileTruncatedError | None = None

    def __init__(self, content: Content) -> None:
        if isinstance(content, OpenedFile):
            # A response that is dropped on the way closes it quietly.
            content.hand_over()
        self.content = content
        self.segments: tuple[Segment, ...] = (content.region(),) if content.size else ()

    def read(self) -> Iterator[bytes]:
        """Iterate over what is the body when it is read: by then it may be the whole file after all."""
        self.begun = True
        source = self.source
        if source is None or isinstance(source, PositionedFile):
            # Not what the server is to be given: reading would move its descriptor.
            source = Chunks(self.segments, None, lambda *_: None)
        yield from source

    def end(self) -> None:
        """Close the file, unless it was given away."""
        source, self.source = self.source, None
        try:
            if source is not None:
                # Not the instance's, over which Django has put the response's.
                type(source).close(source)  # type: ignore[arg-type]
        except FileTruncatedError as error:
            self.truncated = error
        finally:
            self.content.close()


def iterates_as(kind: type, known: type) -> bool:
    """Whether a response's class sends what `known` would: nobody's own does something to it on the way."""
    return all(getattr_static(kind, name) is getattr_static(known, name) for name in _ITERATION)


async def in_threads(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Read what can only be iterated over without stopping the event loop, one part at a time."""
    following = sync_to_async(lambda: next(parts, None))
    while (part := await following()) is not None:
        yield part
