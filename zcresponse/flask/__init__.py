"""The door for Flask: its `send_file` and `send_from_directory`, a response, and a switch for a whole application."""

from zcresponse.flask.response import ZeroCopyFileResponse, send_file, send_from_directory
from zcresponse.flask.upgrade import ZeroCopy

__all__ = ["ZeroCopy", "ZeroCopyFileResponse", "send_file", "send_from_directory"]
