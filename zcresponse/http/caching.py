"""Cache-Control of an answer, from what its sender allows (RFC 9111 §5.2.2)."""

from __future__ import annotations

from typing import TypedDict

__all__ = ["CacheDirectives", "CacheOptions", "format_cache_control"]


class CacheDirectives(TypedDict, total=False):
    """What `format_cache_control` takes besides `max_age`, for those who have a `max_age` of their own."""

    immutable: bool
    private: bool
    public: bool
    no_cache: bool
    no_store: bool
    must_revalidate: bool
    s_maxage: int | None
    stale_while_revalidate: int | None


class CacheOptions(CacheDirectives, total=False):
    """What `format_cache_control` takes, for those who pass it on."""

    max_age: int | None


def format_cache_control(
    *,
    max_age: int | None = None,
    immutable: bool = False,
    private: bool = False,
    public: bool = False,
    no_cache: bool = False,
    no_store: bool = False,
    must_revalidate: bool = False,
    s_maxage: int | None = None,
    stale_while_revalidate: int | None = None,
) -> str | None:
    """Write a Cache-Control value, or None if nothing was said.

    Directives of which one forbids what the other allows are refused, since caches would silently follow only
    the stricter one.

    Args:
        max_age: Seconds for which a cache may answer without asking; 0 means never (RFC 9111 §5.2.2.1).
        immutable: The content will not change while it is fresh, so that a reload need not ask (RFC 8246).
        private: Only the user's own cache may store it.
        public: Any cache may store it, also where it otherwise would not.
        no_cache: A cache must ask each time before it answers.
        no_store: No cache may store it.
        must_revalidate: A cache must not answer with stale content, even if it cannot ask.
        s_maxage: `max_age` for shared caches, in seconds.
        stale_while_revalidate: Seconds past freshness for which a cache may answer while it asks (RFC 5861).

    Raises:
        TypeError: a number is not an int; delta-seconds have no fraction (RFC 9111 §1.2.2).
        ValueError: a number is negative, or two arguments contradict each other.
    """
    for name, seconds in (
        ("max_age", max_age),
        ("s_maxage", s_maxage),
        ("stale_while_revalidate", stale_while_revalidate),
    ):
        if seconds is None:
            continue
        if type(seconds) is not int:
            raise TypeError(f"{name}: an int is needed, not {type(seconds).__name__}")
        if seconds < 0:
            raise ValueError(f"{name} must be 0 seconds or more, not {seconds}")

    given = {
        "public": public,
        "immutable": immutable,
        "no_cache": no_cache,
        "must_revalidate": must_revalidate,
        # No seconds at all allow nothing; "no-store, max-age=0" repeats itself and is widely written.
        "max_age": bool(max_age),
        "s_maxage": bool(s_maxage),
        "stale_while_revalidate": bool(stale_while_revalidate),
    }
    for name, present, forbidden in (
        ("private", private, ("public", "s_maxage")),
        ("no_store", no_store, ("public", "immutable", "max_age", "s_maxage", "stale_while_revalidate")),
        ("no_cache", no_cache, ("immutable", "max_age", "s_maxage", "stale_while_revalidate")),
        ("must_revalidate", must_revalidate, ("stale_while_revalidate",)),
    ):
        for other in forbidden:
            if present and given[other]:
                raise ValueError(f"{name} and {other} contradict each other")

    directives = [
        directive
        for directive, present in (
            ("public", public),
            ("private", private),
            ("no-store", no_store),
            ("no-cache", no_cache),
            (f"max-age={max_age}", max_age is not None),
            (f"s-maxage={s_maxage}", s_maxage is not None),
            ("must-revalidate", must_revalidate),
            (f"stale-while-revalidate={stale_while_revalidate}", stale_while_revalidate is not None),
            ("immutable", immutable),
        )
        if present
    ]
    return ", ".join(directives) or None
