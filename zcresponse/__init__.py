"""Files from a Python web application to the client, moved by the kernel.

Loading this package loads no framework and no server. The doors are `zcresponse.starlette` (FastAPI too),
`zcresponse.asgi` and `zcresponse.uvicorn`.
"""

from zcresponse.events import Transfer
from zcresponse.files import FileRegion, OpenedFile, open_file
from zcresponse.http.request import RequestHead
from zcresponse.plan import Offload, ResponsePlan, plan_file_response

__all__ = [
    "FileRegion",
    "Offload",
    "OpenedFile",
    "RequestHead",
    "ResponsePlan",
    "Transfer",
    "__version__",
    "open_file",
    "plan_file_response",
]

__version__ = "0.1.0"
