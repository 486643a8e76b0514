"""A Django response whose body is a file."""

from __future__ import annotations

import codecs
import functools
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Unpack

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.signals import setting_changed
from django.db.models.fields.files import FieldFile
from django.http import FileResponse, HttpRequest
from django.http.response import ResponseHeaders
from django.utils.datastructures import MultiValueDict

from zcresponse.arguments import check_delivery, check_switch, check_text
from zcresponse.asgi.transport import offload_for as offload_for_scope
from zcresponse.django.bodies import FileBody, in_threads, iterates_as
from zcresponse.django.sources import Content, Given, guess_content_type, is_as_stored, open_source, plain_file
from zcresponse.django.streams import blocks_of, part_of, position_of
from zcresponse.events import OnTransfer
from zcresponse.files import FileRegion, MemoryFile, OpenedFile, reading
from zcresponse.files.positioned import PositionedFile
from zcresponse.plan import FileOptions, Offload, ResponsePlan
from zcresponse.plan.offload import SETTING
from zcresponse.plan.response import (
    Description,
    Fields,
    check_options,
    check_value,
    describe_file,
    plan_described,
    take_back,
    values_of,
)
from zcresponse.wsgi.chunks import BLOCK
from zcresponse.wsgi.servers import offer_best_wrapper
from zcresponse.wsgi.transport import START_RESPONSE, make_content, offload_for, request_head

__all__ = ["ZeroCopyFileResponse", "fields_of", "may_be_removed", "offload_setting"]


class ZeroCopyFileResponse(FileResponse):
    """A file as the answer to a request, with conditions and ranges, moved by the kernel where the server can.

    Takes the parameters of Django's `FileResponse`, with a file in the place of the stream. The file is opened now. The
    answer is decided once: with `request`, or by `ZeroCopyMiddleware`, or by the applications that this module gives;
    under Django's own without any of them it is the whole file. What a subclass makes of it in `__iter__`, `__aiter__`
    or `streaming_content` is sent instead: conditions are answered then, and no ranges.

    Args:
        path_or_file: a path, an open binary file, a Django `File`, or the value of a `FileField`. Of a storage on this
            machine's disks, and of a file in memory, conditions and ranges are answered; whatever else can be read is
            sent as one stream, with its size if it has one.
        as_attachment, filename, content_type, status, reason, charset, headers: as in Django. Without a type it is told
            from the name by a table that is the same on every machine.
        request: decide the answer to it now.
        offset: first byte to send; None: where a file that was given open stands, otherwise 0.
        count: how many bytes to send; None: all that follow.
        on_transfer: called with a `zcresponse.Transfer` at the end of a body that is the file: not of a stream, nor
            where a middleware has put another body in its place.
        sendfile: False: read and give blocks, whatever the server offers.
        options: `etag`, `last_modified`, `max_age`, `immutable`, `private` and the like: see
            `zcresponse.plan.FileOptions`.

    Raises:
        FileNotFoundError, PermissionError, NotARegularFileError: what was to be opened.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """

    block_size = BLOCK

    #: The file; None where a stream is sent.
    _file: FileBody | None = None
    #: The iterator of the file, as long as nobody has put another into its place, or around it.
    _own: Iterator[bytes] | None = None
    #: What its headers said of the file at first.
    _described: Description | None = None
    #: The decided answer, and what status, reason and headers were before.
    _plan: ResponsePlan | None = None
    _before: tuple[int, str | None, Fields]
    _status: int = 200
    _reason_phrase: str | None
    #: What Django gives to the server's `wsgi.file_wrapper`.
    file_to_stream: PositionedFile | None
    #: What it was made of, if that is closed with the response.
    _given: Given | None = None
    #: What somebody has given to an answer without content: a page for an error.
    _page: bytes = b""
    #: Whether no class of somebody's own does something to what is sent.
    _sends_as_it_is: bool = True
    #: Whether it answers a HEAD: whatever body others give it is closed, and not read.
    _bodiless: bool = False

    def __init__(
        self,
        path_or_file: Any,
        as_attachment: bool = False,
        filename: str = "",
        *,
        content_type: str | None = None,
        status: int | None = None,
        reason: str | None = None,
        charset: str | None = None,
        headers: Mapping[str, str] | None = None,
        request: HttpRequest | None = None,
        offset: int | None = None,
        count: int | None = None,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
        **options: Unpack[FileOptions],
    ) -> None:
        if options:
            check_options(options)
        if filename:
            check_text("filename", filename)
        check_switch("as_attachment", as_attachment)
        if on_transfer is not None or sendfile is not None:
            check_delivery(on_transfer, sendfile)
        self._on_transfer = on_transfer
        self._sendfile = sendfile
        if headers is not None:
            # Django takes pairs too, which may be an iterator's.
            headers = ResponseHeaders(headers)
        typed = content_type is not None or (headers is not None and "Content-Type" in headers)
        content, name = open_source(path_or_file, offset, count)
        name = os.path.basename(filename or name)
        try:
            body: Iterator[bytes] | tuple[()] = ()
            if content is not None:
                self._file = FileBody(content)
                body = self._file.read()
                if not typed:
                    # A header, for as an argument it would be the caller's own.
                    headers = {**(headers or {}), "Content-Type": _media_type_of(name, charset)}
            super().__init__(
                body,
                as_attachment=as_attachment,
                filename=filename,
                content_type=content_type,
                status=status,
                reason=reason,
                charset=charset,
                headers=headers,
            )
            if content is None:
                self._stream(path_or_file, name, typed, options, offset, count)
            else:
                self._send(content, name, path_or_file, options)
        except BaseException:
            if content is not None:
                content.close()
            raise
        if request is not None:
            self.decide(request)

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls._sends_as_it_is = iterates_as(cls, ZeroCopyFileResponse)

    def _send(self, content: Content, name: str, given: Any, options: FileOptions) -> None:
        """Say of the file, which is the body already, what it is."""
        assert self._file is not None
        self._own = self._iterator
        self._described = describe_file(
            content,
            fields=fields_of(self),
            filename=name or None,
            disposition="attachment" if self.as_attachment else "inline",
            **options,
        )
        self._set_fields(self._described.fields)
        if self.as_attachment:
            self.headers.setdefault("Content-Disposition", "attachment")
        self._resource_closers.append(self._file.end)
        if type(given) is not str and hasattr(given, "close") and not isinstance(given, OpenedFile | MemoryFile):
            self._given = Given(given)
            self._resource_closers.append(self._given.close)

    def _stream(
        self, file: Any, name: str, typed: bool, options: FileOptions, offset: int | None, count: int | None
    ) -> None:
        """Send what can only be read from front to back."""
        windowed = offset is not None or count is not None
        if not hasattr(file, "read"):
            if not hasattr(file, "__iter__") and not hasattr(file, "__aiter__"):
                raise TypeError(f"path_or_file: a path or a file is needed, not {type(file).__name__}")
            if windowed:
                raise TypeError("path_or_file: for offset and count a file is needed, not an iterable")
        is_text = isinstance(plain_file(file), io.TextIOBase | codecs.StreamReader | codecs.StreamReaderWriter)
        if is_text and windowed:
            raise TypeError("path_or_file: for offset and count a file opened in binary mode is needed")
        # What can be said of it without knowing it: as of nothing in memory.
        said = describe_file(MemoryFile(b""), media_type="text/plain", **options).fields
        for field in ("Cache-Control", "ETag", "Last-Modified"):
            for value in values_of(said, field):
                self.headers.setdefault(field, value)
        if not hasattr(file, "read"):
            self.streaming_content = file
            return
        given = self.headers["Content-Type"]
        self.set_headers(file)
        self.headers["Content-Type"] = given if typed else _media_type_of(name, self._charset)
        if isinstance(file, FieldFile) and "Content-Length" not in self.headers and is_as_stored(file):
            # One that cannot be asked by seeking to its end: its storage knows.
            self.headers["Content-Length"] = str(file.size - position_of(file))
        # What was measured of text were characters.
        follow = None if is_text else self.headers.get("Content-Length")
        part = part_of(file, None if follow is None else int(follow), offset, count)
        del self.headers["Content-Length"]
        if part.size is not None:
            self.headers["Content-Length"] = str(part.size)
        self._given = Given(file)
        if hasattr(file, "close"):
            self._resource_closers.append(self._given.close)
        # Never by the server's file_wrapper: the descriptor of a GzipFile, for one, is that of the compressed bytes.
        self.streaming_content = blocks_of(self._given, part)

    def _set_fields(self, fields: Fields) -> None:
        if type(self.headers) is not ResponseHeaders:
            # A mapping that somebody has put there.
            self.headers: ResponseHeaders = ResponseHeaders({})
        # As it keeps them. What it would check for each was checked when they were planned.
        self.headers._store = {field[0].lower(): field for field in fields}

    def decide(self, request: HttpRequest) -> None:
        """Decide how `request` is answered: 200, 206, 304, 412 or 416. A second call changes nothing.

        An answer to HEAD has no body, whatever was to be one.
        """
        environ, method = request.META, request.method or "GET"
        asked = environ.get("REQUEST_METHOD")
        if not self._bodiless and (method == "HEAD" or asked == "HEAD"):
            self._bodiless = True
            if not self._is_untouched:
                self._set_streaming_content(())
        file = self._file
        if file is None or self._plan is not None:
            return
        status, fields = self._status, fields_of(self)
        # Tests leave it empty, and middleware overrides methods.
        head = request_head(environ if asked == method else {**environ, "REQUEST_METHOD": method})
        untouched = self._is_untouched
        if not untouched:
            # Somebody else's body, such as a compressed one, has conditions too, but no parts.
            head = replace(head, range=None)
        offload = self._offload_for(request) if untouched else None
        plan = plan_described(
            head, file.content, status=status, fields=fields, described=self._described, offload=offload
        )
        if not untouched:
            if plan.status != status:
                super()._set_streaming_content(())
                self._answer_empty(plan)
            return
        if self._bodiless:
            # Whatever method somebody has made of it.
            plan = replace(plan, segments=())
        self._before = (status, self._reason_phrase, fields)
        if plan.fields[:-1] == fields and type(self.headers) is ResponseHeaders:
            # Most often something is only added.
            self.headers._store[plan.fields[-1][0].lower()] = plan.fields[-1]
        else:
            self._set_fields(plan.fields)
        if plan.status != status:
            if plan.status == HTTPStatus.PARTIAL_CONTENT:
                self.status_code = plan.status
                self._reason_phrase = None
            else:
                self._answer_empty(plan)
        self._plan = plan
        file.segments = plan.segments
        environ = getattr(request, "environ", None)
        if environ is not None:
            file.source = make_content(
                plan,
                file.content,
                environ,
                on_close=file.content.close,
                start_response=environ.get(START_RESPONSE),
                on_transfer=self._on_transfer,
                sendfile=self._sendfile,
            )
            if isinstance(file.source, PositionedFile):
                # What Django's handler gives to the file_wrapper that it finds.
                self.file_to_stream = file.source
                offer_best_wrapper(environ)

    def _offload_for(self, request: HttpRequest) -> Offload | None:
        """Return what a front server sends, if it may send the file."""
        if self._sendfile is False:
            return None
        setting, environ = offload_setting(), getattr(request, "environ", None)
        if environ is not None:
            offload = offload_for(environ, setting)
        else:
            offload = offload_for_scope(getattr(request, "scope", {}), setting)
        return None if offload is None or may_be_removed(self, request) else offload

    def _answer_empty(self, plan: ResponsePlan) -> None:
        self._set_fields(plan.fields)
        self.status_code = plan.status
        self._reason_phrase = None
        # Without content it is nothing of which a compressor could make something.
        self.streaming = False

    @property
    def _is_untouched(self) -> bool:
        """Whether the body is the file as it was decided: nobody replaces, wraps or reads it, or has done so."""
        is_own = self._sends_as_it_is and self._own is not None and self._iterator is self._own
        return is_own and not (self._file and self._file.begun)

    def _take_back(self) -> None:
        """Make it the whole file again, which fits whatever others do to the response: a part fits nothing else."""
        plan, file = self._plan, self._file
        if plan is None or file is None:
            return
        status, reason, before = self._before
        if file.begun and plan.status != status:
            # The part has been read: it stays one.
            return
        self._set_fields(take_back(fields_of(self), before, plan.fields))
        if plan.status != status or plan.offloaded is not None:
            self._plan = None
            if self._status == plan.status:
                self._status = status
                self._reason_phrase = reason
            self.streaming = True
            file.segments = (file.content.region(),) if file.content.size and not self._bodiless else ()
            file.source = self.file_to_stream = None

    @property
    def status_code(self) -> int:
        return self._status

    @status_code.setter
    def status_code(self, value: int) -> None:
        changed = self._plan is not None and value != self._plan.status
        self._status = value
        if changed and self._is_untouched:
            self._take_back()

    def _set_streaming_content(self, value: Any) -> None:
        # Whoever empties it wants no body: the test client, for HEAD.
        if self._own is not None and self._iterator is self._own and value != [] and not _is_test_clients(value):
            self._take_back()
            if self._file is not None and isinstance(self._file.source, PositionedFile):
                # It is read now, and not to be told of as moved.
                self._file.source = self.file_to_stream = None
        if self._bodiless and not _is_test_clients(value):
            if hasattr(value, "close"):
                self._resource_closers.append(value.close)
            value = ()
        super()._set_streaming_content(value)

    @property
    def content(self) -> bytes:
        if self.streaming:
            return super().content  # type: ignore[no-any-return]
        return self._page

    @content.setter
    def content(self, value: bytes | str) -> None:
        if self.streaming:
            raise AttributeError("content: a file has none to set; set streaming_content")
        self._page = self.make_bytes(value)
        if self._page:
            del self.headers["Content-Length"]

    @property
    def text(self) -> str:
        return self.content.decode(self.charset or "utf-8")

    def __iter__(self) -> Iterator[bytes]:
        if self._page:
            return iter([] if self._bodiless else [self._page])
        parts: Iterator[bytes] = super().__iter__()
        return parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # Under Django's own ASGI handler, which would read all of what can only be iterated over in a thread.
        if self.is_async:
            async for part in super().__aiter__():
                yield part
        elif self._file is None or not self._is_untouched:
            # By what a class of somebody's own may do there.
            async for part in in_threads(await sync_to_async(iter)(self)):
                yield part
        else:
            self._file.begun = True
            for segment in self._file.segments:
                for start in range(0, len(segment), BLOCK):
                    count = min(BLOCK, len(segment) - start)
                    if isinstance(segment, FileRegion):
                        yield await reading.read(segment.file, segment.offset + start, count)
                    else:
                        yield segment[start : start + count]

    def close(self) -> None:
        super().close()
        if self._file is not None and self._file.truncated is not None:
            # For the server, which has not noticed: it must not take another request on this connection.
            error, self._file.truncated = self._file.truncated, None
            raise error


def _media_type_of(name: str, charset: str | None) -> str:
    media_type = guess_content_type(name)
    if charset is not None and media_type.startswith("text/"):
        media_type = f"{media_type.partition(';')[0]}; charset={check_value('charset', charset)}"
    return media_type


def fields_of(response: FileResponse) -> Fields:
    """Return the header fields of a response but for its cookies."""
    headers = response.headers
    if type(headers) is ResponseHeaders:
        # Its items() looks each of them up by name.
        return list(headers._store.values())
    return [(name, str(value)) for name, value in headers.items()]


@functools.cache
def offload_setting() -> object:
    """Return what the project's settings say of offloading, for `offload_of`."""
    # Kept, for looking for one that is not there takes as long as opening a file.
    return getattr(settings, SETTING, None)


def _look_again(*, setting: str, **_: Any) -> None:
    """Do as everything in Django that keeps what it has made of a setting: tests change them."""
    if setting == SETTING:
        offload_setting.cache_clear()


setting_changed.connect(_look_again)


def may_be_removed(response: Any, request: Any) -> bool:
    """Whether something is to be done when the response is closed that may be to delete the file."""
    uploads = getattr(request, "_files", None)
    if isinstance(uploads, MultiValueDict) and uploads:
        # Closing the request closes these, and a temporary one of them, which may be the file, is gone with that.
        return True
    usual = [response, request, response._iterator, response.file_to_stream]
    usual += [getattr(response, "_file", None), getattr(response, "_given", None)]
    known = set(map(id, usual)) - {id(None)}
    # What each of them is a method of; None: of nothing.
    owners = {id(getattr(closer, "__self__", None)) for closer in response._resource_closers}
    return not owners <= known


def _is_test_clients(stream: object) -> bool:
    """Whether a stream is what Django's test client makes of a response's: the same, and it sees the end."""
    client = sys.modules.get("django.test.client")
    return client is not None and getattr(stream, "gi_code", None) is client.closing_iterator_wrapper.__code__
