"""Files beneath a directory as a Django view, and the pattern that leads to it."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Hashable
from typing import Any, Final, Unpack
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase, ResponseHeaders
from django.urls import URLPattern, re_path

from zcresponse.arguments import check_delivery
from zcresponse.django.response import ZeroCopyFileResponse
from zcresponse.django.sources import guess_content_type
from zcresponse.events import OnTransfer
from zcresponse.files import OpenedFile
from zcresponse.http.mediatype import DEFAULT_MEDIA_TYPE
from zcresponse.http.request import RequestHead
from zcresponse.plan import ResponsePlan
from zcresponse.plan.directory import plan_bad_method
from zcresponse.plan.static import Answer, Site, StaticOptions, name_of
from zcresponse.wsgi.static import take_steps

__all__ = ["serve", "static"]

#: Sites by what they were made of, and what keeps that from becoming something else.
_sites: Final[dict[Hashable, tuple[Site, object]]] = {}
#: A project has one or two; more come only from a directory that is made up for each request.
_MOST_SITES: Final = 256


def serve(
    request: HttpRequest,
    path: str,
    document_root: str | os.PathLike[str] | None = None,
    show_indexes: bool = False,
    *,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    **options: Unpack[StaticOptions],
) -> HttpResponseBase:
    """Send the file that a path means beneath a directory: Django's `django.views.static.serve`, fit for production.

    ```python
    path("media/<path:path>", serve, {"document_root": settings.MEDIA_ROOT})
    ```

    Conditions and ranges are answered whatever middleware there is.

    Args:
        path: relative to `document_root`; may come from the client.
        document_root: the directory. It must not come from the client.
        show_indexes: show what is in a directory; otherwise it is 404.
        on_transfer: called with a `Transfer` at the end of a body that is the file.
        sendfile: False: read and give blocks, whatever the server offers.
        options: `zcresponse.plan.static.StaticOptions` but for `listing`. No file stands for a directory unless `index`
            names one, and links that lead inside are followed.

    Raises:
        Http404: there is nothing that may be served.
        PermissionDenied: the file may not be read.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """
    refusal = plan_bad_method(RequestHead(request.method or ""))
    if refusal is not None:
        return _plain(refusal, request)
    site = _site_of(document_root, show_indexes, options)
    relative = posixpath.normpath(path).lstrip("/")
    url_path = "/" if relative in ("", ".") else f"/{relative}"
    query = request.META.get("QUERY_STRING", "").encode("latin-1", "replace")
    steps = site.answer_normal(request.META.get("HTTP_ACCEPT_ENCODING"), url_path, request.path, query)
    found = take_steps(steps, getattr(request, "environ", {}))
    if found.file is not None:
        # A page for an error and one that stands for a directory are nobody's to save.
        named = found.plan.status == 200 and name_of(found) == posixpath.basename(url_path)
        return _respond(found, found.file, request, on_transfer, sendfile, named=named)
    if found.plan.status == 404:
        raise Http404(f"{path!r} does not exist")
    if found.plan.status == 403:
        raise PermissionDenied(f"{path!r} may not be read")
    return _plain(found.plan, request)


def static(prefix: str, view: Any = serve, **kwargs: Any) -> list[URLPattern]:
    """Return the URL pattern for what lies beneath `prefix`, with DEBUG or without.

    ```python
    urlpatterns += static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT)
    ```

    As `django.conf.urls.static.static`, which answers with DEBUG only. No pattern where the prefix is on another host.

    Args:
        kwargs: for the view. What `serve` cannot mean by them is told now, but for the directory itself, which need not
            exist yet.

    Raises:
        ImproperlyConfigured: `prefix` is empty, and would hide every other address.
        TypeError, ValueError: an argument that cannot be meant; it is named.
    """
    if not prefix.strip("/"):
        raise ImproperlyConfigured("Empty static prefix not permitted")
    if urlsplit(prefix).netloc:
        return []
    if view is serve:
        if "document_root" not in kwargs:
            raise TypeError("document_root: a directory is needed")
        _check(**kwargs)
    return [re_path(f"^{re.escape(prefix.lstrip('/'))}(?P<path>.*)$", view, kwargs=kwargs)]


def _check(
    document_root: str | os.PathLike[str] | None,
    show_indexes: bool = False,
    on_transfer: OnTransfer | None = None,
    sendfile: bool | None = None,
    **options: Unpack[StaticOptions],
) -> None:
    """Tell a mistake in what `serve` will be called with."""
    check_delivery(on_transfer, sendfile)
    # A setting such as STATIC_ROOT may be empty where another answers for static files, as `runserver` does.
    _site_of(document_root or os.curdir, show_indexes, options)


def _site_of(document_root: str | os.PathLike[str] | None, show_indexes: bool, options: StaticOptions) -> Site:
    if not isinstance(document_root, str | os.PathLike) or os.fspath(document_root) == "":
        raise TypeError("document_root: a directory is needed")
    if "listing" in options:
        raise TypeError("listing: not an option here; see show_indexes")
    key = (os.fspath(document_root), show_indexes, *((name, _named(value)) for name, value in sorted(options.items())))
    known = _sites.get(key)
    if known is None:
        if len(_sites) >= _MOST_SITES:
            _sites.clear()
        given: StaticOptions = {"index": None, "follow_symlinks": True, **options, "listing": bool(show_indexes)}
        # Kept here too: another thread may clear them all.
        known = _sites[key] = Site(document_root, check_dir=False, **given), options
    return known[0]


def _named(value: object) -> Hashable:
    """Return what stands for an option's value in a key: the value, or which one it is."""
    return value if isinstance(value, Hashable) else id(value)


def _respond(
    found: Answer,
    file: OpenedFile,
    request: HttpRequest,
    on_transfer: OnTransfer | None,
    sendfile: bool | None,
    *,
    named: bool,
) -> ZeroCopyFileResponse:
    try:
        name = name_of(found)
        headers = ResponseHeaders({})
        for field, value in found.plan.fields:
            if field != "Content-Length":
                # Django has one value for each name, in whatever case it is written (RFC 9110 §5.3).
                headers[field] = f"{headers[field]}, {value}" if field in headers else value
        if headers["Content-Type"] == DEFAULT_MEDIA_TYPE:
            headers["Content-Type"] = guess_content_type(name)
        response = ZeroCopyFileResponse(
            file,
            filename=name,
            status=found.plan.status,
            headers=headers,
            on_transfer=on_transfer,
            sendfile=sendfile,
            etag=False,
            last_modified=False,
        )
        if not named and "Content-Disposition" not in headers:
            del response.headers["Content-Disposition"]
        response.decide(request)
        return response
    except BaseException:
        file.close()
        raise


def _plain(plan: ResponsePlan, request: HttpRequest) -> HttpResponse:
    """Return a response for an answer without a file."""
    body = b"".join(segment for segment in plan.segments if isinstance(segment, bytes))
    return HttpResponse(b"" if request.method == "HEAD" else body, status=plan.status, headers=dict(plan.fields))
