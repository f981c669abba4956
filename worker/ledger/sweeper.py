"""Removal of expired rows: by their index, in small steps, so that claims go on beside it."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from loguru import logger

from connectors.sdk.runtime.ledger import LedgerUnavailable
from worker.ledger.database import Database
from worker.ledger.script import Ask, Steps
from worker.ledger.statements import POSTGRESQL_FIXED_NOW, SQLITE_NOW

#: Seconds between removals of expired rows, and how many go at once.
SWEEP_S: Final = 600.0
SWEEP_ROWS: Final = 200
#: Removes the rows that expired first; a row that a claim holds is left to it, and so is one that another sweep has.
POSTGRESQL_SWEEP: Final = (
    "DELETE FROM connectors_ledger WHERE ctid = ANY(ARRAY("
    f"SELECT ctid FROM connectors_ledger WHERE expires_at < {POSTGRESQL_FIXED_NOW}"
    f" ORDER BY expires_at LIMIT {SWEEP_ROWS} FOR UPDATE SKIP LOCKED)) RETURNING 1"
)
SQLITE_SWEEP: Final = (
    "DELETE FROM connectors_ledger WHERE rowid IN ("
    f"SELECT rowid FROM connectors_ledger WHERE expires_at < {SQLITE_NOW}"
    f" ORDER BY expires_at LIMIT {SWEEP_ROWS}) RETURNING 1"
)


class Sweeper:
    """Removes expired rows now and then. Started and closed by the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep in the background."""
        self._task = asyncio.create_task(self._sweep_forever(), name="sweep the ledger")

    async def close(self) -> None:
        """Stop sweeping."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def sweep(self) -> int:
        """Remove every expired row, and return how many; half of the time is left to others.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        removed = 0
        while True:
            began = time.monotonic()
            count = await self._database.transact(self._step)
            removed += count
            if count < SWEEP_ROWS:
                return removed
            await asyncio.sleep(time.monotonic() - began)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            began = time.monotonic()
            with suppress(LedgerUnavailable):
                removed = await self.sweep()
                logger.info("ledger swept", removed=removed, took_s=round(time.monotonic() - began, 3))

    def _step(self) -> Steps[int]:
        rows = yield Ask(SQLITE_SWEEP if self._database.is_sqlite else POSTGRESQL_SWEEP)
        return len(rows)
