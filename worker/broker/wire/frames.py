"""Frames: the methods of the hot path, written and read without the client."""

import struct
from typing import Final

from worker.broker.wire.content import short

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
KINDS: Final = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
END: Final = 0xCE
END_BYTE: Final = b"\xce"
#: Kind, channel, size of the payload.
FRAME: Final = struct.Struct(">BHI")
FRAME_SIZE: Final = FRAME.size
HEARTBEAT_FRAME: Final = FRAME.pack(HEARTBEAT, 0, 0) + END_BYTE
#: Class and method as one number.
CODE: Final = struct.Struct(">I")
CODE_SIZE: Final = CODE.size

CONNECTION_CLOSE: Final = 10 << 16 | 50
CONNECTION_BLOCKED: Final = 10 << 16 | 60
CONNECTION_UNBLOCKED: Final = 10 << 16 | 61
CHANNEL_CLOSE: Final = 20 << 16 | 40
CHANNEL_CLOSE_OK: Final = 20 << 16 | 41
BASIC_CANCEL: Final = 60 << 16 | 30
BASIC_PUBLISH: Final = 60 << 16 | 40
BASIC_RETURN: Final = 60 << 16 | 50
BASIC_DELIVER: Final = 60 << 16 | 60
BASIC_GET_OK: Final = 60 << 16 | 71
BASIC_ACK: Final = 60 << 16 | 80
BASIC_REJECT: Final = 60 << 16 | 90
BASIC_NACK: Final = 60 << 16 | 120
#: Methods that a content header and a body follow.
WITH_CONTENT: Final = frozenset({BASIC_RETURN, BASIC_DELIVER, BASIC_GET_OK})

_TAG: Final = struct.Struct(">QB")
#: A whole frame of ack, or of reject: both are a tag and a bit.
_SETTLE: Final = struct.Struct(">BHIIQBB")
_SETTLE_SIZE: Final = CODE_SIZE + _TAG.size
_PUBLISH: Final = struct.Struct(">IH")
_CLOSE: Final = struct.Struct(">H")


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return the frame of an ack; multiple: of all up to this tag."""
    return _SETTLE.pack(METHOD, channel, _SETTLE_SIZE, BASIC_ACK, tag, multiple, END)


def reject_frame(channel: int, tag: int) -> bytes:
    """Return the frame that gives a delivery back to its queue."""
    return _SETTLE.pack(METHOD, channel, _SETTLE_SIZE, BASIC_REJECT, tag, True, END)


def close_ok_frame(channel: int) -> bytes:
    """Return the answer to the broker's Channel.Close."""
    return FRAME.pack(METHOD, channel, CODE_SIZE) + CODE.pack(CHANNEL_CLOSE_OK) + END_BYTE


def publish_frames(
    channel: int,
    exchange: str,
    routing_key: str,
    header: bytes,
    body: bytes,
    *,
    mandatory: bool,
    frame_max: int,
) -> bytes:
    """Return the frames of a message: its method, its header, its body in pieces that fit.

    Raises:
        ValueError: exchange or routing key is longer than 255 bytes.
    """
    method = (
        _PUBLISH.pack(BASIC_PUBLISH, 0)
        + short("the exchange", exchange)
        + short("the routing key", routing_key)
        + (b"\1" if mandatory else b"\0")
    )
    parts = [
        FRAME.pack(METHOD, channel, len(method)),
        method,
        END_BYTE,
        FRAME.pack(HEADER, channel, len(header)),
        header,
        END_BYTE,
    ]
    piece = frame_max - FRAME_SIZE - 1
    if 0 < len(body) <= piece:
        parts += FRAME.pack(BODY, channel, len(body)), body, END_BYTE
    else:
        for at in range(0, len(body), piece):
            some = body[at : at + piece]
            parts += FRAME.pack(BODY, channel, len(some)), some, END_BYTE
    return b"".join(parts)


def read_confirm(data: bytes, at: int) -> tuple[int, bool]:
    """Read the tag of an ack or a nack, and whether it stands for all up to it."""
    tag, bits = _TAG.unpack_from(data, at + CODE_SIZE)
    return tag, bool(bits & 1)


def read_deliver(method: bytes) -> tuple[int, bool, str]:
    """Read Basic.Deliver: the tag, whether it was delivered before, the routing key."""
    at = CODE_SIZE + 1 + method[CODE_SIZE]
    tag, redelivered = _TAG.unpack_from(method, at)
    at += _TAG.size
    at += 1 + method[at]
    return tag, bool(redelivered & 1), _text(method, at)


def read_get_ok(method: bytes) -> tuple[int, bool, str]:
    """Read Basic.GetOk: as Basic.Deliver."""
    tag, redelivered = _TAG.unpack_from(method, CODE_SIZE)
    at = CODE_SIZE + _TAG.size
    return tag, bool(redelivered & 1), _text(method, at + 1 + method[at])


def read_return(method: bytes) -> tuple[str, str]:
    """Read Basic.Return: the exchange and the routing key of what no queue took."""
    at = CODE_SIZE + _CLOSE.size
    at += 1 + method[at]
    return _text(method, at), _text(method, at + 1 + method[at])


def read_close(method: bytes) -> tuple[int, str]:
    """Read the code and the text of Channel.Close or Connection.Close."""
    (code,) = _CLOSE.unpack_from(method, CODE_SIZE)
    return int(code), _text(method, CODE_SIZE + _CLOSE.size)


def _text(method: bytes, at: int) -> str:
    """Read a short string; bytes that are not UTF-8 survive being written again."""
    return method[at + 1 : at + 1 + method[at]].decode("utf-8", "surrogateescape")
