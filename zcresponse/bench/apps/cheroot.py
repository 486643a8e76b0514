"""Run as a program, a WSGI application on cheroot until it is ended."""

from __future__ import annotations

import importlib
import sys

from cheroot.wsgi import Server

if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    server = Server(("127.0.0.1", 0), getattr(importlib.import_module(module), name))
    server.prepare()
    print(f"listening on http://127.0.0.1:{server.bind_addr[1]}", flush=True)
    server.serve()
