"""Frames between the worker and a connector's process: `[kind, …]` in JSON, with its length in 4 bytes before it.

The process is the less trusted side: the worker parses JSON from it and nothing else, and takes no frame above
`MAX_FRAME_BYTES`.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from pydantic_core import from_json, to_json

from connectors.sdk import errors
from connectors.sdk.errors import ConnectorError, Sent
from schemas.error import Code, Detail
from schemas.result import MAX_RESULT_BYTES

Frame: TypeAlias = list[Any]

#: Bytes of the length before each frame, big-endian.
LENGTH_BYTES: Final = 4
#: A result or the results of an action's steps, with what belongs to them.
MAX_FRAME_BYTES: Final = 8 * MAX_RESULT_BYTES

#: The class that an error of a code is raised as; an author's own class stays on its side.
_CLASSES: Final[Mapping[Code, type[ConnectorError]]] = {
    each.code: each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, ConnectorError) and each is not ConnectorError
}


class BadFrame(Exception):
    """The other side sent what is no frame."""


def encode(*frame: Any) -> bytes:
    """Return a frame as it is written.

    Raises:
        BadFrame: it is too large.
    """
    body = to_json(list(frame), inf_nan_mode="constants")
    if len(body) > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame of {len(body)} bytes; {MAX_FRAME_BYTES} is the most")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def length_of(header: bytes) -> int:
    """Return the length of the body that follows.

    Raises:
        BadFrame: it is too large.
    """
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame of {length} bytes; {MAX_FRAME_BYTES} is the most")
    return length


def decode(body: bytes) -> Frame:
    """Return a frame.

    Raises:
        BadFrame: it is none.
    """
    try:
        frame = from_json(body)
    except ValueError:
        raise BadFrame("a frame that is not JSON") from None
    if not isinstance(frame, list) or not frame or not isinstance(frame[0], str):
        raise BadFrame("a frame without a kind")
    return frame


def error_as_json(error: ConnectorError) -> dict[str, Any]:
    """Return an error as it crosses the wall."""
    return {
        "code": error.code.value,
        "message": error.message,
        "retry_after_s": error.retry_after_s,
        "details": [each.model_dump(mode="json") for each in error.details],
        "data": error.data,
        "sent": error.sent.value,
        "is_sent_given": error.is_sent_given,
    }


def error_of(fields: Mapping[str, Any]) -> ConnectorError:
    """Return the error that crossed the wall; the class is that of its code.

    Raises:
        BadFrame: it is none.
    """
    try:
        code = Code(fields["code"])
        retry_after_s, data = fields["retry_after_s"], fields["data"]
        error = _CLASSES.get(code, ConnectorError)(
            str(fields["message"]),
            code=code,
            retry_after_s=None if retry_after_s is None else float(retry_after_s),
            details=[Detail.model_validate(each) for each in fields["details"]],
            data=None if data is None else dict(data),
            sent=Sent(fields["sent"]),
        )
        error.is_sent_given = bool(fields["is_sent_given"])
    except (KeyError, TypeError, ValueError):
        raise BadFrame("an error that is none") from None
    return error
