"""The ledger's statements as ready text: built once per ledger, alike for both databases but for their clocks."""

import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

#: No lease is longer; one that ends later was written before the database's clock was set back.
MAX_LEASE_S: Final = 60.0
#: Epoch seconds by the clock of each database, read anew wherever it stands.
SQLITE_NOW: Final = "((julianday('now') - 2440587.5) * 86400.0)"
POSTGRESQL_NOW: Final = "extract(epoch from clock_timestamp())::float8"
#: The same, one value per statement: PostgreSQL uses an index with nothing else.
POSTGRESQL_FIXED_NOW: Final = "extract(epoch from statement_timestamp())::float8"

_PARAMETER: Final = re.compile(r"\$(\d+)")
_SAME_KEY: Final = "tenant = $1 AND connector = $2 AND action = $3 AND key = $4"
#: What `Entry` is made of, before its time.
_ENTRY: Final = "fingerprint, state, fence, attempts, in_flight, undo_in_flight, steps, result"


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement about one key; `$1`, `$2` … are its values, the key's four names first."""

    sqlite: str
    #: Executed many times at once; the first column says for which of them a row is.
    postgresql: str
    writes: bool

    @classmethod
    def write(cls, text: str, returning: str = "") -> Self:
        """Create a statement that writes; its answer has a row for each row written."""
        returned = f", {returning}" if returning else ""
        return cls(
            _numbered(f"{text} RETURNING {returning}" if returning else text),
            f"{text} RETURNING {_ordinal(text)}{returned}",
            writes=True,
        )

    @classmethod
    def read(cls, columns: str, condition: str) -> Self:
        """Create a statement that reads the key's row."""
        rest = f"{columns} FROM connectors_ledger WHERE {_SAME_KEY} AND {condition}"
        return cls(_numbered(f"SELECT {rest}"), f"SELECT {_ordinal(rest)}, {rest}", writes=False)


class Question(NamedTuple):
    """A statement and its values."""

    statement: Statement
    values: tuple[Any, ...]


#: The rows of an answer; of a write that returns no columns, an empty one for each row written.
Rows = list[tuple[Any, ...]]


class LedgerStatements:
    """Every statement of a ledger.

    Args:
        now: SQL of the clock, in epoch seconds.
        lease_s: how long a claim holds.
        ttl_s: how long a row is kept.
    """

    def __init__(self, now: str, *, lease_s: float, ttl_s: float) -> None:
        self._now = now
        self._leased_until = f"{now} + {lease_s!r}"
        self._kept_until = f"{now} + {ttl_s!r}"
        self.claim = self._claim()
        self.claim_undo = self._claim_undo()
        self.entry = Statement.read(f"{_ENTRY}, lease_until - {now}", f"expires_at >= {now}")
        self.exists = Statement.read("1", f"expires_at >= {now}")
        self.is_undone = Statement.read("1", f"state = 'undone' AND expires_at >= {now}")
        self.begin = self._begin()
        self.begin_undo = self._begin_undo()
        self.renew = self._update(f"lease_until = {self._leased_until}", f"lease_until > {now}")
        self.record_step = self._update("steps = $6")
        self.complete = self._update(
            "state = 'done', in_flight = FALSE, lease_until = 0.0, result = $6,"
            f" expires_at = {self._kept_until}"
        )
        self.complete_undo = self._update(
            "state = 'undone', in_flight = FALSE, undo_in_flight = FALSE, lease_until = 0.0, result = NULL,"
            f" expires_at = {self._kept_until}"
        )
        self.release = self._update("in_flight = $6, undo_in_flight = $7, lease_until = 0.0")
        self.mark_unknown = self._update("state = 'unknown', lease_until = 0.0")
        self.forget = Statement.write(f"DELETE FROM connectors_ledger WHERE {_SAME_KEY} AND fence = $5")
        aborted = f"{_SAME_KEY} AND fence = $5 AND state = 'undoing'"
        self.abort_first_undo = Statement.write(
            f"DELETE FROM connectors_ledger WHERE {aborted} AND before_undo IS NULL"
        )
        self.abort_undo = Statement.write(
            "UPDATE connectors_ledger SET state = before_undo, before_undo = NULL, undo_in_flight = FALSE,"
            f" lease_until = 0.0 WHERE {aborted} AND before_undo IS NOT NULL"
        )

    def settling(self, *, happened: bool) -> tuple[Statement, ...]:
        """Return what settles an unknown outcome, in order: the first that writes a row does.

        The last takes the fingerprint and the fence of a new row.
        """
        settled = f"in_flight = FALSE, undo_in_flight = FALSE, expires_at = {self._kept_until}"
        outcome = "state = 'done', result = 'null'" if happened else "state = 'running', lease_until = 0.0"
        # An undo that could not find out leaves the key marked: no run may begin, whatever is settled.
        marked = "result = coalesce(result, 'null')" if happened else "state = 'undone'"
        new = "'done', 'null'" if happened else "'running', NULL"
        return (
            Statement.write(
                f"UPDATE connectors_ledger SET {settled}, {outcome} WHERE {_SAME_KEY} AND state = 'unknown'"
            ),
            Statement.write(
                f"UPDATE connectors_ledger SET {settled}, {marked} WHERE {_SAME_KEY} AND state = 'undoing'"
                f" AND (in_flight OR undo_in_flight) AND lease_until < {self._now}"
            ),
            Statement.write(
                "INSERT INTO connectors_ledger (tenant, connector, action, key, fingerprint, fence, state, result,"
                " lease_until, in_flight, undo_in_flight, lands_at, attempts, expires_at)"
                f" VALUES ($1, $2, $3, $4, $5, $6, {new},"
                f" 0.0, FALSE, FALSE, 0.0, 0, {self._kept_until})"
                " ON CONFLICT (tenant, connector, action, key) DO NOTHING"
            ),
        )

    def _claim(self) -> Statement:
        expired = self._expired()
        orphaned = (
            "entry.state = 'running'"
            f" AND NOT {self._is_leased()}"
            " AND entry.fingerprint = excluded.fingerprint"
        )
        return self._claiming(
            "running",
            "$5, $6",
            "fingerprint = excluded.fingerprint, result = NULL, before_undo = NULL",
            f"{expired} OR ({orphaned})",
        )

    def _claim_undo(self) -> Statement:
        expired = self._expired()
        alive = f"(entry.state IN ('running', 'undoing') AND {self._is_leased()} AND NOT {expired})"
        undone = f"(entry.state = 'undone' AND NOT {expired})"
        return self._claiming(
            "undoing",
            "'', $5",
            f"result = CASE WHEN {expired} THEN NULL ELSE entry.result END,"
            f" before_undo = CASE WHEN {expired} THEN NULL"
            " WHEN entry.state = 'undoing' THEN entry.before_undo ELSE entry.state END",
            f"NOT {alive} AND NOT {undone}",
        )

    def _claiming(self, state: str, fingerprint_and_fence: str, taken_over: str, is_free: str) -> Statement:
        """Build the statement that claims a key: a new row, or the one that is there if it is free."""
        expired = self._expired()
        return Statement.write(
            "INSERT INTO connectors_ledger AS entry (tenant, connector, action, key, fingerprint, fence, state,"
            " lease_until, in_flight, undo_in_flight, lands_at, attempts, expires_at)"
            f" VALUES ($1, $2, $3, $4, {fingerprint_and_fence}, '{state}',"
            f" {self._leased_until}, FALSE, FALSE, 0.0, 0, {self._kept_until})"
            " ON CONFLICT (tenant, connector, action, key) DO UPDATE SET"
            f" state = '{state}', fence = entry.fence + 1, lease_until = {self._leased_until},"
            f" in_flight = entry.in_flight AND NOT {expired},"
            f" undo_in_flight = entry.undo_in_flight AND NOT {expired},"
            f" attempts = CASE WHEN {expired} THEN 0 ELSE entry.attempts END,"
            f" steps = CASE WHEN {expired} THEN NULL ELSE entry.steps END,"
            f" expires_at = {self._kept_until}, {taken_over}"
            f" WHERE {is_free}",
            f"{_ENTRY}, lands_at - {self._now}",
        )

    def _begin(self) -> Statement:
        return self._update(
            f"attempts = attempts + 1, in_flight = TRUE, lands_at = {self._now} + $6,"
            f" lease_until = {self._leased_until}",
            f"lease_until > {self._now}",
        )

    def _begin_undo(self) -> Statement:
        return self._update(
            f"undo_in_flight = TRUE, lease_until = {self._leased_until}", f"lease_until > {self._now}"
        )

    def _update(self, values: str, condition: str = "TRUE") -> Statement:
        return Statement.write(f"UPDATE connectors_ledger SET {values} WHERE {_held()} AND {condition}")

    def _expired(self) -> str:
        return f"(entry.expires_at < {self._now})"

    def _is_leased(self) -> str:
        """Whether a lease holds; one that ends too far away was written by a clock that was set back since."""
        return f"(entry.lease_until >= {self._now} AND entry.lease_until <= {self._now} + {MAX_LEASE_S!r})"


def _held() -> str:
    """Return what holds for the row of a claim: a worker with an older fence writes nothing."""
    return f"{_SAME_KEY} AND fence = $5 AND state IN ('running', 'undoing')"


def _ordinal(text: str) -> str:
    """Return the parameter after the last one, as a column."""
    last = max(int(number) for number in _PARAMETER.findall(text))
    return f"${last + 1}::int4"


def _numbered(text: str) -> str:
    return text.replace("$", "?")
