"""A job as it comes over the wire, and the strict parser of its bytes."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import from_json

from schemas.error import Code, Detail

#: The version of the contract that this code speaks.
VERSION: Final = 1
#: The largest body a worker takes by default.
MAX_BODY_BYTES: Final = 1024 * 1024
#: Objects and arrays inside one another, the body itself counted.
MAX_DEPTH: Final = 64
#: Entries of `metadata`.
MAX_METADATA: Final = 16
#: How many faults one reply names; a hostile body could hold a million.
MAX_DETAILS: Final = 10

ID_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,128}$"
NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,62}$"
SCOPE_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"

#: What the older service called our fields, still understood.
OLDER_NAMES: Final[Mapping[str, str]] = {
    "connector_name": "connector",
    "action_name": "action",
    "payload": "params",
    "parameters": "params",
}

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)


def parse_instant(text: object) -> datetime:
    """Return an RFC 3339 date-time with offset as UTC.

    A leap second (`:60`) is the start of the next minute. Stricter than pydantic, which takes
    `"1700000000"` for a time, too.

    Raises:
        ValueError: the text is anything else, or lies outside the years 1 to 9999.
    """
    if not isinstance(text, str) or not _RFC3339.fullmatch(text):
        raise ValueError("must be an RFC 3339 date-time with offset, such as 2026-03-08T15:00:00+01:00")
    leap = text[17:19] == "60"
    instant = datetime.fromisoformat((text[:17] + "59" + text[19:] if leap else text).upper())
    try:
        return instant.astimezone(UTC) + timedelta(seconds=leap)
    except OverflowError as error:
        raise ValueError("must lie between the years 1 and 9999") from error


def _instant(value: object) -> object:
    return value if value is None or isinstance(value, datetime) else parse_instant(value)


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > MAX_METADATA:
        raise ValueError(f"may hold {MAX_METADATA} entries at most")
    return value


def _ascii(value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ValueError("must be printable ASCII")
    return value


JobId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Scope = Annotated[str, StringConstraints(pattern=SCOPE_PATTERN)]
IdempotencyKey = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255),
    AfterValidator(_ascii),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}),
]
Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"})
]
Locale = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$", max_length=35)]
Mode = Literal["run", "undo", "validate"]


class Job(BaseModel):
    """One action of one connector to be run on behalf of one tenant."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, title="connectors job"
    )

    version: Literal[1] = Field(default=1, description="The version of this contract.")
    id: JobId = Field(
        description="The job's id. May come as the property message_id instead; the body's wins."
    )
    connector: Name = Field(description="What to run; the body decides, not the routing key.")
    action: Name
    params: dict[str, Any] = Field(default_factory=dict, description="The action's parameters.")
    tenant: Scope = Field(default="default", description="The tenant that the job acts for.")
    credential: Scope = Field(
        default="default", description="The name of a secret; never a secret, never a path."
    )
    idempotency_key: IdempotencyKey | None = Field(
        default=None,
        description="Same tenant, connector, action and key: the same effect, once. Default: the id.",
    )
    mode: Mode = Field(
        default="run",
        description="undo: undo the effect of the job with this key; validate: every check, no call.",
    )
    progress: bool = Field(default=False, description="Also send connectors.progress messages.")
    deadline: Instant | None = Field(default=None, description="After this no call is started.")
    locale: Locale = Field(default="en", description="BCP 47; the language of error.say.")
    metadata: Annotated[dict[str, str], BeforeValidator(_few), Field(max_length=MAX_METADATA)] = Field(
        default_factory=dict, description="Returned unchanged in the reply."
    )

    @property
    def key(self) -> str:
        """The idempotency key in force."""
        return self.idempotency_key or self.id


#: The names a job may use today.
_FIELDS: Final = frozenset(Job.model_fields)


class JobRefused(Exception):
    """The bytes are not a job.

    Holds what could be read of it all the same, so that the reply names the job.

    Args:
        message: for the developer who sent it; says where, never repeats the body.
        is_object: False if it is not even a JSON object; then it is dead-lettered, too.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        details: tuple[Detail, ...] = (),
        is_object: bool = True,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.is_object = is_object
        self.id: str | None = None
        self.connector: str | None = None
        self.action: str | None = None
        self.locale = "en"
        self.metadata: dict[str, str] = {}


def parse_job(body: bytes, *, message_id: str | None = None, max_body_bytes: int = MAX_BODY_BYTES) -> Job:
    """Parse a job from the bytes of a message, strictly.

    Args:
        message_id: the AMQP property, the job's id if the body has none.

    Raises:
        JobRefused: MESSAGE_TOO_LARGE, UNSUPPORTED_VERSION or INVALID_MESSAGE, saying where.
    """
    fields: dict[str, Any] = {}
    try:
        fields = _read_object(body, max_body_bytes)
        fields = _name_fields(fields)
        _check_version(fields.get("version", VERSION))
        if "id" not in fields and message_id is not None:
            fields["id"] = message_id
        return Job.model_validate(fields)
    except ValidationError as error:
        details = describe(error)
        where = "; ".join(map(str, details[:3]))
        refusal = JobRefused(Code.INVALID_MESSAGE, f"the job is wrong: {where}", details=details)
        raise _with_remains(refusal, fields, message_id) from None
    except JobRefused as refusal:
        if not fields and refusal.is_object:
            fields = _salvage(body[:max_body_bytes])
        raise _with_remains(refusal, fields, message_id) from None


def refuse(message: str, *, body: bytes, message_id: str | None) -> JobRefused:
    """Create the refusal of a message whose properties are wrong; it keeps what names the job."""
    refusal = JobRefused(Code.INVALID_MESSAGE, message)
    return _with_remains(refusal, _salvage(body[:MAX_BODY_BYTES]), message_id)


def describe(error: ValidationError) -> tuple[Detail, ...]:
    """Return which fields are wrong, and how, without repeating any value; ten at most."""
    count = error.error_count()
    if count > 1000:  # the list itself would be huge (measured: 200,000 faults, 42 MB)
        return (Detail(field="", issue=f"{count} faults"),)
    return tuple(
        Detail(field=".".join(map(str, fault["loc"]))[:200], issue=_issue(fault["type"], fault["msg"]))
        for fault in error.errors(include_input=False, include_url=False, include_context=False)[:MAX_DETAILS]
    )


def _issue(kind: str, text: str) -> str:
    if kind == "missing":
        return "is required"
    if kind in {"extra_forbidden", "unexpected_keyword_argument"}:
        return "is not a known field"
    return text.removeprefix("Value error, ")[:300]


def _read_object(body: bytes, max_body_bytes: int) -> dict[str, Any]:
    """Parse one JSON object; refuse what parsers disagree about: duplicates, NaN, depth, encodings."""
    if len(body) > max_body_bytes:
        raise JobRefused(
            Code.MESSAGE_TOO_LARGE, f"the body has {len(body)} bytes; this worker takes {max_body_bytes}"
        )
    if body.startswith(b"\xef\xbb\xbf"):
        raise _invalid("the body starts with a byte order mark; send UTF-8 without one")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8: byte {error.start} cannot be read", is_object=False) from None
    _check_depth(text)
    try:
        tree = _CHECKER.decode(text)
    except json.JSONDecodeError as error:
        raise _invalid(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}", is_object=False
        ) from None
    except ValueError:
        raise _invalid("the body holds an integer of more than 4,300 digits") from None
    if "\\u" in text:
        try:
            # Python's parser lets lone surrogates pass, which no encoder can write again.
            from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise _invalid(f"the body is not Unicode JSON: {error}") from None
    if not isinstance(tree, dict):
        raise _invalid(
            f"the body is a JSON {_json_type(tree)}; a job is an object with connector and action",
            is_object=False,
        )
    return tree


def _invalid(message: str, *, is_object: bool = True, field: str | None = None) -> JobRefused:
    details = () if field is None else (Detail(field=field, issue=message),)
    return JobRefused(Code.INVALID_MESSAGE, message, details=details, is_object=is_object)


#: A string (closed or not) or a bracket; possessive, so that no input makes it slow.
_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)


def _check_depth(text: str) -> None:
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    depth = 0
    for token in _BRACKET.finditer(text):
        if token[1]:
            depth += 1
            if depth > MAX_DEPTH:
                raise _invalid(
                    f"the body is nested deeper than {MAX_DEPTH} levels at character {token.start()}"
                )
        elif token[2]:
            depth -= 1


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        siblings = ", ".join(repr(other[:64]) for other in list(fields)[:5] if other != name)
        beside = f" in the object that also has {siblings}" if siblings else ""
        field = name[:200].encode(errors="replace").decode()  # a lone surrogate cannot be written again
        raise _invalid(f"the key {name[:64]!r} comes twice{beside}", field=field)
    return fields


def _finite(number: str) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise _invalid(f"the number {number[:40]} is beyond what a double can hold")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _invalid(f"{name} is not a JSON number")


#: Python's own parser, because pydantic-core does not see keys that come twice, or 1e400.
_CHECKER = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates, parse_float=_finite, parse_constant=_refuse_constant
)


def _json_type(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _name_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields under their names of today; two names for one field are refused."""
    named: dict[str, Any] = {}
    unknown: list[str] = []
    came_as: dict[str, str] = {}
    for name, value in fields.items():
        today = OLDER_NAMES.get(name, name)
        if today not in _FIELDS:
            unknown.append(name[:64])
            continue
        if today in came_as:
            raise _invalid(f"{came_as[today]!r} and {name!r} are two names for one field", field=today)
        came_as[today] = name
        named[today] = value
    if unknown:
        _check_version(named.get("version", VERSION))  # a later version may well have other fields
        details = tuple(Detail(field=name, issue="is not a known field") for name in unknown[:MAX_DETAILS])
        listed = ", ".join(map(repr, unknown[:5])) + (" …" if len(unknown) > 5 else "")
        refusal = JobRefused(Code.INVALID_MESSAGE, f"the job has unknown fields: {listed}", details=details)
        raise _with_remains(refusal, named, None)
    return named


def _check_version(version: object) -> None:
    if type(version) is not int:
        raise _invalid(f"version must be the integer {VERSION}", field="version")
    if version != VERSION:
        # A number of a thousand digits is cut, not repeated.
        raise JobRefused(
            Code.UNSUPPORTED_VERSION, f"version {str(version)[:20]} is not spoken here; send {VERSION}"
        )


def _salvage(body: bytes) -> dict[str, Any]:
    """Parse leniently what was refused strictly, only to name the job in its reply."""
    try:
        tree = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _with_remains(refusal: JobRefused, fields: Mapping[str, Any], message_id: str | None) -> JobRefused:
    """Keep what is well-formed of a refused job, so that its reply names it."""

    def kept(field: str, pattern: str) -> str | None:
        value = fields.get(field)
        return value if isinstance(value, str) and re.fullmatch(pattern[1:-1], value) else None

    if message_id is not None and not re.fullmatch(ID_PATTERN[1:-1], message_id):
        message_id = None
    refusal.id = refusal.id or kept("id", ID_PATTERN) or message_id
    refusal.connector = refusal.connector or kept("connector", NAME_PATTERN)
    refusal.action = refusal.action or kept("action", NAME_PATTERN)
    refusal.locale = kept("locale", r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$") or refusal.locale
    metadata = fields.get("metadata")
    if (
        isinstance(metadata, dict)
        and len(metadata) <= MAX_METADATA
        and all(isinstance(value, str) for value in metadata.values())
        and _can_be_written("".join((*metadata, *metadata.values())))
    ):
        refusal.metadata = metadata
    return refusal


def _can_be_written(text: str) -> bool:
    """Return whether a text has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
