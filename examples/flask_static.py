"""A static folder with compressed copies and names that hold a hash.

gunicorn examples.flask_static:app --threads 4
"""

from __future__ import annotations

from flask import Flask, url_for

from zcresponse.flask import ZeroCopy

app = Flask(__name__, static_folder="site", static_url_path="/static")
ZeroCopy(app, static={"precompressed": True, "hashed_names": True})


@app.get("/")
def page() -> str:
    """Refer to a static file."""
    return f'<a href="{url_for("static", filename="notes.txt")}">Notes</a>'
