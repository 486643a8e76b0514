"""Another framework's answer with a file, given the semantics that it lacks: conditions, ranges, validators."""

from __future__ import annotations

from typing import Final

from zcresponse.files import MemoryFile, OpenedFile
from zcresponse.http.request import RequestHead
from zcresponse.plan.response import Fields, ResponsePlan, plan_file_response, values_of

__all__ = ["may_name_file", "may_upgrade", "plan_named_file", "plan_upgrade"]

#: What an application said of the body that it did not send. Validators and digests are most often made of that body,
#: by a middleware that knows nothing of the file: every file would have the tag of no bytes. nginx drops them too.
_OF_ANOTHER_BODY: Final = frozenset(
    (
        "content-encoding",
        "transfer-encoding",
        "trailer",
        "etag",
        "last-modified",
        "content-md5",
        "digest",
        "content-digest",
        "repr-digest",
    )
)


def may_upgrade(request: RequestHead, *, status: int, fields: Fields) -> bool:
    """Whether an answer may be that of a whole file, as far as its head says.

    It is not for any method but GET and HEAD, any status but 200, a part of something (Content-Range,
    `multipart/byteranges`), or a body that is encoded or framed by the application.
    """
    if status != 200 or request.method not in ("GET", "HEAD"):
        return False
    for name, value in fields:
        match name.lower():
            case "content-range" | "transfer-encoding":
                return False
            case "content-encoding":
                # RFC 9110 §8.4.1: the name stands for no encoding, and SHOULD NOT be used here.
                if any(coding.strip().lower() not in ("", "identity") for coding in value.split(",")):
                    return False
            case "content-type":
                if value.strip().lower().startswith("multipart/byteranges"):
                    return False
    return True


def plan_upgrade(
    request: RequestHead, file: OpenedFile | MemoryFile, *, status: int, fields: Fields
) -> ResponsePlan | None:
    """Decide anew how a request is answered that somebody has answered with a whole file.

    The application's fields win: its validators, its type, its `Accept-Ranges: none`. What it did not say is the
    file's.

    Args:
        file: what the application sends.
        status, fields: its answer.

    Returns:
        None where the answer has to stay as it is: `may_upgrade` says so, or its Content-Length is not the file's.
    """
    if not may_upgrade(request, status=status, fields=fields):
        return None
    if any(value.strip() != str(file.size) for value in values_of(fields, "Content-Length")):
        return None
    return plan_file_response(request, file, fields=fields)


def may_name_file(status: int) -> bool:
    """Whether a file that an answer names is to be its body.

    A 206 is decided anew: Flask, for one, chooses a part and leaves it to be sent.
    """
    return status in (200, 206)


def plan_named_file(request: RequestHead, file: OpenedFile, *, fields: Fields) -> ResponsePlan:
    """Decide how a request is answered whose application has named a file, by X-Sendfile say.

    Args:
        file: the file that was found.
        fields: the application's, without the one that names the file. Those that are about the body which nobody
            sends are dropped: Content-Encoding, as Apache does, ETag and Last-Modified, as nginx does, and digests. The
            file's validators take their place.
    """
    kept = [field for field in fields if field[0].lower() not in _OF_ANOTHER_BODY]
    return plan_file_response(request, file, fields=kept)
