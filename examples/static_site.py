"""A folder as a site: nothing beneath it is hidden, nothing outside it can be reached.

uvicorn examples.static_site:app --http zcresponse.uvicorn:ZeroCopyProtocol
"""

from __future__ import annotations

from pathlib import Path

from zcresponse.asgi import static_app

app = static_app(Path(__file__).parent / "site")
