"""One log line, bounded and masked, as JSON for machines or as text for people."""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from json.encoder import encode_basestring_ascii as _quote
from traceback import TracebackException
from typing import NamedTuple, TypeAlias

from worker.logs.masking import MASK, Redactor, is_secret_name

#: What a field's value becomes: JSON, and frozen, since the writer reads it later.
Field: TypeAlias = "bool | int | float | str | list[Field] | dict[str, Field] | None"

# Characters. A line is for reading; longer text belongs elsewhere. A field is cut once more after masking,
# because a cut in the middle of a secret would keep its first half from being found.
MAX_KEPT = 8192
_MAX_VALUE = 4096
_MAX_EVENT = 1024
_MAX_STACK = 8192
_MAX_ITEMS = 64
_MAX_DEPTH = 5


class Line(NamedTuple):
    """A logged event, before it is masked and written."""

    at: datetime
    level: str
    event: str
    fields: Mapping[str, Field]
    error: TracebackException | None = None


def frozen_field(value: object) -> Field:
    """Return a field's value as a line keeps it: bounded, and safe to read in another thread."""
    if type(value) is str:
        return value if len(value) <= MAX_KEPT else value[:MAX_KEPT]
    if type(value) is int or type(value) is float:
        return value
    return _frozen(value, _MAX_DEPTH)


def json_text(line: Line, redactor: Redactor) -> str:
    """Return the line as one JSON object: `ts`, `level`, `event`, then the fields. ASCII only."""
    parts: dict[str, Field] = {
        "ts": _timestamp(line.at),
        "level": line.level,
        "event": _cut(redactor.mask(line.event), _MAX_EVENT),
    }
    for name, value in line.fields.items():
        parts[name if name not in _RESERVED else f"{name}_"] = _masked(name, value, redactor)
    if line.error is not None:
        parts["exception"], parts["stack"] = _error_texts(line.error, redactor)
    return "{" + ",".join([f"{_quote(name)}:{_json(value)}" for name, value in parts.items()]) + "}"


def plain_text(*, colour: bool) -> Callable[[Line, Redactor], str]:
    """Create the formatter for people: `time level event name=value…`, a stack indented below.

    Control characters, ANSI escapes and those that reorder text are escaped, so that no value can look
    like a line, or like the end of one.
    """
    colours = _COLOURS if colour and "NO_COLOR" not in os.environ else {}

    def to_text(line: Line, redactor: Redactor) -> str:
        start, end = (f"\x1b[{colours[line.level]}m", "\x1b[0m") if line.level in colours else ("", "")
        event = _escaped(_cut(redactor.mask(line.event), _MAX_EVENT))
        words = [_timestamp(line.at), f"{start}{line.level:<8}{end}", event]
        fields = {name: _masked(name, value, redactor) for name, value in line.fields.items()}
        stack = ""
        if line.error is not None:
            fields["exception"], stack = _error_texts(line.error, redactor)
        elif isinstance(fields.get("stack"), str):
            stack = str(fields.pop("stack"))
        words.extend(f"{_escaped(name)}={_quoted(value)}" for name, value in fields.items())
        words.extend(f"\n    {_escaped(row)}" for row in stack.splitlines())
        return " ".join(words)

    return to_text


_NUMBERS = (int, float)  # bool is one of them
_RESERVED = frozenset({"ts", "level", "event", "exception"})
_COLOURS = {"DEBUG": "2", "INFO": "32", "SUCCESS": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

# Control characters, and what hides or reorders text: soft hyphen, bidi marks, zero widths, separators,
# byte-order mark, tags, lone surrogates.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
_BARE = re.compile(r"[\w./:@+*-]+")

_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


def _json(value: Field) -> str:
    """Return a value as JSON; texts and counts, which most are, need no encoder (7 µs a line, measured)."""
    if type(value) is str:
        return _quote(value)
    if type(value) is int:
        return str(value)
    try:
        return _encode(value)
    except ValueError:  # NaN or an infinity, which JSON does not have
        return _encode(_finite(value))


def _frozen(value: object, depth: int) -> Field:
    if value is None or isinstance(value, _NUMBERS):
        return value
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return str(value)[:MAX_KEPT]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"  # perhaps a body: never its content
    if depth and isinstance(value, Mapping):
        some = list(value.items())[:_MAX_ITEMS]
        return {str(name)[:128]: _frozen(item, depth - 1) for name, item in some}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_frozen(item, depth - 1) for item in list(value)[:_MAX_ITEMS]]
    try:
        text = str(value)
    except Exception:  # a foreign __str__ may raise anything: the line matters more than the value
        text = ""
    return text[:MAX_KEPT] or f"<{type(value).__name__}>"


def _masked(name: str, value: Field, redactor: Redactor) -> Field:
    if isinstance(value, str):
        return MASK if value and is_secret_name(name) else _cut(redactor.mask(value), _MAX_VALUE)
    if value is None or isinstance(value, _NUMBERS):
        return value
    if is_secret_name(name):
        return MASK
    if isinstance(value, dict):
        return {redactor.mask(key): _masked(key, item, redactor) for key, item in value.items()}
    return [_masked(name, item, redactor) for item in value]


def _error_texts(error: TracebackException, redactor: Redactor) -> tuple[str, str]:
    summary = _joined(error.format_exception_only()).strip()
    # The end says what happened, so a text that is too long loses its start.
    stack = redactor.mask(_joined(error.format())[-2 * _MAX_STACK :])[-_MAX_STACK:]
    return _cut(redactor.mask(summary), _MAX_VALUE), stack.rstrip()


def _joined(parts: Iterable[str]) -> str:
    return "".join(part if len(part) <= MAX_KEPT else f"{part[:MAX_KEPT]}\n" for part in parts)


def _timestamp(at: datetime) -> str:
    return f"{at.astimezone(UTC).isoformat(timespec='milliseconds')[:-6]}Z"


def _finite(value: Field) -> Field:
    if isinstance(value, float) and value - value != 0:
        return str(value)
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def _quoted(value: Field) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value):
        return _escaped(value)
    return _escaped(json.dumps(value, ensure_ascii=False))


def _escaped(text: str) -> str:
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    point = ord(match[0])
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
