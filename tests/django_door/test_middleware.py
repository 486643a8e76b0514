"""A file response among anybody's middleware: left alone it stays zero-copy, whatever else is done is done right."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import async_only_middleware, sync_and_async_middleware
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.django_project import (
    BODIES,
    DATA,
    MIDDLEWARE,
    MOVING,
    REQUESTS,
    SOME,
    WAYS,
    ask,
    check_is_sound,
    descriptors_of,
    project,
    unread,
)
from tests.support.table import FILES
from zcresponse import Transfer
from zcresponse.django import ZeroCopyFileResponse

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at descriptors through /proc")


def wrapping(get_response: Any) -> Any:
    """Passes the parts on as they come."""

    def parts(content: Any) -> Iterator[bytes]:
        yield from content

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        if response.streaming:
            response.streaming_content = parts(response.streaming_content)
        return response

    return middleware


@async_only_middleware
def wrapping_asynchronously(get_response: Any) -> Any:
    """Passes the parts on by an asynchronous generator, as the documentation shows it."""

    async def parts(content: Any, is_async: bool) -> AsyncIterator[bytes]:
        if is_async:
            async for part in content:
                yield part
        else:
            for part in content:
                yield part

    async def middleware(request: HttpRequest) -> Any:
        response = await get_response(request)
        if response.streaming:
            response.streaming_content = parts(response.streaming_content, response.is_async)
        return response

    return middleware


def inverting(get_response: Any) -> Any:
    """Makes something else of the same length of it, as it goes by."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        if response.streaming:
            response.streaming_content = map(inverted, response.streaming_content)
        return response

    return middleware


def inverted(data: bytes) -> bytes:
    return data.translate(bytes(255 - byte for byte in range(256)))


def zipping_at_once(get_response: Any) -> Any:
    """Reads all of it, and gives it compressed."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        if response.streaming and response.status_code == 200 and not response.has_header("Content-Encoding"):
            packed = gzip.compress(response.getvalue())
            response.streaming_content = [packed]
            response["Content-Encoding"] = "gzip"
            response["Content-Length"] = len(packed)
        return response

    return middleware


def reading(get_response: Any) -> Any:
    """Reads all of it, and puts it back."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        if response.streaming:
            response.streaming_content = [response.getvalue()]
        return response

    return middleware


def iterating(get_response: Any) -> Any:
    """Iterates over the response, and puts back what came."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        if response.streaming:
            response.streaming_content = list(response)
        return response

    return middleware


def moving(get_response: Any) -> Any:
    """Puts the stream into a response of another class."""

    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        if not response.streaming:
            return response
        made = StreamingHttpResponse(
            response.streaming_content, status=response.status_code, headers=dict(response.items())
        )
        made._resource_closers.append(response.close)
        return made

    return middleware


@sync_and_async_middleware
def silent(get_response: Any) -> Any:
    """Leaves everything as it is."""
    return get_response


BODIES_AFTER: list[tuple[Any, bytes]] = [
    (wrapping, DATA),
    (inverting, inverted(DATA)),
    (zipping_at_once, DATA),
    (reading, DATA),
    (iterating, DATA),
    (silent, DATA),
]


@pytest.mark.parametrize("place", ["above", "below", "without"])
@pytest.mark.parametrize(("middleware", "content"), BODIES_AFTER, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("way", SOME)
def test_whatever_is_done_to_the_body_the_answer_is_sound(
    way: str, middleware: Any, content: bytes, place: str, view: Any
) -> None:
    order: Any = {"above": (middleware, MIDDLEWARE), "below": (MIDDLEWARE, middleware), "without": (middleware,)}[place]
    with project(view, *order):
        for fields in REQUESTS.values():
            check_is_sound(ask(way, **fields), content=content)


@pytest.mark.parametrize("way", ["asgi", "pathsend", "plain pathsend", "stock asgi", "async client"])
@pytest.mark.parametrize("place", ["above", "below", "without"])
def test_an_asynchronous_generator_gets_all_of_it(place: str, way: str, view: Any) -> None:
    middleware = wrapping_asynchronously
    order: Any = {"above": (middleware, MIDDLEWARE), "below": (MIDDLEWARE, middleware), "without": (middleware,)}[place]
    with project(view, *order):
        answer = ask(way, **REQUESTS[206])
    assert (answer.status, answer.body) == (200, DATA)
    check_is_sound(answer)


@pytest.mark.parametrize("way", SOME)
def test_a_part_that_was_wrapped_is_whole_again(way: str, view: Any) -> None:
    with project(view, wrapping, MIDDLEWARE):
        answer = ask(way, **REQUESTS[206])
    assert (answer.status, answer.body, answer.values("Content-Length")) == (200, DATA, [str(len(DATA))])
    assert answer.values("Accept-Ranges") == []


@pytest.mark.parametrize("way", SOME)
def test_a_part_can_be_moved_into_another_response(way: str, view: Any) -> None:
    if way in ("asgi", "pathsend", "stock asgi"):
        pytest.skip("Django warns of any synchronous stream in a StreamingHttpResponse")
    with project(view, moving, MIDDLEWARE):
        for status, fields in REQUESTS.items():
            answer = ask(way, **fields)
            assert (answer.status, answer.body) == (status, BODIES[status])
            check_is_sound(answer)


@pytest.mark.parametrize("place", ["above", "below", "without"])
@pytest.mark.parametrize("way", SOME)
def test_a_body_that_was_only_looked_at_is_never_another(way: str, place: str, view: Any) -> None:
    seen: list[bytes] = []

    def looking(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            seen.append(b"".join(response.streaming_content))
            return response

        return middleware

    order: Any = {"above": (looking, MIDDLEWARE), "below": (MIDDLEWARE, looking), "without": (looking,)}[place]
    with project(view, *order):
        for fields in {}, REQUESTS[206]:
            answer = ask(way, **fields)
            part = DATA[5:100] if answer.status == 206 else DATA
            # With Django's own response there is nothing left.
            assert answer.body in (part, b"")
            assert seen.pop() == part


@pytest.mark.parametrize("middleware", [wrapping, reading, iterating])
@pytest.mark.parametrize("way", MOVING)
def test_nobody_is_told_that_a_body_was_moved_which_was_read(
    way: str, middleware: Any, view: Any, transfers: list[Transfer]
) -> None:
    with project(view, middleware, MIDDLEWARE):
        for fields in {}, REQUESTS[206]:
            check_is_sound(ask(way, **fields))
    assert all(transfer.way == "chunks" for transfer in transfers)


@pytest.mark.parametrize("place", ["above", "below", "without"])
@pytest.mark.parametrize("way", SOME)
def test_a_body_that_is_taken_out_is_not_sent(way: str, place: str, view: Any) -> None:
    def emptying(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response.streaming_content = []
            del response["Content-Length"]
            return response

        return middleware

    order: Any = {"above": (emptying, MIDDLEWARE), "below": (MIDDLEWARE, emptying), "without": (emptying,)}[place]
    with project(view, *order):
        assert ask(way).body == b""


@pytest.mark.parametrize("place", ["above", "below", "without"])
@pytest.mark.parametrize("way", SOME)
def test_a_body_that_is_replaced_is_the_new_one(way: str, place: str, view: Any) -> None:
    def replacing(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response.streaming_content = [b"some", b"thing"]
            response["Content-Length"] = 9
            return response

        return middleware

    order: Any = {"above": (replacing, MIDDLEWARE), "below": (MIDDLEWARE, replacing), "without": (replacing,)}[place]
    with project(view, *order):
        answer = ask(way, **REQUESTS[206])
    assert (answer.status, answer.body, answer.values("Content-Length")) == (200, b"something", ["9"])


@pytest.mark.parametrize("status", [203, 403, 500])
@pytest.mark.parametrize("place", ["above", "below", "without"])
@pytest.mark.parametrize("way", SOME)
def test_a_status_that_is_set_is_sent_with_the_whole_file(way: str, place: str, status: int, view: Any) -> None:
    def judging(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response.status_code = status
            return response

        return middleware

    order: Any = {"above": (judging, MIDDLEWARE), "below": (MIDDLEWARE, judging), "without": (judging,)}[place]
    with project(view, *order):
        answer = ask(way, **REQUESTS[206])
    assert answer.status == status
    check_is_sound(answer)


@pytest.mark.parametrize("way", MOVING)
def test_a_whole_file_with_another_status_is_still_moved(way: str, view: Any, transfers: list[Transfer]) -> None:
    def judging(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response.status_code = 203
            return response

        return middleware

    with project(view, judging, MIDDLEWARE):
        answer = ask(way)
    assert (answer.status, answer.body) == (203, DATA)
    assert [transfer.way for transfer in transfers] == [MOVING[way]]


@pytest.mark.parametrize("place", ["above", "below"])
@pytest.mark.parametrize("status", REQUESTS)
@pytest.mark.parametrize("way", SOME)
def test_headers_and_cookies_set_by_others_are_kept(
    way: str, status: int, place: str, view: Any, transfers: list[Transfer]
) -> None:
    def adding(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response.headers["X-Frame-Options"] = "DENY"
            response.headers["X-Name"] = "naïve"
            response.set_cookie("seen", "yes")
            return response

        return middleware

    order: Any = (adding, MIDDLEWARE) if place == "above" else (MIDDLEWARE, adding)
    with project(view, *order):
        answer = ask(way, **REQUESTS[status])
    assert (answer.status, answer.body) == (status, BODIES[status])
    assert (answer.values("X-Frame-Options"), answer.values("X-Name")) == (["DENY"], ["naïve"])
    assert [cookie.strip() for cookie in answer.values("Set-Cookie")] == ["seen=yes; Path=/"]
    if way in MOVING and BODIES[status]:
        assert [transfer.way for transfer in transfers] == [MOVING[way]]


def test_a_tag_that_another_middleware_takes_out_is_not_evaluated(view: Any) -> None:
    def hiding(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            del response["ETag"], response["Last-Modified"]
            return response

        return middleware

    with project(view, MIDDLEWARE, hiding):
        answer = ask("client", **REQUESTS[304])
    assert (answer.status, answer.values("ETag"), answer.values("Last-Modified")) == (200, [], [])


def test_a_tag_that_another_middleware_gives_is_evaluated(view: Any) -> None:
    def tagging(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response["ETag"] = '"theirs"'
            return response

        return middleware

    with project(view, MIDDLEWARE, tagging):
        assert ask("client", If_None_Match='"theirs"').status == 304
        assert ask("client", Range="bytes=0-9", If_Range='"theirs"').status == 206


@pytest.mark.parametrize("status", [412, 416])
@pytest.mark.parametrize("way", SOME)
def test_an_error_can_be_given_a_page(way: str, status: int, view: Any) -> None:
    def explaining(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            if response.status_code >= 400 and not response.streaming:
                assert (response.content, response.text) == (b"", "")
                response.content = "Sorry"
                response["Content-Type"] = "text/plain"
            return response

        return middleware

    with project(view, explaining, MIDDLEWARE):
        answer = ask(way, **REQUESTS[status])
    assert (answer.status, answer.body, answer.values("Content-Length")) in [
        (status, b"Sorry", []),
        (status, b"Sorry", ["5"]),
    ]


CHAINS = st.lists(
    st.sampled_from(
        [
            MIDDLEWARE,
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
            "django.middleware.common.CommonMiddleware",
            wrapping,
            reading,
            iterating,
            zipping_at_once,
            silent,
        ]
    ),
    max_size=5,
)
ASKED = st.fixed_dictionaries(
    {},
    optional={
        "Range": st.sampled_from(["bytes=5-99", "bytes=-7", "bytes=0-", f"bytes={len(DATA)}-", "x"]),
        "If_None_Match": st.sampled_from(['"v1"', 'W/"v1"', '"another"', "*"]),
        "If_Match": st.sampled_from(['"v1"', 'W/"v1"', '"another"', "*"]),
        "If_Modified_Since": st.sampled_from([FILES["data.bin"].last_modified, "Sun, 06 Nov 1994 08:49:37 GMT"]),
        "If_Unmodified_Since": st.sampled_from([FILES["data.bin"].last_modified, "Sun, 06 Nov 1994 08:49:37 GMT"]),
        "If_Range": st.sampled_from(['"v1"', 'W/"v1"', FILES["data.bin"].last_modified]),
        "Accept_Encoding": st.sampled_from(["gzip", "identity"]),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chain=CHAINS,
    way=st.sampled_from(sorted(WAYS)),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    fields=ASKED,
    in_view=st.booleans(),
)
def test_any_chain_gives_a_sound_answer(
    chain: list[Any], way: str, method: str, fields: dict[str, str], in_view: bool, path: Path
) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        return ZeroCopyFileResponse(path, etag="v1", request=request if in_view else None)

    # Without anybody who decides it is the server that leaves out the body.
    decided = in_view or MIDDLEWARE in chain or "stock" not in way
    with project(view, *chain):
        check_is_sound(ask(way, method, **fields), head=method == "HEAD" and decided)


# --- HEAD -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["above", "below"])
@pytest.mark.parametrize("middleware", ["django.middleware.gzip.GZipMiddleware", wrapping, zipping_at_once, silent])
@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("way", ["client", "wsgi", "moving stock wsgi", "pathsend", "stock asgi"])
def test_head_has_no_body_whatever_is_made_of_it(
    way: str, kind: str, middleware: Any, place: str, path: Path, finished: list[Any]
) -> None:
    closed: list[str] = []

    def view(request: HttpRequest) -> HttpResponseBase:
        response = ZeroCopyFileResponse(path if kind == "file" else unread())
        response._resource_closers.append(lambda: closed.append("once"))
        return response

    if kind == "stream" and middleware is zipping_at_once:
        pytest.skip("it reads what it gets")
    order = (middleware, MIDDLEWARE) if place == "above" else (MIDDLEWARE, middleware)
    with project(view, *order):
        answer = ask(way, "HEAD", Accept_Encoding="gzip")
    assert (answer.status, answer.body) == (200, b"")
    assert (closed, len(finished)) == (["once"], 1)


@pytest.mark.parametrize("way", ["client", "wsgi", "stock wsgi", "moving stock wsgi", "asgi", "stock asgi"])
def test_head_has_no_body_whatever_a_middleware_calls_it(way: str, path: Path) -> None:
    def renaming(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            request.method = "GET"
            return get_response(request)

        return middleware

    for source in path, unread():
        with project(lambda request, source=source: ZeroCopyFileResponse(source), renaming, MIDDLEWARE):
            assert ask(way, "HEAD").body == b""


@pytest.mark.parametrize("way", ["stock wsgi", "stock asgi"])
def test_head_has_no_body_with_a_status_of_somebody_elses(way: str, view: Any) -> None:
    def judging(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response.status_code = 203
            return response

        return middleware

    with project(view, judging, MIDDLEWARE):
        for fields in {}, REQUESTS[304]:
            answer = ask(way, "HEAD", **fields)
            assert (answer.status, answer.body, answer.values("Content-Length")) == (203, b"", [str(len(DATA))])


def test_a_view_that_decides_reads_no_stream_for_head() -> None:
    with project(lambda request: ZeroCopyFileResponse(unread(), request=request)):
        assert ask("stock wsgi", "HEAD").body == b""


# --- decided once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", SOME)
def test_it_is_decided_once_however_many_could(way: str, path: Path) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        return ZeroCopyFileResponse(path, etag="v1", request=request)

    with project(view, MIDDLEWARE, MIDDLEWARE):
        for status, fields in REQUESTS.items():
            answer = ask(way, **fields)
            assert (answer.status, answer.body) == (status, BODIES[status])
            check_is_sound(answer)


def test_other_responses_pass_untouched() -> None:
    for make in (
        lambda: HttpResponse("text"),
        lambda: StreamingHttpResponse(iter([b"text"])),
        lambda: HttpResponse(status=404, content=b"text"),
    ):
        with project(lambda request, make=make: make(), MIDDLEWARE):
            answer = ask("client", Range="bytes=0-1", If_None_Match="*")
        assert (answer.status in (200, 404), answer.body) == (True, b"text")


# --- nothing is left open ---------------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("place", ["above", "below"])
@pytest.mark.parametrize("way", SOME)
def test_a_response_that_is_dropped_on_the_way_closes_its_file(way: str, place: str, view: Any, path: Path) -> None:
    def dropping(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            get_response(request)
            return HttpResponse("another")

        return middleware

    order: Any = (dropping, MIDDLEWARE) if place == "above" else (MIDDLEWARE, dropping)
    with project(view, *order):
        for _ in range(10):
            assert ask(way, **REQUESTS[206]).body == b"another"
    # At once, and not when garbage is collected.
    assert descriptors_of(path) == 0


@pytest.mark.parametrize("way", ["stock wsgi", "wsgi", "asgi", "stock asgi"])
@pytest.mark.parametrize("place", ["above", "below"])
def test_an_error_in_a_middleware_leaves_nothing_open(place: str, way: str, view: Any) -> None:
    def failing(get_response: Any) -> Any:
        def middleware(request: HttpRequest) -> Any:
            get_response(request)
            raise RuntimeError

        return middleware

    order: Any = (failing, MIDDLEWARE) if place == "above" else (MIDDLEWARE, failing)
    with project(view, *order):
        assert ask(way, **REQUESTS[206]).status == 500


@pytest.mark.parametrize("way", ["stock wsgi", "wsgi", "asgi", "stock asgi"])
def test_an_error_in_a_view_leaves_nothing_open(way: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def view(request: HttpRequest) -> HttpResponseBase:
        response = ZeroCopyFileResponse(path, request=request)
        raise RuntimeError(response)

    # A record would keep the traceback, and that the response.
    caplog.set_level(logging.CRITICAL, logger="django.request")
    with project(view, MIDDLEWARE):
        assert ask(way, **REQUESTS[206]).status == 500


def test_an_error_while_a_wrapped_body_is_read_leaves_nothing_open(view: Any) -> None:
    def breaking(get_response: Any) -> Any:
        def parts(content: Any) -> Iterator[bytes]:
            yield next(content)
            raise RuntimeError

        def middleware(request: HttpRequest) -> Any:
            response = get_response(request)
            response.streaming_content = parts(response.streaming_content)
            return response

        return middleware

    with project(view, breaking, MIDDLEWARE):
        for way in "client", "wsgi", "moving wsgi", "asgi":
            with pytest.raises(RuntimeError):
                ask(way)
