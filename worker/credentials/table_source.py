"""The secrets of the encrypted table."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from loguru import logger

from connectors.sdk.http.refresh_tokens import Rotation
from worker.credentials.cache import CachePolicy
from worker.credentials.source import (
    CredentialName,
    FetchOutcome,
    SecretFields,
    VaultUnavailable,
    WholeVaultUnavailable,
    ignore_outcome,
)
from worker.credentials.stored_credentials import StoredCredentials, ignore_secret
from worker.credentials.table import CredentialTable
from worker.settings import SettingError

#: Seconds between looks at the table: readiness must tell of an outage within 10 s.
WATCH_S: Final = 2.0
#: Looks at a secret that somebody else keeps changing, before it is left to them.
MAX_COLLISIONS: Final = 3


class TableSession:
    """Reads secrets from the table, and knows whether it answers.

    `StoredCredentials` starts and closes it.
    """

    def __init__(self, table: CredentialTable, *, watch_s: float = WATCH_S) -> None:
        self._table = table
        self._watch_s = watch_s
        self._reason: str | None = "the table of credentials has not been read yet"
        self._is_started = False
        self._up = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None

    @property
    def unavailable_reason(self) -> str | None:
        """Why no secret can be had; None while they can."""
        return self._reason

    async def start(self) -> None:
        """Create the tables and prove the keyring; while the database is unavailable, later.

        Raises:
            SettingError: the keyring does not fit.
        """
        with suppress(VaultUnavailable):
            await self._look()
        self._watcher = asyncio.create_task(self._watch(), name="watch the table of credentials")

    async def close(self) -> None:
        """Close the database."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        await self._table.database.close()

    async def read(self, name: CredentialName) -> SecretFields:
        """Read one secret.

        Raises:
            CredentialNotFound, CredentialInvalid, VaultUnavailable.
        """
        if not self._is_started:
            raise WholeVaultUnavailable(self._reason or "the table of credentials is not open yet")
        return (await self._table.read(name)).fields

    async def replace(self, name: CredentialName, rotation: Rotation) -> bool:
        """Put a rotated token into its secret; False where somebody has put another one.

        Raises:
            CredentialNotFound, CredentialInvalid, VaultUnavailable.
        """
        older = {each.get_secret_value() for each in rotation.older}
        for _ in range(MAX_COLLISIONS):
            version, fields = await self._table.read(name)
            if fields.get(rotation.field) not in older:
                return False
            newest = {**fields, rotation.field: rotation.newest.get_secret_value()}
            if await self._table.put(name, newest, only_after=version) is not None:
                return True
        return False

    async def may_write(self, name: CredentialName) -> bool:
        """Return true: who can read the table may write it."""
        return True

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the table is believed to answer again; False when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._watch_s)
            try:
                await self._look()
            except VaultUnavailable:
                pass
            except SettingError as fault:  # the table came back with another keyring's keys
                self._mark_down(str(fault))

    async def _look(self) -> None:
        """Find out whether the table answers."""
        try:
            if self._is_started:
                await self._table.probe()
            else:
                await self._table.start()
                self._is_started = True
        except VaultUnavailable as unavailable:
            self._mark_down(unavailable.reason)
            raise
        if self._reason is not None:
            self._reason = None
            self._up.set()
            logger.info("table of credentials available")

    def _mark_down(self, reason: str) -> None:
        if reason != self._reason:
            logger.warning("table of credentials unavailable", reason=reason)
        self._reason = reason
        self._up.clear()


class TableCredentials(StoredCredentials):
    """Return secrets by name: the source of a worker with `CONNECTORS_CREDENTIALS=database`."""

    def __init__(
        self,
        table: CredentialTable,
        *,
        policy: CachePolicy = CachePolicy(),  # noqa: B008  # frozen
        on_fetch: Callable[[FetchOutcome], None] = ignore_outcome,
        on_secret: Callable[[str], None] = ignore_secret,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        session = TableSession(table)
        super().__init__(session, policy=policy, on_fetch=on_fetch, on_secret=on_secret, clock=clock)
