from __future__ import annotations

import subprocess
import sys

import pytest

from zcresponse.environment import read_seconds, read_switch
from zcresponse.errors import SettingError
from zcresponse.uvicorn import ZeroCopyH11Protocol

NAME = "ZCRESPONSE_TEST"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("on", "ON", "1", " yes ", "true")),
        *((word, False) for word in ("off", "Off", "0", "no", "false")),
    ],
)
@pytest.mark.parametrize("default", [True, False])
def test_a_switch_has_its_usual_words(text: str, value: bool, default: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    assert read_switch(NAME, default=default) is value


@pytest.mark.parametrize("default", [True, False])
def test_what_is_not_set_or_empty_has_its_default(default: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_switch(NAME, default=default) is default
    assert read_seconds(NAME, default=60) == 60
    monkeypatch.setenv(NAME, "")
    assert read_switch(NAME, default=default) is default
    assert read_seconds(NAME, default=60) == 60


@pytest.mark.parametrize("text", ["auto", "offf", "2", "none"])
def test_another_word_is_a_named_mistake(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(SettingError, match=f"{NAME}: '{text}'"):
        read_switch(NAME, default=True)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("1.5", 1.5), ("3600", 3600.0)])
def test_seconds_are_a_number(text: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    assert read_seconds(NAME, default=60) == value


@pytest.mark.parametrize("text", ["-1", "inf", "nan", "1s", "sixty"])
def test_seconds_that_cannot_be_are_a_named_mistake(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ValueError, match=NAME):
        read_seconds(NAME, default=60)


@pytest.mark.parametrize("name", ["SENDFILE", "PATHSEND", "ZEROCOPYSEND", "STALL_TIMEOUT"])
def test_the_protocol_classes_refuse_to_load_with_a_mistake(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ZCRESPONSE_{name}", "maybe")
    run = subprocess.run([sys.executable, "-c", "import zcresponse.uvicorn"], capture_output=True, text=True)
    assert run.returncode == 1
    assert f"SettingError: ZCRESPONSE_{name}: 'maybe'" in run.stderr


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [("stall_timeout_s", -1, ValueError), ("stall_timeout_s", "60", TypeError), ("sendfile", "off", TypeError)],
)
def test_a_protocol_class_cannot_be_made_with_a_mistake(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{name}: "):
        type("Own", (ZeroCopyH11Protocol,), {name: value})
