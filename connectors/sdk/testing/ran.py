"""What became of a job in the test kit, and what people would read of it."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from connectors.sdk.personal import MASK, PersonalData
from schemas.error import Code
from schemas.result import Result

#: Characters. Shorter secrets are not looked for in what came out: they would be found in innocent words.
MIN_SECRET_CHARS: Final = 6


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a job, and what was seen of it."""

    #: What the caller would be sent.
    result: Result
    #: Whether it would be dead-lettered.
    dead_lettered: bool
    #: Seconds that the worker would have waited before each further try, at most.
    waits_s: tuple[float, ...]
    #: What a caller who asked for progress was told.
    notes: tuple[str, ...]
    #: What people would read in the log, secrets and personal data masked.
    logs: tuple[Mapping[str, Any], ...]
    #: What people would read of the parameters.
    params: Mapping[str, Any]
    #: Where a secret of the credential came out: `result`, `error`, `log`, `progress`. Must be empty.
    leaks: tuple[str, ...]

    @property
    def data(self) -> Any:
        """What the action returned; None on failure."""
        return self.result.data

    @property
    def code(self) -> Code | None:
        """The error's code; None on success."""
        return None if self.result.error is None else self.result.error.code

    @property
    def message(self) -> str:
        """The error's message; empty on success."""
        return "" if self.result.error is None else self.result.error.message

    @property
    def attempts(self) -> int:
        """How often the action was started."""
        return self.result.attempts

    @property
    def replayed(self) -> bool:
        """Whether the effect had happened before."""
        return self.result.replayed


@dataclass(slots=True)
class Seen:
    """What one job leaves to be looked at."""

    secrets: set[str]
    personal: PersonalData
    notes: list[str] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)


def observe(result: Result, seen: Seen, *, params: Mapping[str, Any], waits_s: tuple[float, ...]) -> Ran:
    """Put together what is to be looked at, and look for secrets that came out."""
    came_out = {
        "result": result.model_dump_json(include={"data"}),
        "error": "" if result.error is None else result.error.model_dump_json(),
        "log": json.dumps(seen.lines, default=str),
        "progress": json.dumps(seen.notes),
    }
    secrets = [secret for secret in seen.secrets if len(secret) >= MIN_SECRET_CHARS]
    facts = None if result.error is None else result.error.code.facts
    return Ran(
        result=result,
        dead_lettered=facts is not None and (facts.dead_lettered or facts.retryable),
        waits_s=waits_s,
        notes=tuple(seen.notes),
        logs=tuple(_masked(line, secrets) for line in seen.lines),
        params={name: seen.personal.mask(value, name) for name, value in params.items()},
        leaks=tuple(
            where
            for where, text in came_out.items()
            if any(json.dumps(secret)[1:-1] in text or secret in text for secret in secrets)
        ),
    )


class Recorder(logging.Handler):
    """Keeps what jobs logged, each job's apart."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: dict[str, list[dict[str, Any]]] = {}

    @contextmanager
    def keep(self, job_id: str, lines: list[dict[str, Any]]) -> Iterator[None]:
        """Append the lines of one job to a list while the block runs."""
        self._lines[job_id] = lines
        try:
            yield
        finally:
            del self._lines[job_id]

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        fields = getattr(record, "fields", {})
        lines = self._lines.get(fields.get("job_id", ""))
        if lines is not None:
            lines.append({"level": record.levelname, "event": record.getMessage(), **fields})


def secrets_of(value: Any) -> set[str]:
    """List what a credential holds as secret."""
    if isinstance(value, SecretStr):
        return {value.get_secret_value()}
    if isinstance(value, BaseModel):
        return set().union(*(secrets_of(getattr(value, name)) for name in type(value).model_fields))
    if isinstance(value, Mapping):
        return set().union(*map(secrets_of, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(secrets_of, value))
    return set()


def _masked(line: Mapping[str, Any], secrets: list[str]) -> dict[str, Any]:
    text = json.dumps(dict(line), default=str)
    for secret in secrets:
        text = text.replace(json.dumps(secret)[1:-1], MASK)
    return dict(json.loads(text))
