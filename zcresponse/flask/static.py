"""Static folders of an application and its blueprints, answered as `zcresponse.wsgi.static_app` answers."""

from __future__ import annotations

import mimetypes
import posixpath
from functools import partial
from types import MethodType

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import Forbidden, HTTPException, NotFound, ServiceUnavailable

from zcresponse.events import OnTransfer
from zcresponse.flask.response import ZeroCopyFileResponse, caching_fields
from zcresponse.http.mediatype import DEFAULT_MEDIA_TYPE
from zcresponse.plan import ResponsePlan
from zcresponse.plan.response import values_of
from zcresponse.plan.static import Site, StaticOptions, name_of
from zcresponse.wsgi.static import take_steps

__all__ = ["StaticFolders"]


class StaticFolders:
    """Sends the files of static folders.

    Args:
        options: `StaticOptions` but for `index` and `listing`, which Flask's static folders do not have. Links that
            lead inside are followed unless it says otherwise.
        on_transfer, sendfile: as for `ZeroCopy`.

    Raises:
        TypeError, ValueError: an option that cannot be meant; it is named.
    """

    def __init__(self, options: StaticOptions, on_transfer: OnTransfer | None, sendfile: bool | None) -> None:
        for name in ("index", "listing"):
            if name in options:
                raise TypeError(f"static: {name}: a static folder has none; see zcresponse.wsgi.static_app")
        self._options: StaticOptions = {"follow_symlinks": True, **options, "index": None}
        self._on_transfer = on_transfer
        self._sendfile = sendfile
        self._sites: dict[str, Site] = {}
        self._site(".")

    def take_over(self, app: Flask) -> None:
        """Answer for the folders of `app` and of its blueprints, unless they send their files in a way of their own."""
        if app.send_static_file == Flask.send_static_file.__get__(app):
            app.send_static_file = partial(self.send, app)  # type: ignore[method-assign]
        for endpoint, view in app.view_functions.items():
            owner = view.__self__ if isinstance(view, MethodType) else None
            if isinstance(owner, Blueprint) and view == Blueprint.send_static_file.__get__(owner):
                app.view_functions[endpoint] = partial(self.send, owner)

    def send(self, owner: Flask | Blueprint, filename: str) -> Response:
        """Return the response for a file of the owner's static folder: `send_static_file`.

        Raises:
            NotFound, Forbidden: there is no file to send.
            ServiceUnavailable: descriptors or memory have run out.
            RuntimeError: there is no static folder.
        """
        if owner.static_folder is None:
            raise RuntimeError("'static_folder' must be set to serve static_files.")
        url_path = "/" + posixpath.normpath(filename)
        environ = request.environ
        accept_encoding = environ.get("HTTP_ACCEPT_ENCODING")
        found = take_steps(self._site(owner.static_folder).answer_whole(accept_encoding, url_path), environ)
        if found.file is None:
            raise _refused(found.plan)
        try:
            fields = [(name, value) for name, value in found.plan.fields if name != "Content-Length"]
            name = name_of(found)
            if values_of(fields, "Content-Type") == [DEFAULT_MEDIA_TYPE]:
                # Flask knows the types of the machine, and those that the application has added.
                guessed, encoding = mimetypes.guess_type(name)
                if guessed is None or encoding is not None:
                    # `app.css.br`, asked for by that name, is no style sheet.
                    guessed = DEFAULT_MEDIA_TYPE
                fields = [(field, guessed if field == "Content-Type" else value) for field, value in fields]
            if found.plan.status == 200 and not values_of(fields, "Cache-Control"):
                fields += caching_fields(found.file.path, owner.get_send_file_max_age(filename), {}).items()
            response = ZeroCopyFileResponse(
                found.file,
                found.plan.status,
                fields,
                # A page for an error is nobody's to save.
                download_name=name if found.plan.status == 200 else None,
                on_transfer=self._on_transfer,
                sendfile=self._sendfile,
                etag=False,
                last_modified=False,
            )
        except BaseException:
            found.file.close()
            raise
        response.make_conditional(environ)
        return response

    def _site(self, folder: str) -> Site:
        # An application has but a few, and may set another at any time.
        if folder not in self._sites:
            self._sites[folder] = Site(folder, check_dir=False, **self._options)
        return self._sites[folder]


def _refused(plan: ResponsePlan) -> HTTPException:
    match plan.status:
        case Forbidden.code:
            return Forbidden()
        case ServiceUnavailable.code:
            (seconds,) = values_of(plan.fields, "Retry-After")
            return ServiceUnavailable(retry_after=int(seconds))
        case _:
            return NotFound()
