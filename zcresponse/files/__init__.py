"""The only storey that opens, positions and reads files.

Nothing here knows HTTP, a framework or a server. What leaves it is an `OpenedFile`: one descriptor of a regular file,
with the result of `fstat` on that same descriptor; or, for content that never was on a disk, a `MemoryFile`.
"""

from zcresponse.files.memory import MemoryFile, open_content
from zcresponse.files.opened import FileRegion, OpenedFile, open_file, open_file_async

__all__ = ["FileRegion", "MemoryFile", "OpenedFile", "open_content", "open_file", "open_file_async"]
