"""The ledger in SQL: claims, leases and results, in SQLite or PostgreSQL."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from connectors.sdk.runtime.lease import LeasePolicy
from connectors.sdk.runtime.ledger import (
    Absent,
    Claim,
    Claimed,
    Identity,
    InProgress,
    Known,
    State,
    Undone,
    claim_of,
    known_of,
)
from worker.ledger.database import database_of
from worker.ledger.policy import DEFAULT_POLICY, DatabasePolicy, TlsOf, no_tls
from worker.ledger.schema import LedgerFault
from worker.ledger.statements import (
    MAX_LEASE_S,
    POSTGRESQL_NOW,
    SQLITE_NOW,
    LedgerStatements,
    Question,
    Rows,
    Statement,
)
from worker.ledger.sweeper import Sweeper
from worker.settings import SettingError, Settings
from worker.tls import database_tls


@dataclass(slots=True)
class _Entry:
    """A row as its statements return it, in their order."""

    fingerprint: str
    state: State
    fence: int
    attempts: int
    in_flight: bool
    undo_in_flight: bool
    steps: str | None
    result: str | None
    #: Seconds until its lease ends; for a claim, until an earlier call can no longer land.
    remaining_s: float


class SqlLedger:
    """One table, one atomic claim; the same statements on SQLite and PostgreSQL.

    1. `claim` gives the effect to one worker, or says what is known
    2. `begin` is the last look before a call leaves: the lease must still be ours
    3. `renew` while it runs
    4. `complete`, `forget`, `release` or `mark_unknown` record how it ended; all are void for a
       worker that lost the lease meanwhile

    Each returns after the commit of what it asked. Started and closed by the service.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_hours: float = 720.0,
        tls: TlsOf = no_tls,
        policy: LeasePolicy | None = None,
        database: DatabasePolicy = DEFAULT_POLICY,
    ) -> None:
        self._database = database_of(url, tls, database)
        self._sweeper = Sweeper(self._database)
        self._sql = LedgerStatements(
            SQLITE_NOW if self._database.is_sqlite else POSTGRESQL_NOW,
            lease_s=(policy or LeasePolicy()).lease_s,
            ttl_s=ttl_hours * 3600,
        )

    @property
    def id(self) -> str | None:
        """What tells ledgers apart: two workers of one broker must share one. None until it was reached."""
        return self._database.id

    @property
    def unavailable_reason(self) -> str | None:
        """Why the ledger cannot be asked; None while it can."""
        return self._database.unavailable_reason

    async def start(self) -> None:
        """Open the database and create its schema; if it is unavailable, keep trying in the background.

        Raises:
            LedgerFault: it can never serve: no permission, a later schema, a bad path.
        """
        await self._database.start()
        self._sweeper.start()

    async def close(self) -> None:
        """Close the connections."""
        await self._sweeper.close()
        await self._database.close()

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the database is believed to answer."""
        return await self._database.wait_available(timeout_s)

    async def claim(self, identity: Identity, fingerprint: str) -> Claim:
        """Claim the effect, or return what is known of it: one statement decides among any number of workers.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        taken = await self._ask(self._sql.claim, *identity, fingerprint, _new_fence())
        if taken:
            return _claimed(taken)
        known = await self.look_up(identity, fingerprint)
        # Removed between the two questions: its run ended without effect. Come back.
        return InProgress(lease_s=0.0) if isinstance(known, Absent) else known

    async def claim_undo(self, identity: Identity) -> Claimed | InProgress | Undone:
        """Claim the undo of an effect, known or not; no run of the key begins from here on."""
        taken = await self._ask(self._sql.claim_undo, *identity, _new_fence())
        if taken:
            return _claimed(taken)
        found = await self._ask(self._sql.entry, *identity)
        if not found:
            return InProgress(lease_s=0.0)  # removed between the two questions: its run ended without effect
        entry = _Entry(*found[0])
        return Undone() if entry.state == "undone" else InProgress(max(0.0, entry.remaining_s))

    async def is_undone(self, identity: Identity) -> bool:
        """Return whether the effect was undone, claiming nothing."""
        return bool(await self._ask(self._sql.is_undone, *identity))

    async def look_up(self, identity: Identity, fingerprint: str) -> Known:
        """Return what is known, claiming nothing."""
        found = await self._ask(self._sql.entry, *identity)
        if not found:
            return Absent()
        entry = _Entry(*found[0])
        # A lease that ends too far away was written by a clock that was set back since.
        return known_of(entry, fingerprint, entry.remaining_s if entry.remaining_s <= MAX_LEASE_S else 0.0)

    async def begin(self, identity: Identity, fence: int, *, lands_within_s: float) -> bool:
        """Record that a call leaves now; False if the lease is lost, and then nothing may be sent."""
        return bool(await self._ask(self._sql.begin, *identity, fence, lands_within_s))

    async def begin_undo(self, identity: Identity, fence: int) -> bool:
        """Record that the call of an undo leaves now; False if the lease is lost, and then nothing may be sent."""
        return bool(await self._ask(self._sql.begin_undo, *identity, fence))

    async def renew(self, identity: Identity, fence: int) -> bool:
        """Hold the lease for longer; False if it is lost."""
        return bool(await self._ask(self._sql.renew, *identity, fence))

    async def complete(self, identity: Identity, fence: int, result: Any) -> bool:
        """Store the result: the effect has happened. False if another worker took over."""
        return bool(await self._ask(self._sql.complete, *identity, fence, json.dumps(result)))

    async def complete_undo(self, identity: Identity, fence: int) -> bool:
        """Leave the mark that the effect was undone."""
        return bool(await self._ask(self._sql.complete_undo, *identity, fence))

    async def record_step(self, identity: Identity, fence: int, steps: Mapping[str, Any]) -> bool:
        """Store what the steps so far returned."""
        return bool(await self._ask(self._sql.record_step, *identity, fence, json.dumps(dict(steps))))

    async def abort_undo(self, identity: Identity, fence: int) -> bool:
        """Put back what the key was before `claim_undo`: the effect is as it was."""
        return bool(
            await self._ask(self._sql.abort_first_undo, *identity, fence)
            or await self._ask(self._sql.abort_undo, *identity, fence)
        )

    async def release(
        self, identity: Identity, fence: int, *, in_flight: bool, undo_in_flight: bool = False
    ) -> bool:
        """Release the claim for a later attempt, and say which calls may still have happened."""
        return bool(await self._ask(self._sql.release, *identity, fence, in_flight, undo_in_flight))

    async def mark_unknown(self, identity: Identity, fence: int) -> bool:
        """Record that no one can tell; no run of the key begins until an operator can."""
        return bool(await self._ask(self._sql.mark_unknown, *identity, fence))

    async def forget(self, identity: Identity, fence: int) -> bool:
        """Remove the claim: certainly nothing happened, and the key is free again."""
        return bool(await self._ask(self._sql.forget, *identity, fence))

    async def knows(self, identity: Identity) -> bool:
        """Return whether there is a row for this key, whatever its state."""
        return bool(await self._ask(self._sql.exists, *identity))

    async def resolve(self, identity: Identity, fingerprint: str, *, happened: bool) -> bool:
        """Settle an unknown outcome as an operator says; False if the key's outcome is known.

        A key whose row is gone gets a new one: without it a replay would have the effect twice.
        """
        unknown, undoing, missing = self._sql.settling(happened=happened)
        return bool(
            await self._ask(unknown, *identity)
            or await self._ask(undoing, *identity)
            or await self._ask(missing, *identity, fingerprint, _new_fence())
        )

    async def sweep(self) -> int:
        """Remove expired rows in small steps, and return how many."""
        return await self._sweeper.sweep()

    async def _ask(self, statement: Statement, *values: Any) -> Rows:
        return await self._database.ask(Question(statement, values))


def _claimed(rows: Rows) -> Claimed:
    entry = _Entry(*rows[0])
    return claim_of(entry, entry.remaining_s)


def _new_fence() -> int:
    """Begin a new row above every fence of a removed one: a late holder must never match."""
    return time.time_ns() // 1000


def ledger_of(settings: Settings, policy: LeasePolicy | None = None) -> SqlLedger:
    """Create the ledger that the settings name.

    Raises:
        SettingError: its directory cannot be created.
    """
    try:
        return SqlLedger(
            settings.ledger_url,
            ttl_hours=settings.ledger_ttl_hours,
            tls=partial(database_tls, settings),
            policy=policy,
            database=DatabasePolicy(connections=settings.database_connections),
        )
    except LedgerFault as fault:
        raise SettingError(str(fault)) from None
