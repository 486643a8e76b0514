"""A folder as a site: nothing outside of it can be reached, and no name that begins with a dot.

uvicorn examples.static_site:app --http zcresponse.uvicorn:ZeroCopyProtocol
"""

from __future__ import annotations

from pathlib import Path

from zcresponse.asgi import static_app

app = static_app(
    Path(__file__).parent / "site",
    # Sent with every 404.
    not_found="404.html",
    # The .br, .zst or .gz beside a file, to clients that take it.
    precompressed=True,
    # app.3f9a1c07.js may be kept for a year; whatever else is asked for anew each time.
    hashed_names=True,
    no_cache=True,
    suffix_headers={".html": {"Content-Security-Policy": "default-src 'self'"}},
)
