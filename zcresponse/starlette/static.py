"""A directory in Starlette's way: the parameters, errors and hooks of `starlette.staticfiles.StaticFiles`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Final, Unpack, cast

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from zcresponse.arguments import check_delivery
from zcresponse.asgi.static import take_steps
from zcresponse.asgi.transport import request_head
from zcresponse.events import OnTransfer
from zcresponse.files import OpenedFile
from zcresponse.http.request import RequestHead
from zcresponse.plan import FileOptions, Offload, ResponsePlan
from zcresponse.plan.directory import plan_bad_method
from zcresponse.plan.response import check_options, values_of
from zcresponse.plan.static import Answer, Site, StaticOptions, is_open
from zcresponse.starlette.response import ZeroCopyFileResponse

__all__ = ["ZeroCopyStaticFiles"]

#: Options for which Starlette has words of its own, or nothing to show.
_STARLETTES: Final = {
    "index": "html=True",
    "listing": "zcresponse.asgi.static_app",
    "follow_symlinks": "follow_symlink",
}
#: Options that somebody else's `lookup_path` or `file_response` cannot heed.
_OURS: Final = ("not_found", "precompressed", "hashed_names", "suffix_headers", "file_headers")


class ZeroCopyStaticFiles(StaticFiles):
    """Serves the files beneath a directory: conditions, ranges, index files, and nothing from outside.

    A drop-in for `starlette.staticfiles.StaticFiles`, to be mounted as that is. What cannot be served is an
    `HTTPException`: 404, 403 for what may not be read, 405, and 503 when descriptors or memory run out.

    The response of `get_response` is decided when it is sent: conditions are evaluated on the header fields that it has
    by then. A subclass with a `lookup_path` or `file_response` of its own gets Starlette's way of finding files, and
    `zcresponse.starlette.ZeroCopyFileResponse` for what it finds; one with an `is_not_modified` decides about 304.

    Args:
        directory, packages, html, check_dir: as in Starlette.
        follow_symlink: follow links wherever they lead. By default those that lead inside are followed, as there.
        on_transfer: called with a `Transfer` at the end of each file response.
        sendfile: False: read and send chunks, whatever the server offers.
        options: `zcresponse.plan.static.StaticOptions` but for `index`, `listing` and `follow_symlinks`. Names that
            begin with a dot are 404 unless `hidden=True`.

    Raises:
        RuntimeError: `directory` is not there; at the first request with `check_dir=False`.
        TypeError, ValueError: an option that cannot be meant; it is named.
    """

    def __init__(
        self,
        *,
        directory: str | os.PathLike[str] | None = None,
        packages: list[str | tuple[str, str]] | None = None,
        html: bool = False,
        check_dir: bool = True,
        follow_symlink: bool = False,
        on_transfer: OnTransfer | None = None,
        sendfile: bool | None = None,
        **options: Unpack[StaticOptions],
    ) -> None:
        super().__init__(
            directory=directory, packages=packages, html=html, check_dir=check_dir, follow_symlink=follow_symlink
        )
        for name, instead in _STARLETTES.items():
            if name in options:
                raise TypeError(f"{name}: not an option here; see {instead}")
        self._finds_by_itself = _overrides(self, "lookup_path") or _overrides(self, "file_response")
        for name in _OURS:
            if self._finds_by_itself and options.get(name):
                raise TypeError(f"{name}: not with a lookup_path or file_response of your own")
        check_delivery(on_transfer, sendfile)
        self._decides_by_itself = _overrides(self, "is_not_modified")
        self._on_transfer = on_transfer
        self._sendfile = sendfile
        self._options = options
        self._file_options = cast(
            "FileOptions", {name: value for name, value in options.items() if name in FileOptions.__optional_keys__}
        )
        check_options(self._file_options)
        self._site: Site | None = None
        self._directories: list[Any] = []
        self._look_again()

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the response for a path, which is relative to the directory.

        Raises:
            HTTPException: there is no file to send.
        """
        relative = os.path.normpath(path)
        # As Starlette gives it, it has the system's separators.
        url_path = "/" if relative == "." else "/" + relative.replace(os.sep, "/")
        if self._finds_by_itself:
            if not self._options.get("hidden", False) and not is_open(url_path):
                raise HTTPException(404)
            return await super().get_response(path, scope)
        request = request_head(scope)
        refusal = plan_bad_method(request)
        if refusal is not None:
            raise _refused(refusal)
        site = self._look_again()
        if site is None:
            raise HTTPException(404)
        own = scope["path"] or scope.get("root_path", "").rstrip("/")
        steps = site.answer_normal(request.accept_encoding, url_path, own, scope.get("query_string", b""))
        found = await take_steps(steps)
        if found.file is not None:
            return self._respond(found, found.file, scope)
        for location in values_of(found.plan.fields, "Location"):
            return RedirectResponse(location)
        raise _refused(found.plan)

    def _respond(self, found: Answer, file: OpenedFile, scope: Scope) -> Response:
        response = _FoundFile(found.plan, file, self._on_transfer, self._sendfile)
        if self._decides_by_itself and found.plan.status == 200:
            if self.is_not_modified(response.headers, Headers(scope=scope)):
                file.close()
                return NotModifiedResponse(response.headers)
            response.may_be_not_modified = False
        return response

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return the response for a file that somebody has found, by its path."""
        if self._decides_by_itself:
            # What is to be decided is on Starlette's response only.
            return super().file_response(full_path, stat_result, scope, status_code)
        return ZeroCopyFileResponse(
            full_path,
            status_code,
            on_transfer=self._on_transfer,
            sendfile=self._sendfile,
            **self._file_options,
        )

    def _look_again(self) -> Site | None:
        """Return the site of the directories, which others may change at any time as those of a `StaticFiles`."""
        if self._directories != self.all_directories:
            self._directories = list(self.all_directories)
            options: StaticOptions = {"not_found": "404.html" if self.html else None, **self._options}
            options["index"] = "index.html" if self.html else None
            options["follow_symlinks"] = "anywhere" if self.follow_symlink else True
            self._site = Site(self._directories, check_dir=False, **options)
        return self._site


class _FoundFile(ZeroCopyFileResponse):
    """A file that was found, opened and described."""

    def __init__(
        self, plan: ResponsePlan, file: OpenedFile, on_transfer: OnTransfer | None, sendfile: bool | None
    ) -> None:
        super().__init__(
            file.path or "", plan.status, on_transfer=on_transfer, sendfile=sendfile, etag=False, last_modified=False
        )
        # A response that is dropped on the way closes it quietly.
        file.hand_over()
        self.raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in plan.fields]
        #: Whether a 304 is ours to answer.
        self.may_be_not_modified = True
        self._found = file

    def _open_at_once(self) -> OpenedFile:
        return self._found

    def _request_head(self, scope: Scope) -> RequestHead:
        request = super()._request_head(scope)
        return request if self.may_be_not_modified else replace(request, if_none_match=None, if_modified_since=None)

    def _offload_for(self, scope: Scope) -> Offload | None:
        # A front server would answer a 304 by itself.
        return super()._offload_for(scope) if self.may_be_not_modified else None


def _refused(plan: ResponsePlan) -> HTTPException:
    headers = {name: value for name, value in plan.fields if name in ("Allow", "Retry-After")}
    return HTTPException(plan.status, headers=headers or None)


def _overrides(files: ZeroCopyStaticFiles, name: str) -> bool:
    return getattr(type(files), name) is not getattr(ZeroCopyStaticFiles, name)
