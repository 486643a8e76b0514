"""Flask's `send_file` and `send_from_directory`, and a response whose body is a file."""

from __future__ import annotations

import io
import mimetypes
import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Final, SupportsIndex, TypeAlias, Unpack, cast

import flask
import werkzeug.utils
from flask import Flask, Request, Response, current_app, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import NotFound
from werkzeug.http import http_date
from werkzeug.security import safe_join

from zcresponse.arguments import check_delivery, check_text
from zcresponse.events import OnTransfer
from zcresponse.files import MemoryFile, OpenedFile, open_content
from zcresponse.files.rooted import NOT_THERE
from zcresponse.http.caching import CacheDirectives, format_cache_control
from zcresponse.http.dates import format_http_date
from zcresponse.http.mediatype import DEFAULT_MEDIA_TYPE, guess_media_type
from zcresponse.machinetypes import guess_type
from zcresponse.plan import FileOptions
from zcresponse.plan.offload import SETTING
from zcresponse.plan.response import check_options
from zcresponse.werkzeug import FileSending, open_from, plain_file, set_fields, writable_tag
from zcresponse.werkzeug import ZeroCopyFileResponse as _WerkzeugFileResponse
from zcresponse.wsgi.transport import open_for
from zcresponse.wsgi.wrappers import without_file_wrapper

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


__all__ = ["Joined", "ZeroCopyFileResponse", "caching_fields", "send_file", "send_from_directory"]


_Path: TypeAlias = "str | os.PathLike[str] | os.PathLike[bytes]"
#: Directives that say for how long, or that nothing is to be kept.
_FRESHNESS: Final = ("no_store", "immutable", "s_maxage", "stale_while_revalidate")
_MaxAge: TypeAlias = "int | Callable[[str | None], int | None] | None"


class _FlaskFile(FileSending):
    """What every response with a file is that an application sends."""

    def _offload_setting(self) -> object:
        app = _current_app()
        return None if app is None else app.config.get(SETTING)


class ZeroCopyFileResponse(_FlaskFile, _WerkzeugFileResponse, Response):
    """A file as the answer to a request; see `zcresponse.werkzeug.ZeroCopyFileResponse` for what it takes.

    Within an application it is one of that application's own `response_class` too.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> ZeroCopyFileResponse:
        # Flask turns a response that is not of this class into one, and what makes it ours would be lost.
        app = _current_app()
        wanted = Response if app is None else app.response_class
        made = cls if wanted is Response or issubclass(cls, wanted) else _join(cls, wanted)
        return super().__new__(made)


def _current_app() -> Flask | None:
    """Return the application itself, of which each look at `current_app` would ask anew which one it is."""
    try:
        return _the_app()
    except RuntimeError:
        return None


# Flask's types call the proxies what they stand for, which has no such method. Through them each look would ask anew.
_the_request: Final[Callable[[], Request]] = cast("Any", request)._get_current_object
_the_app: Final[Callable[[], Flask]] = cast("Any", current_app)._get_current_object


class Joined(_FlaskFile):
    """What a class is besides that is made of one of ours and one of an application's."""

    #: The application's.
    _original: type[Response]
    #: Gives the class in whose place another of the application's is made ours, where the whole application is.
    _upgraded: Callable[[type[Response]], type[Response]] | None = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # Nobody else can find a class that was made here. What can be pickled has its body in memory (`freeze`) and
        # needs nothing of ours.
        state = {name: value for name, value in vars(self).items() if name not in FileSending.__annotations__}
        return _unpickled, (self._original, state)

    @classmethod
    def force_type(cls, response: Any, environ: WSGIEnvironment | None = None) -> Any:
        if cls._upgraded is None or not isinstance(response, cls._original):
            return super().force_type(response, environ)
        if not isinstance(response, FileSending):
            # A view's own kind of response stays one.
            response.__class__ = cls._upgraded(type(response))
        return response


def _unpickled(kind: type[Response], state: dict[str, Any]) -> Response:
    response = kind.__new__(kind)
    vars(response).update(state)
    return response


_joined: Final[dict[tuple[type[FileSending], type[Response]], type[FileSending]]] = {}


def _join(ours: type[FileSending], theirs: type[Response]) -> type[FileSending]:
    """Return the class that is both."""
    if (ours, theirs) not in _joined:
        names = {"__module__": ours.__module__, "__doc__": ours.__doc__}
        if issubclass(theirs, Joined):
            _joined[ours, theirs] = type(ours.__name__, (ours, theirs), names)
        else:
            _joined[ours, theirs] = type(ours.__name__, (ours, Joined, theirs), {**names, "_original": theirs})
    return _joined[ours, theirs]


def send_file(
    path_or_file: _Path | IO[bytes],
    mimetype: str | None = None,
    as_attachment: bool = False,
    download_name: str | None = None,
    conditional: bool = True,
    etag: bool | str = True,
    last_modified: datetime | float | None = None,
    max_age: _MaxAge = None,
    *,
    offset: int | None = None,
    count: int | None = None,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    **cache: Unpack[CacheDirectives],
) -> Response:
    """Send a file to the client: Flask's `send_file`, with complete conditions and ranges, moved by the kernel.

    Args:
        path_or_file: a path, relative to the application's root path, or a binary file, which is closed after sending.
            A real file and a BytesIO have ranges; whatever else can be read is sent as one stream.
        mimetype, as_attachment, download_name, conditional, etag, last_modified, max_age: as in Flask; but an open file
            whose name leads to it has an ETag and a Last-Modified as well.
        offset: first byte to send; None: where a file that was given open stands, otherwise 0.
        count: how many bytes to send; None: all that follow.
        on_transfer: called with a `zcresponse.Transfer` at the end.
        sendfile: False: read and give blocks, whatever the server offers.
        cache: further directives for Cache-Control, such as `private=True`; it is then made of them and `max_age`.

    Raises:
        FileNotFoundError, PermissionError, NotARegularFileError: what was to be opened.
        TypeError, ValueError: an argument that cannot be meant.
    """
    app, environ = _the_app(), _the_request().environ
    if max_age is None:
        max_age = app.get_send_file_max_age
    if isinstance(path_or_file, (str, os.PathLike)):
        path = os.fsdecode(path_or_file)
        if path[:1] != "/":
            path = os.path.join(app.root_path, path)
        if _by_front_server(app, offset, count):
            fields = caching_fields(path, max_age, cache)
            response = flask.send_file(
                path, mimetype, as_attachment, download_name, conditional, etag, last_modified, lambda _: None
            )
            return _dressed(response, fields)
        content = open_for(environ, path, offset=offset or 0, count=count)
    else:
        if isinstance(path_or_file, io.TextIOBase):
            raise ValueError("path_or_file: a file opened in binary mode or a BytesIO is needed")
        if not hasattr(path_or_file, "read"):
            raise TypeError(f"path_or_file: a path or a binary file is needed, not {type(path_or_file).__name__}")
        if download_name is None and (mimetype is None or as_attachment):
            other = "" if as_attachment else ", or mimetype"
            raise TypeError(f"download_name{other}: is needed where there is no path to take a name from")
        position = _position(path_or_file) if offset is None else offset
        try:
            if position is None:
                raise TypeError("path_or_file: nobody knows where it stands")
            plain = plain_file(path_or_file)
            if offset is None and count is None:
                content = open_from(plain, position)
            else:
                content = open_content(plain, offset=position, count=count)
        except (TypeError, OSError):
            if offset is not None or count is not None:
                raise
            fields = caching_fields(None, max_age, cache)
            response = _send_stream(
                path_or_file, mimetype, as_attachment, download_name, conditional, etag, last_modified
            )
            return _dressed(response, fields)
    return _send(
        environ,
        content,
        mimetype=mimetype,
        as_attachment=as_attachment,
        download_name=download_name,
        conditional=conditional,
        etag=etag,
        last_modified=last_modified,
        max_age=max_age,
        on_transfer=on_transfer,
        sendfile=sendfile,
        **cache,
    )


def send_from_directory(directory: _Path, path: _Path, **kwargs: Any) -> Response:
    """Send a file from beneath a directory: Flask's `send_from_directory`.

    Args:
        directory: what must not be left, relative to the application's root path. It must not come from the client.
        path: relative to `directory`; may come from the client.
        kwargs: as for `send_file`.

    Raises:
        werkzeug.exceptions.NotFound: nothing there, not a file, or not beneath `directory`.
        PermissionError: the file itself may not be read.
        TypeError, ValueError: as `send_file`.
    """
    joined = safe_join(os.fsdecode(directory), os.fsdecode(path))
    if joined is None or "\0" in joined:
        raise NotFound
    app, environ = _the_app(), _the_request().environ
    full = os.path.join(app.root_path, joined)
    offset, count = kwargs.pop("offset", None), kwargs.pop("count", None)
    if _by_front_server(app, offset, count) and os.path.isfile(full):
        return send_file(full, **kwargs)
    try:
        content = open_for(environ, os.fsencode(full), offset=offset or 0, count=count)
    except UnicodeEncodeError:
        raise NotFound from None
    except OSError as error:
        # A folder on the way that may not be entered is as good as none.
        if error.errno in NOT_THERE or (isinstance(error, PermissionError) and not os.path.isfile(full)):
            raise NotFound from error
        raise
    return _send(environ, content, **kwargs)


def _send(
    environ: WSGIEnvironment,
    content: OpenedFile | MemoryFile,
    mimetype: str | None = None,
    as_attachment: bool = False,
    download_name: str | None = None,
    conditional: bool = True,
    etag: bool | str = True,
    last_modified: datetime | float | None = None,
    max_age: _MaxAge = None,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    **cache: Unpack[CacheDirectives],
) -> Response:
    try:
        if download_name is not None:
            check_text("download_name", download_name)
        elif content.path is not None:
            download_name = os.path.basename(content.path)
        check_delivery(on_transfer, sendfile)
        fields = caching_fields(content.path, max_age, cache)
        content_type = None
        if mimetype is None and download_name is not None:
            content_type, mimetype, encoding = _guess(download_name)
            if encoding is not None and not as_attachment:
                fields["Content-Encoding"] = encoding
        options: FileOptions = {}
        if etag is not True:
            options["etag"] = writable_tag(etag) if isinstance(etag, str) else bool(etag)
        if isinstance(last_modified, datetime | int | float):
            options["last_modified"] = last_modified
        elif last_modified is not None:
            # What else Werkzeug can write: a date, a struct_time.
            fields["Last-Modified"] = http_date(last_modified)
        if options:
            check_options(options)
        headers = Headers()
        set_fields(headers, [*fields.items()])
        response = ZeroCopyFileResponse.__new__(ZeroCopyFileResponse)
    except BaseException:
        content.close()
        raise
    response._answer_with(
        content,
        options,
        headers=headers,
        mimetype=mimetype,
        content_type=content_type,
        download_name=download_name,
        as_attachment=as_attachment,
        conditional=conditional,
        on_transfer=on_transfer,
        sendfile=sendfile,
    )
    if conditional:
        response.make_conditional(environ)
    return response


def _position(file: IO[bytes]) -> int | None:
    try:
        return file.tell()
    except Exception:
        # Whatever somebody's reader raises.
        return None


def _by_front_server(app: Flask, offset: int | None, count: int | None) -> bool:
    """Whether a front server sends the file, and evaluates conditions and ranges: a window is ours to send."""
    return bool(app.config["USE_X_SENDFILE"]) and offset is None and count is None


def _guess(name: str) -> tuple[str | None, str | None, str | None]:
    """Return what Flask would tell from a name: a whole Content-Type, or a type alone, and the coding.

    Our table comes before the machine's.
    """
    guessed, encoding = guess_type(name)
    if encoding is None:
        own = guess_media_type(name)
    else:
        stem, suffix = os.path.splitext(name)
        # A name such as `site.tgz` has no suffix to tell by besides that of both.
        own = guess_media_type(stem) if suffix in mimetypes.encodings_map else DEFAULT_MEDIA_TYPE
    return (None, guessed, encoding) if own == DEFAULT_MEDIA_TYPE and guessed else (own, None, encoding)


def _dressed(response: Response, caching: dict[str, str]) -> Response:
    """Give a response that Flask has made the caching fields that were asked for."""
    for name in ("Cache-Control", "Expires"):
        response.headers.remove(name)
    response.headers.update(caching)
    return response


def caching_fields(path: str | None, max_age: _MaxAge, cache: CacheDirectives) -> dict[str, str]:
    """Return the caching fields that Flask would give, or those that were asked for."""
    if cache:
        unknown = cache.keys() - CacheDirectives.__optional_keys__
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))}: send_file has no such argument")
    if max_age is None:
        max_age = current_app.get_send_file_max_age
    if callable(max_age):
        max_age = max_age(path)
    if cache:
        if max_age is None and not any(map(cache.get, _FRESHNESS)):
            # As Flask: who says nothing of how long wants to be asked.
            cache = {"no_cache": True, **cache}
        directives = format_cache_control(max_age=None if max_age is None else int(max_age), **cache)
        return {} if directives is None else {"Cache-Control": directives}
    if max_age is None:
        return {"Cache-Control": "no-cache"}
    max_age = int(max_age)
    return {
        "Cache-Control": f"public, max-age={max_age}" if max_age > 0 else f"no-cache, max-age={max_age}",
        "Expires": format_http_date(int(time.time() + max_age)),
    }


def _send_stream(
    file: IO[bytes],
    mimetype: str | None,
    as_attachment: bool,
    download_name: str | None,
    conditional: bool,
    etag: bool | str,
    last_modified: datetime | float | None,
) -> Response:
    """Send what can only be read from front to back, and whose length nobody knows.

    Never by the server's file_wrapper: the descriptor of a GzipFile, for one, is that of the compressed bytes.
    """
    response = werkzeug.utils.send_file(
        file,
        without_file_wrapper(request.environ),
        mimetype,
        as_attachment,
        download_name,
        conditional,
        etag,
        last_modified,
        response_class=current_app.response_class,
    )
    return cast("Response", response)
