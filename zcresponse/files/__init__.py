"""The only storey that opens, positions and reads files.

Nothing here knows HTTP, a framework or a server. What leaves it is an `OpenedFile`: one descriptor of a regular file,
with the result of `fstat` on that same descriptor.
"""

from zcresponse.files.opened import FileRegion, OpenedFile, open_file, open_file_async

__all__ = ["FileRegion", "OpenedFile", "open_file", "open_file_async"]
