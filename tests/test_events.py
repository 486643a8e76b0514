from __future__ import annotations

import asyncio
import logging
import typing

import pytest

from zcresponse import Transfer, events

DONE = Transfer("sendfile", "", 200, 10, 10, 0.5, True)


def test_a_transfer_is_logged_with_all_that_is_known(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="zcresponse")
    events.report(DONE)
    events.report(Transfer("chunks", "switched off", 206, 10, 4, 0.5, False))
    events.report(Transfer("pathsend", "the server moves it", 200, 10, None, None, None))
    assert [record.getMessage() for record in caplog.records] == [
        "200 by sendfile: 10 of 10 bytes",
        "206 by chunks (switched off): 4 of 10 bytes, not completed",
        "200 by pathsend (the server moves it): unknown of 10 bytes",
    ]
    assert caplog.records[0].__dict__["transfer"] == DONE


def test_subscribers_hear_while_they_are_subscribed() -> None:
    heard: list[Transfer] = []
    own: list[Transfer] = []
    with events.subscribe(heard.append):
        events.report(DONE, own.append)
    events.report(DONE)
    assert heard == own == [DONE]


def test_nobody_listening_is_known(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another test's application may listen for as long as the process lives.
    monkeypatch.setattr(events, "_subscribers", [])
    caplog.set_level(logging.INFO, logger="zcresponse")
    assert not events.wanted(None)
    assert events.wanted(print)
    with events.subscribe(print):
        assert events.wanted(None)
    caplog.set_level(logging.DEBUG, logger="zcresponse")
    assert events.wanted(None)


def test_a_listener_that_fails_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Transfer] = []

    def failing(transfer: Transfer) -> None:
        raise RuntimeError("no")

    with events.subscribe(failing), events.subscribe(heard.append):
        events.report(DONE)
    assert heard == [DONE]
    assert "failing" in caplog.text


def test_the_ways_are_listed_once() -> None:
    assert typing.get_args(events.Way) == (
        "none",
        "sendfile",
        "joined",
        "pathsend",
        "file_wrapper",
        "offload",
        "chunks",
    )


def test_an_error_is_told_in_words() -> None:
    assert events.reason_of(OSError(5, "Input/output error")) == "[Errno 5] Input/output error"
    assert events.reason_of(ZeroDivisionError()) == "ZeroDivisionError"
    assert events.reason_of(asyncio.CancelledError("by scope 7f41")) == "the response was cancelled"
