"""The door for Werkzeug, and what Flask's stands on: a response whose body is a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Unpack
from urllib.parse import quote

from werkzeug.datastructures import FileStorage, Headers
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import FileWrapper

from zcresponse.arguments import check_delivery, check_text
from zcresponse.events import OnTransfer
from zcresponse.files import MemoryFile, OpenedFile, open_content
from zcresponse.files.memory import ContentSource
from zcresponse.files.opened import path_to
from zcresponse.http.etags import parse_etag
from zcresponse.http.mediatype import guess_media_type
from zcresponse.http.request import RequestHead
from zcresponse.plan import FileOptions, Offload, ResponsePlan, Segment
from zcresponse.plan.response import (
    Description,
    Fields,
    check_options,
    describe_file,
    of_empty_answer,
    plan_described,
    take_back,
    values_of,
)
from zcresponse.wsgi.chunks import Chunks
from zcresponse.wsgi.transport import make_body, missing_date, offload_for, request_head

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ZeroCopyFileResponse"]

#: What may stand in an entity tag besides letters and digits (RFC 9110 §8.8.3), and the quotes around it.
_IN_TAGS: Final = "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\""

#: (To look a member of an enumeration up takes longer than to compare with it.)
_PART: Final = int(HTTPStatus.PARTIAL_CONTENT)
_LOCATIONS: Final = frozenset(("location", "content-location"))
_WITH_BODY: Final = frozenset((200, _PART))


class FileBody:
    """A file, or what was chosen of it, in the place of a response's iterable.

    It is bytes for whoever asks for them, and an open file for whoever recognises it.
    """

    def __init__(self, file: OpenedFile | MemoryFile) -> None:
        self.file = file
        #: What of it is the body; None: all, for nothing has been decided.
        self.segments: tuple[Segment, ...] | None = None

    def __iter__(self) -> Iterator[bytes]:
        file, segments = self.file, self.segments
        if segments is None:
            segments = (file.region(),) if file.size else ()
        return Chunks(segments, None, lambda *_: None)

    def close(self) -> None:
        self.file.close()


class FileSending(Response):
    """A Werkzeug response that answers with a file where it has been given one, and is like any other where not.

    What the headers say when the answer is decided is what conditions are evaluated on. It is decided once: by
    `make_conditional`, or when the response is sent.
    """

    #: The body, as long as nobody has put another into its place.
    _body: FileBody | None = None
    #: What its headers said of the file at first.
    _described: Description | None = None
    #: The decided answer.
    _plan: ResponsePlan | None = None
    #: What status and headers were before it was decided.
    _before: tuple[int, Fields]
    #: Whether conditions and ranges are for this response to answer even if nobody calls `make_conditional`.
    _conditional: bool = True
    _on_transfer: OnTransfer | None = None
    _sendfile: bool | None = None
    #: What is about to be given the headers.
    _start_response: StartResponse | None = None
    #: Whether bodies that Werkzeug's own `send_file` has made are taken for files.
    _adopts: bool = False

    def give_file(
        self,
        file: OpenedFile | MemoryFile,
        *,
        conditional: bool = True,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
    ) -> None:
        """Make `file` the body. It is closed with the response.

        Args:
            conditional: False: conditions and ranges are only evaluated for a caller of `make_conditional`.
            on_transfer: called with a `Transfer` at the end.
            sendfile: False: read and give blocks, whatever the server offers.
        """
        if isinstance(file, OpenedFile):
            # A response that is dropped on the way (an error in an after_request function) closes it quietly.
            file.hand_over()
        if self._body is not None:
            self._body.close()
        self._body = FileBody(file)
        self._plan = self._described = None
        self._conditional = conditional
        if on_transfer is not None:
            self._on_transfer = on_transfer
        if sendfile is not None:
            self._sendfile = sendfile
        self.response = self._body
        self.direct_passthrough = True

    def _file_body(self) -> FileBody | None:
        """Return the body, unless somebody has replaced it, as by compressing it."""
        if self._adopts and type(self.response) is FileWrapper and self.direct_passthrough:
            content = self._adopt(self.response.file)
            if content is not None:
                self.give_file(content, conditional=False)
        plan = self._plan
        if plan is not None and plan.status == _PART:
            self._undo_coding(plan)
        return self._body if self._body is not None and self.response is self._body else None

    def _undo_coding(self, plan: ResponsePlan) -> None:
        """Take back what a compressor has done to a part: of a compressed file it is none (RFC 9110 §14.1.2)."""
        if self.status_code != _PART or self.response is self._body:
            # What a view says of the file itself, it says of the whole file too.
            return
        if self.headers.getlist("Content-Encoding") == values_of(plan.fields, "Content-Encoding"):
            return
        self.response = self._body  # type: ignore[assignment]
        self.direct_passthrough = True
        for name in ("Content-Encoding", "Content-Length", "ETag"):
            self.headers.setlist(name, values_of(plan.fields, name))

    def _adopt(self, file: Any) -> OpenedFile | MemoryFile | None:
        """Return what Werkzeug's wrapper would read; None where it must be read, or is a part that somebody chose."""
        if self.status_code != 200 or "Content-Range" in self.headers:
            return None
        plain = plain_file(file)
        try:
            content = open_from(plain, file.tell(), closefd=False)
        except Exception:
            # Whatever a file object without an end may raise.
            return None
        length = self.content_length
        if length is not None and length < content.size:
            # Somebody's choice. (A larger one is Werkzeug's, of a BytesIO that does not stand at its start.)
            content.close()
            return None
        if "ETag" in self.headers and parse_etag(self.headers["ETag"]) is None:
            self.headers["ETag"] = f'"{writable_tag(self.get_etag()[0] or "")}"'
        content.close_also(plain.close)
        if isinstance(content, OpenedFile):
            # A front server is told the path.
            content.path = path_to(content, file)
        return content

    def make_conditional(
        self,
        request_or_environ: WSGIEnvironment | Request,
        accept_ranges: bool | str = False,
        complete_length: int | None = None,
    ) -> Response:
        """Decide how this request is answered: 200, 206, 304, 412 or 416.

        A second call decides anew if the validators have been changed since.

        Args:
            accept_ranges: whether ranges may be answered; a response that was made conditional always may.
            complete_length: not used: the file's is known.
        """
        body = self._file_body()
        if body is None:
            return super().make_conditional(request_or_environ, accept_ranges, complete_length)
        plan = self._plan
        if plan is not None and any(
            self.headers.getlist(name) != values_of(plan.fields, name) for name in ("ETag", "Last-Modified")
        ):
            self._take_back(plan)
            self.status_code = self._before[0]
            plan = None
        if plan is None:
            environ = request_or_environ.environ if isinstance(request_or_environ, Request) else request_or_environ
            # A later call need not say it again.
            self._conditional = bool(accept_ranges) or self._conditional
            self._decide(body, request_head(environ), ranges=self._conditional, offload=self._offload_for(environ))
        return self

    def _offload_for(self, environ: WSGIEnvironment) -> Offload | None:
        """Return what a front server sends, if it may send the file."""
        # It would answer conditions and ranges. And what is to be done at the end may be to delete the file.
        ours = self._sendfile is False or not self._conditional or self._on_close
        return None if ours else offload_for(environ, self._offload_setting())

    def _offload_setting(self) -> object:
        """Return what a framework's setting says of that, for `offload_of`."""
        return None

    def _decide(
        self, body: FileBody, request: RequestHead, *, ranges: bool, offload: Offload | None = None
    ) -> ResponsePlan:
        status, fields = self.status_code, list(self.headers)
        if not ranges and request.range is not None:
            request = replace(request, range=None)
        plan = plan_described(
            request, body.file, status=status, fields=fields, described=self._described, offload=offload
        )
        if not ranges and "Accept-Ranges" not in self.headers:
            plan.fields[:] = [field for field in plan.fields if field[0] != "Accept-Ranges"]
        self._before = (status, fields)
        self._plan = plan
        if plan.status != status:
            self.status_code = plan.status
        set_fields(self.headers, plan.fields)
        if plan.offloaded is None and (request.method != "HEAD" or plan.status != status):
            # As in Werkzeug a HEAD leaves the body to whoever asks for it; it is not sent. Nor is that which a front
            # server sends.
            body.segments = plan.segments
        return plan

    def _settle(self, body: FileBody, environ: WSGIEnvironment) -> ResponsePlan:
        """Return what is decided, now that the response is sent."""
        plan = self._plan
        if plan is None:
            request = request_head(environ) if self._conditional else RequestHead(environ["REQUEST_METHOD"])
            return self._decide(body, request, ranges=self._conditional, offload=self._offload_for(environ))
        if self.status_code != plan.status:
            # Somebody has given it a status of their own since, as by `return send_file(...), 404`. What was chosen for
            # another status does not fit it; the whole file does.
            self._take_back(plan)
            return self._decide(body, RequestHead(environ["REQUEST_METHOD"]), ranges=False)
        if _has_parts(plan) and self.mimetype and not _type_of(plan).startswith(f"{self.mimetype};"):
            # Somebody has said the file's type since. It stands in each part; the head's says that these are parts.
            self._take_back(plan)
            self.status_code = self._before[0]
            return self._decide(body, request_head(environ), ranges=True)
        if plan.offloaded is not None and self._on_close:
            # Somebody has set what is to be done at the end since.
            self._take_back(plan)
            return self._decide(body, request_head(environ), ranges=True)
        return plan

    def _take_back(self, plan: ResponsePlan) -> None:
        """Take back what the decision did to the headers, and leave what was done to them since."""
        self.headers[:] = take_back(list(self.headers), self._before[1], plan.fields)

    def _keep_offload_back(self) -> None:
        """Tell the front server of no file: there is another body."""
        if self._plan is not None and self._plan.offloaded is not None:
            self._take_back(self._plan)
            self._plan = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self._start_response = start_response
        try:
            return super().__call__(environ, start_response)
        finally:
            self._start_response = None

    def get_wsgi_response(self, environ: WSGIEnvironment) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        body = self._file_body()
        if body is not None and _has_no_say(type(self)):
            plan = self._settle(body, environ)
            fields = list(self.headers)
            if plan.status in _WITH_BODY and fields == plan.fields and not _has_location(fields):
                # What the two would make of it, without the copies that Werkzeug makes of each field.
                fields += missing_date(environ, fields)
                return self._made_body(body, plan, environ), self.status, fields
        return super().get_wsgi_response(environ)

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        body = self._file_body()
        if body is None:
            self._keep_offload_back()
            return super().get_wsgi_headers(environ)
        plan = self._settle(body, environ)
        headers = super().get_wsgi_headers(environ)
        if list(headers) != plan.fields:
            # The framing is not open to discussion, and a 304 without a tag needs its date.
            for name in ("Content-Length", "Content-Range", *(["Content-Type"] if _has_parts(plan) else [])):
                headers.setlist(name, values_of(plan.fields, name))
            if plan.status == HTTPStatus.NOT_MODIFIED:
                headers.setlist("Last-Modified", self.headers.getlist("Last-Modified"))
            elif plan.status not in (self._before[0], _PART):
                # Of the file, which is not sent.
                headers[:] = [*of_empty_answer(list(headers)), ("Content-Length", "0")]
        for field in missing_date(environ, headers):
            headers.add(*field)
        return headers

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        body = self._file_body()
        if body is None:
            return super().get_app_iter(environ)
        return self._made_body(body, self._settle(body, environ), environ)

    def _made_body(self, body: FileBody, plan: ResponsePlan, environ: WSGIEnvironment) -> Iterable[bytes]:
        return make_body(
            plan,
            body.file,
            environ,
            on_close=self.close,
            start_response=self._start_response,
            on_transfer=self._on_transfer,
            sendfile=self._sendfile,
        )

    def close(self) -> None:
        try:
            super().close()
        finally:
            # Where somebody has put another body into its place.
            if self._body is not None and self.response is not self._body:
                self._body.close()

    def freeze(self) -> None:
        self._keep_offload_back()
        super().freeze()
        if self._body is not None:
            self._body.close()
        # What is kept from now on, in a cache say, is a response like any other.
        self._body = self._plan = self._described = None
        vars(self).pop("_on_transfer", None)


class ZeroCopyFileResponse(FileSending):
    """A file as the answer to a request, with conditions and ranges, moved by the kernel where the server can.

    Takes Werkzeug's parameters in Werkzeug's order, with a file in the place of the body. The file is opened now; the
    answer is decided when it is sent, or by `make_conditional`, from what the headers say then.

    Args:
        path_or_file: a path, an open binary file, a descriptor, or a BytesIO.
        status, headers, mimetype, content_type: as in Werkzeug. Without a type it is told from the name by a table
            that is the same on every machine.
        download_name: the name to save under; it also tells the type.
        as_attachment: offer to save the file rather than show it, under `download_name` or the path's own name.
        offset, count: send only this window of the file, in bytes.
        closefd: for what was given open: whether it is closed after sending.
        conditional: False: conditions and ranges are only evaluated for a caller of `make_conditional`.
        on_transfer: called with a `zcresponse.Transfer` at the end.
        sendfile: False: read and give blocks, whatever the server offers.
        options: `etag`, `last_modified`, `max_age`, `immutable`, `private` and the like: see
            `zcresponse.plan.FileOptions`.

    Raises:
        FileNotFoundError, PermissionError, NotARegularFileError: what was to be opened.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """

    def __init__(
        self,
        path_or_file: ContentSource,
        status: int | str | HTTPStatus | None = None,
        headers: Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]] | None = None,
        mimetype: str | None = None,
        content_type: str | None = None,
        *,
        download_name: str | None = None,
        as_attachment: bool = False,
        offset: int = 0,
        count: int | None = None,
        closefd: bool = True,
        conditional: bool = True,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
        **options: Unpack[FileOptions],
    ) -> None:
        if options:
            check_options(options)
        if download_name is not None:
            check_text("download_name", download_name)
        check_delivery(on_transfer, sendfile)
        file = open_content(plain_file(path_or_file), offset=offset, count=count, closefd=closefd)
        try:
            if as_attachment and download_name is None:
                if file.path is None:
                    raise TypeError("as_attachment: without a path, download_name= is needed")
                download_name = os.path.basename(file.path)
            if isinstance(headers, Headers) or (content_type is None and mimetype is None):
                # Werkzeug would keep the caller's own.
                headers = given = Headers(headers)
                if content_type is None and mimetype is None and "Content-Type" not in given:
                    content_type = guess_media_type(download_name or file.path or "")
        except BaseException:
            file.close()
            raise
        self._answer_with(
            file,
            options,
            status=status,
            headers=headers,
            mimetype=mimetype,
            content_type=content_type,
            download_name=download_name,
            as_attachment=as_attachment,
            conditional=conditional,
            on_transfer=on_transfer,
            sendfile=sendfile,
        )

    def _answer_with(
        self,
        file: OpenedFile | MemoryFile,
        options: FileOptions,
        *,
        headers: Mapping[str, str | Iterable[str]] | Iterable[tuple[str, str]] | None,
        mimetype: str | None,
        content_type: str | None,
        download_name: str | None,
        as_attachment: bool,
        status: int | str | HTTPStatus | None = None,
        conditional: bool = True,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
    ) -> None:
        """Make it the answer with an opened file, which is closed where that fails; for the rest see the class.

        Args:
            headers: if they are a `Headers`, they become the response's own.
        """
        try:
            super().__init__(None, status=status, headers=headers, mimetype=mimetype, content_type=content_type)
            described = describe_file(
                file,
                fields=self.headers,
                filename=download_name,
                disposition="attachment" if as_attachment else "inline",
                **options,
            )
            set_fields(self.headers, described.fields)
            self.give_file(file, conditional=conditional, on_transfer=on_transfer, sendfile=sendfile)
            self._described = described
        except BaseException:
            file.close()
            raise


def set_fields(headers: Headers, fields: Fields) -> None:
    """Make these the headers. None of them may hold a line break."""
    kept = getattr(headers, "_list", None) if type(headers) is Headers else None
    if kept is None:
        headers[:] = fields
    else:
        # By itself it looks through each value once more, which takes as long as opening the file.
        kept[:] = fields


def _has_parts(plan: ResponsePlan) -> bool:
    """Whether several ranges were chosen."""
    return len(plan.segments) > 1


_without_say: Final[dict[type[Any], bool]] = {}


def _has_no_say(kind: type[FileSending]) -> bool:
    """Whether nobody but Werkzeug and we make head and body of a kind of response."""
    known = _without_say.get(kind)
    if known is None:
        makers = [base for base in kind.__mro__ if {"get_wsgi_headers", "get_app_iter"} & vars(base).keys()]
        known = _without_say[kind] = makers == [FileSending, Response]
    return known


def _has_location(fields: Fields) -> bool:
    """Whether a field is there that Werkzeug completes to a URL."""
    return not _LOCATIONS.isdisjoint([name.lower() for name, _ in fields])


def _type_of(plan: ResponsePlan) -> str:
    return "".join(values_of(plan.fields, "Content-Type"))


def plain_file(file: Any) -> Any:
    """Return what an upload stores, and everything else as it is."""
    return file.stream if isinstance(file, FileStorage) else file


def open_from(file: Any, position: int, *, closefd: bool = True) -> OpenedFile | MemoryFile:
    """`open_content` for a file object that stands at `position`. Behind the end there is nothing to read."""
    try:
        return open_content(file, offset=position, closefd=closefd)
    except ValueError:
        with open_content(file, closefd=False) as whole:
            end = whole.size
        if position <= end:
            raise
    return open_content(file, offset=end, closefd=closefd)


def writable_tag(text: str) -> str:
    """Return text that Flask would take for an entity tag as one that clients can send back: without blanks, say."""
    return quote(text, safe=_IN_TAGS)
