"""Files on a connection that a server's event loop owns: today uvicorn's.

Imports no server, which need not be installed: its classes are looked up among what is loaded.
"""
