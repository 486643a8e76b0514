"""How answers are framed beside a transfer, and what is refused before a byte of it is sent."""

from __future__ import annotations

import json

import pytest

from tests.support.servers import wait_until
from tests.support.sites import LARGE, MIDDLE, SMALL, Site, Step, content, of_length, script, site_fixture
from tests.support.wire import NoAnswer, PeerReset, format_request

site = site_fixture()

_NAMES = [SMALL, MIDDLE, LARGE]


def _path(name: str, **extra: int) -> Step:
    return ["path", name, extra]


# --- versions and persistence -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _NAMES)
def test_http_10_with_a_length_is_closed(site: Site, name: str) -> None:
    with site.unharmed(), site.connect() as connection:
        response = connection.request("GET", f"/file/{name}", version="1.0")
        assert (response.status, response.body) == (200, content(name))
        assert response.head.framing == "length"
        connection.assert_closed()


@pytest.mark.parametrize("name", _NAMES)
def test_http_10_without_a_length_is_framed_as_uvicorn_does(site: Site, name: str) -> None:
    with site.unharmed(), site.connect() as connection:
        response = connection.request("GET", script(["start", 200, []], _path(name)), version="1.0")
        assert (response.status, response.body) == (200, content(name))
        # httptools' protocol answers HTTP/1.0 with chunks, ours or not.
        assert response.head.framing == ("close" if site.setup.parser == "h11" else "chunked")
        connection.assert_closed()


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_connection_that_is_to_close_closes_after_the_body(site: Site, name: str, chunked: bool) -> None:
    start: Step = ["start", 200, []] if chunked else of_length(len(content(name)))
    with site.unharmed(), site.connect() as connection:
        response = connection.get(script(start, _path(name)), ("Connection", "close"))
        assert (response.status, response.body) == (200, content(name))
        assert response.values("connection") == ["close"]
        connection.assert_closed()


@pytest.mark.parametrize("name", _NAMES)
def test_the_application_closes_after_the_body(site: Site, name: str) -> None:
    start: Step = ["start", 200, [["content-length", str(len(content(name)))], ["connection", "close"]]]
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(start, _path(name))).body == content(name)
        connection.assert_closed()


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _NAMES)
def test_an_answer_without_a_length_is_one_chunk(site: Site, name: str) -> None:
    with site.unharmed(), site.connect() as connection:
        connection.send(format_request("GET", script(["start", 200, []], _path(name))))
        assert connection.read_head().framing == "chunked"
        size = b"%x\r\n" % len(content(name))
        body = connection.receive_exactly(len(size) + len(content(name)) + 7)
        assert body == size + content(name) + b"\r\n0\r\n\r\n"
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
        report = site.transfers()[0]
        assert (report["completed"], report["bytes_promised"]) == (True, len(content(name)))
        assert report["bytes_sent"] == len(content(name))


def test_an_empty_file_without_a_length_is_the_last_chunk_alone(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        connection.send(format_request("GET", script(["start", 200, []], _path(SMALL, offset=1024))))
        assert connection.read_head().framing == "chunked"
        assert connection.receive_exactly(5) == b"0\r\n\r\n"
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("name", _NAMES)
def test_a_file_may_follow_body_messages_in_chunks(site: Site, name: str) -> None:
    steps: list[Step] = [["start", 200, []], ["body", "before", 1, True], _path(name)]
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(*steps)).body == b"before" + content(name)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


# --- no body ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("with_length", [True, False])
def test_head_gets_the_head_alone(site: Site, name: str, with_length: bool) -> None:
    start: Step = of_length(len(content(name))) if with_length else ["start", 200, []]
    with site.unharmed(), site.connect() as connection:
        for _ in range(2):
            response = connection.request("HEAD", script(start, _path(name)))
            assert (response.status, response.body) == (200, b"")
            assert response.values("content-length") == ([str(len(content(name)))] if with_length else [])
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("name", _NAMES)
def test_a_status_without_a_body_drops_the_file(site: Site, status: int, name: str) -> None:
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(["start", status, []], _path(name))).status == status
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_a_not_modified_answer_keeps_the_connection(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        (tag,) = connection.get(f"/file/{LARGE}").values("etag")
        for _ in range(3):
            assert connection.get(f"/file/{LARGE}", ("If-None-Match", tag)).status == 304
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


# --- range keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "count"), [(0, 1), (0, 100_000), (1, 99_999), (99_999, 1), (5, 40_000), (0, 0)])
def test_a_part_of_a_file_is_sent(site: Site, offset: int, count: int) -> None:
    target = script(of_length(count, status=206), _path(MIDDLE, offset=offset, count=count))
    with site.unharmed(), site.connect() as connection:
        assert connection.get(target).body == content(MIDDLE)[offset : offset + count]
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


def test_the_rest_of_a_file_is_sent(site: Site) -> None:
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(of_length(10), _path(MIDDLE, offset=99_990))).body == content(MIDDLE)[-10:]
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)


# --- refused before a byte --------------------------------------------------------------------------------------------

_WRONG: list[tuple[str, list[Step], str]] = [
    ("a missing file", [of_length(1000), _path("missing.bin")], "FileNotFoundError"),
    ("a directory", [of_length(1000), _path(".")], "NotARegularFileError"),
    ("a file shorter than promised", [of_length(2000), _path(SMALL)], "DeliveryError"),
    ("a large file shorter than promised", [of_length(9_000_000), _path(LARGE)], "DeliveryError"),
    ("a part longer than promised", [of_length(10), _path(LARGE, count=11)], "DeliveryError"),
    ("a part beyond the end", [of_length(1000), _path(SMALL, offset=100, count=1000)], "DeliveryError"),
    ("an offset beyond the end", [of_length(1000), _path(SMALL, offset=2000)], "DeliveryError"),
    ("a negative offset", [of_length(1000), _path(SMALL, offset=-1)], "DeliveryError"),
    ("a negative count", [of_length(1000), _path(SMALL, count=-1)], "DeliveryError"),
    ("no start", [_path(SMALL)], "DeliveryError"),
    ("no start of a large file", [_path(LARGE)], "DeliveryError"),
]


@pytest.mark.parametrize(("steps", "fault"), [row[1:] for row in _WRONG], ids=[row[0] for row in _WRONG])
def test_what_cannot_be_sent_is_a_500(site: Site, steps: list[Step], fault: str) -> None:
    with site.unharmed(faults=[fault]), site.connect() as connection:
        response = connection.get(script(*steps))
        assert (response.status, response.body) == (500, b"Internal Server Error")
        connection.assert_closed()


def test_a_missing_file_without_a_length_is_an_error_too(site: Site) -> None:
    with site.unharmed(faults=["FileNotFoundError"]), site.connect() as connection:
        connection.send(format_request("GET", script(["start", 200, []], _path("missing.bin"))))
        assert connection.read_head().status == 500


@pytest.mark.parametrize("name", [SMALL, MIDDLE])
@pytest.mark.parametrize("length", [10, 2_000_000])
def test_a_body_with_a_length_takes_no_file_of_another_length(site: Site, name: str, length: int) -> None:
    steps: list[Step] = [of_length(length), ["body", "12345", 1, True], _path(name)]
    # A file longer than promised counts as one that has grown, and then h11 finds the body before it too much.
    fault = "LocalProtocolError" if length == 10 and site.setup.parser == "h11" else "DeliveryError"
    with site.unharmed(faults=[fault]), site.connect() as connection:
        connection.send(format_request("GET", script(*steps)))
        connection.read_head()
        assert connection.read_to_end() == b"12345"


@pytest.mark.parametrize("name", [SMALL, MIDDLE])
def test_a_file_never_exceeds_the_length_together_with_body_messages(site: Site, name: str) -> None:
    # The file alone has the promised length, the body before it is too much.
    steps: list[Step] = [of_length(len(content(name))), ["body", "12345", 1, True], _path(name)]
    with site.unharmed(faults=["LocalProtocolError" if site.setup.parser == "h11" else "DeliveryError"]):
        with site.connect() as connection:
            connection.send(format_request("GET", script(*steps)))
            connection.read_head()
            assert connection.read_to_end() == b"12345"


# --- refused after a body ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_second_file_is_refused(site: Site, name: str, chunked: bool) -> None:
    start: Step = ["start", 200, []] if chunked else of_length(len(content(name)))
    with site.unharmed(faults=["DeliveryError"]), site.connect() as connection:
        assert connection.get(script(start, _path(name), _path(name))).body == content(name)
        # uvicorn closes the connection of an application that fails.
        connection.assert_closed()


@pytest.mark.parametrize("name", _NAMES)
def test_a_refused_second_file_does_no_harm(site: Site, name: str) -> None:
    steps: list[Step] = [of_length(len(content(name))), _path(name), ["refused", _path(name)],
                         ["refused", ["body", "x", 1, False]], ["refused", of_length(3)]]  # fmt: skip
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(*steps)).body == content(name)
        assert connection.get(f"/file/{MIDDLE}").body == content(MIDDLE)
        wait_until(lambda: site.log_since().count("refused ") == 3, what="the refusals")
        assert "refused nothing" not in site.log_since()


@pytest.mark.parametrize("name", _NAMES)
def test_a_file_after_a_whole_body_is_refused(site: Site, name: str) -> None:
    steps: list[Step] = [of_length(5), ["body", "12345", 1, False], ["refused", _path(name)]]
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(*steps)).body == b"12345"
        assert connection.get(f"/file/{MIDDLE}").body == content(MIDDLE)
        wait_until(lambda: "refused DeliveryError" in site.log_since(), what="the refusal")


def test_a_refused_file_before_the_start_does_no_harm(site: Site) -> None:
    steps: list[Step] = [["refused", _path(LARGE)], ["refused", _path("missing.bin")], of_length(len(content(LARGE))),
                         _path(LARGE)]  # fmt: skip
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(*steps)).body == content(LARGE)
        assert connection.get(f"/file/{MIDDLE}").body == content(MIDDLE)


def test_a_missing_file_may_be_replaced_by_a_body(site: Site) -> None:
    steps: list[Step] = [of_length(5), ["refused", _path("missing.bin")], ["body", "12345", 1, False]]
    with site.unharmed(), site.connect() as connection:
        assert connection.get(script(*steps)).body == b"12345"
        assert connection.get(f"/file/{MIDDLE}").body == content(MIDDLE)


def test_zerocopysend_is_not_offered_and_refused(site: Site) -> None:
    described = json.loads(site.get("/scope").body)
    assert "http.response.pathsend" in described["extensions"]
    assert "http.response.zerocopysend" not in described["extensions"]
    steps: list[Step] = [of_length(1024), ["refused", ["descriptor", SMALL, {}]], _path(SMALL)]
    with site.unharmed(), site.connect() as connection:
        connection.send(format_request("GET", script(*steps)))
        assert connection.read_head().status == 200
        # uvicorn refuses the message after the head; the body may follow.
        assert connection.receive_exactly(1024) == content(SMALL)


def test_a_start_that_uvicorn_refuses_sends_nothing(site: Site) -> None:
    start: Step = ["start", 200, [["content-length", "1024"], ["x-bad", "a\r\nb"]]]
    fault = "LocalProtocolError" if site.setup.parser == "h11" else "RuntimeError"
    for name in (SMALL, LARGE):
        with site.unharmed(faults=[fault]), site.connect() as connection:
            connection.send(format_request("GET", script(start, _path(name, count=1024))))
            # uvicorn counts the head as sent and closes.
            with pytest.raises((NoAnswer, PeerReset)):
                connection.read_head()


# --- time between the messages ----------------------------------------------------------------------------------------


def test_a_head_does_not_wait_for_its_body(site: Site) -> None:
    steps: list[Step] = [of_length(len(content(MIDDLE))), ["gate", f"head-{site.setup}"], _path(MIDDLE)]
    with site.unharmed(), site.connect() as connection:
        connection.send(format_request("GET", script(*steps)))
        assert connection.read_head().status == 200
        site.control("open", f"head-{site.setup}")
        assert connection.receive_exactly(len(content(MIDDLE))) == content(MIDDLE)
        assert connection.get(f"/file/{SMALL}").body == content(SMALL)
