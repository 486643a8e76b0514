from __future__ import annotations

from typing import TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zcresponse.http import caching
from zcresponse.http.caching import format_cache_control


class Options(TypedDict, total=False):
    max_age: int | None
    immutable: bool
    private: bool
    public: bool
    no_cache: bool
    no_store: bool
    must_revalidate: bool
    s_maxage: int | None
    stale_while_revalidate: int | None


def test_the_module_says_what_is_public() -> None:
    assert caching.__all__ == ["CacheDirectives", "CacheOptions", "format_cache_control"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), None),
        (Options(max_age=None, immutable=False, public=False), None),
        (Options(max_age=0), "max-age=0"),
        (Options(max_age=3600), "max-age=3600"),
        (Options(public=True), "public"),
        (Options(private=True), "private"),
        (Options(no_cache=True), "no-cache"),
        (Options(no_store=True), "no-store"),
        (Options(must_revalidate=True), "must-revalidate"),
        (Options(immutable=True), "immutable"),
        (Options(s_maxage=60), "s-maxage=60"),
        (Options(stale_while_revalidate=30), "stale-while-revalidate=30"),
        # realistic
        (Options(public=True, max_age=31536000, immutable=True), "public, max-age=31536000, immutable"),
        (Options(max_age=60, stale_while_revalidate=600), "max-age=60, stale-while-revalidate=600"),
        (Options(public=True, max_age=60, s_maxage=600), "public, max-age=60, s-maxage=600"),
        (Options(private=True, no_cache=True), "private, no-cache"),
        (Options(private=True, max_age=60, must_revalidate=True), "private, max-age=60, must-revalidate"),
        (
            Options(no_store=True, no_cache=True, must_revalidate=True, max_age=0),
            "no-store, no-cache, max-age=0, must-revalidate",
        ),
        (Options(private=True, no_store=True), "private, no-store"),
        (Options(public=True, no_cache=True, s_maxage=0), "public, no-cache, s-maxage=0"),
    ],
)
def test_what_is_allowed_is_written(options: Options, expected: str | None) -> None:
    assert format_cache_control(**options) == expected


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (Options(public=True, private=True), ("private", "public")),
        (Options(private=True, s_maxage=60), ("private", "s_maxage")),
        (Options(no_store=True, public=True), ("no_store", "public")),
        (Options(no_store=True, immutable=True), ("no_store", "immutable")),
        (Options(no_store=True, max_age=60), ("no_store", "max_age")),
        (Options(no_store=True, s_maxage=60), ("no_store", "s_maxage")),
        (Options(no_store=True, stale_while_revalidate=60), ("no_store", "stale_while_revalidate")),
        (Options(no_cache=True, immutable=True), ("no_cache", "immutable")),
        (Options(no_cache=True, max_age=60), ("no_cache", "max_age")),
        (Options(no_cache=True, s_maxage=60), ("no_cache", "s_maxage")),
        (Options(no_cache=True, stale_while_revalidate=60), ("no_cache", "stale_while_revalidate")),
        (Options(must_revalidate=True, stale_while_revalidate=60), ("must_revalidate", "stale_while_revalidate")),
    ],
)
def test_contradictions_are_the_callers_mistake(options: Options, names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=" and ".join(names)):
        format_cache_control(**options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (Options(max_age=-1), "max_age"),
        (Options(s_maxage=-1), "s_maxage"),
        (Options(stale_while_revalidate=-(10**9)), "stale_while_revalidate"),
    ],
)
def test_negative_seconds_are_the_callers_mistake(options: Options, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} "):
        format_cache_control(**options)


seconds = st.none() | st.integers(-1, 10)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max_age": seconds,
            "immutable": st.booleans(),
            "private": st.booleans(),
            "public": st.booleans(),
            "no_cache": st.booleans(),
            "no_store": st.booleans(),
            "must_revalidate": st.booleans(),
            "s_maxage": seconds,
            "stale_while_revalidate": seconds,
        },
    )
)
def test_each_argument_is_written_once_or_all_are_refused(options: Options) -> None:
    try:
        value = format_cache_control(**options)
    except ValueError:
        return
    written = {directive.partition("=")[0].replace("-", "_") for directive in (value or "").split(", ") if directive}
    meant = {name for name, given in options.items() if given is not None and given is not False}
    assert written == meant
