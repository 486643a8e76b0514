from __future__ import annotations

import os

import pytest

from tests.support.table import CASES, DOWNLOAD_NAME, MAX_AGE, Case, Files, Response, check
from zcresponse import RequestHead, open_file, plan_file_response
from zcresponse.plan import PlanOptions


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_plan_answers_the_table(case: Case, files: Files) -> None:
    options: PlanOptions = {"filename": DOWNLOAD_NAME, "max_age": MAX_AGE} if case.dressed else {}
    with open_file(files.path(case.file)) as file:
        plan = plan_file_response(RequestHead.from_fields(case.method, case.fields), file, **options)
        body = b"".join(
            segment if isinstance(segment, bytes) else os.pread(file.fd, segment.count, segment.offset)
            for segment in plan.segments
        )
        check(case, Response.of(plan.status, plan.fields, body), files)
        assert plan.body_length == len(body)
