"""Decisions: a request head and a file in, status, header fields and segments out.

Every status code is picked here. Nothing here opens or reads a file, or knows a framework or server.
"""

from zcresponse.plan.offload import Offload
from zcresponse.plan.response import FileOptions, PlanOptions, ResponsePlan, plan_file_response
from zcresponse.plan.segments import Segment

__all__ = ["FileOptions", "Offload", "PlanOptions", "ResponsePlan", "Segment", "plan_file_response"]
