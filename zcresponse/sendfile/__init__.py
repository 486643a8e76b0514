"""The system calls that move bytes from a file inside the kernel, over plain sockets and descriptors.

`sendfile` and `copy_file` are for whoever writes servers and tools: they block, or wait as long as the socket's timeout
allows. `send_region` is a single call for an event loop. No event loop and no HTTP here. Offsets and counts are bytes.
"""

from zcresponse.sendfile.calls import AVAILABLE, CLIENT_GONE, is_refusal, send_region
from zcresponse.sendfile.copying import copy_file
from zcresponse.sendfile.sockets import sendfile

__all__ = ["AVAILABLE", "CLIENT_GONE", "copy_file", "is_refusal", "send_region", "sendfile"]
