"""Proof that every worker on this broker keeps the same ledger."""

import asyncio
from collections.abc import Callable
from typing import Final

from loguru import logger

from worker.broker.calls import close_channel, rpc
from worker.broker.connection import Connection
from worker.broker.errors import BrokerError, Forbidden, TopologyMismatch

#: Seconds between looks for a connection and the ledger, while one of them is unavailable.
CHECK_S: Final = 0.2
#: Seconds before a mark is tried again that the broker could not be asked for.
RETRY_S: Final = 1.0
_NO_CONNECTION: Final = "no connection to the broker"
#: Tries at a mark that no worker holds any more.
_MARK_TRIES: Final = 3


class LedgerConflict(TopologyMismatch):
    """Another worker on this broker keeps another ledger."""


class LedgerGuard:
    """Marks the broker with the worker's ledger, for as long as a connection lives.

    The mark is an exchange that is deleted with its last binding; its alternate-exchange argument names
    the ledger, so the broker refuses to declare it with another one. A worker without a mark (no
    connection, a ledger that was never reached) has proven nothing, and may claim no effect.

    The connection is the publisher's: no message is delivered there, so none can end it.
    """

    def __init__(
        self,
        name: str,
        *,
        ledger_id: Callable[[], str | None],
        connection: Callable[[], Connection | None],
    ) -> None:
        self._name = name
        self._ledger_id = ledger_id
        self._connection = connection
        self._reason = _NO_CONNECTION
        #: Set while it is proven.
        self.proven = asyncio.Event()

    @property
    def fault(self) -> str | None:
        """Why nothing is proven; None if it is."""
        if self.proven.is_set():
            return None
        if self._ledger_id() is None:
            return "the ledger was not reached yet, so it is not known to be the one that other workers keep"
        return f"it is not known whether other workers keep the same ledger: {self._reason}"

    async def run(self) -> None:
        """Keep the proof: at the start, after every reconnect, and once the ledger is reached.

        Raises:
            LedgerConflict: another worker keeps another ledger.
        """
        while True:
            connection, ledger_id = self._connection(), self._ledger_id()
            if connection is None or ledger_id is None:
                await asyncio.sleep(CHECK_S)
                continue
            try:
                await _mark(connection, self._name, ledger_id)
            except LedgerConflict:
                raise
            except BrokerError as error:
                if str(error) != self._reason:
                    logger.warning("ledger not proven", reason=str(error))
                self._reason = str(error)
                await asyncio.sleep(RETRY_S)
                continue
            self.proven.set()
            try:
                await connection.closed()
            finally:
                self.proven.clear()
                self._reason = _NO_CONNECTION


async def _mark(connection: Connection, name: str, ledger_id: str) -> None:
    for _ in range(_MARK_TRIES):
        try:
            await _declare_mark(connection, name, ledger_id)
            return
        except Forbidden:
            # Least privilege: no worker with these rights can leave the mark, so none can be found out.
            logger.warning(
                "ledger not checked",
                reason=f"the broker user may not declare {name!r} and a queue bound to it",
                next="make sure that all workers share one database",
            )
            return
        except TopologyMismatch:
            if not await _remove_unheld(connection, name):
                break
    raise LedgerConflict(
        "another worker on this broker keeps another ledger, so one effect could happen twice; "
        "set CONNECTORS_DATABASE_URL to one PostgreSQL for all of them"
    )


async def _declare_mark(connection: Connection, name: str, ledger_id: str) -> None:
    channel = await connection.channel()
    try:
        async with rpc(f"declaring the exchange {name!r}"):
            await channel.exchange_declare(
                name,
                exchange_type="fanout",
                auto_delete=True,
                arguments={"alternate-exchange": f"{name}.{ledger_id}"},
            )
            held = await channel.queue_declare("", exclusive=True)
            await channel.queue_bind(held.queue or "", exchange=name)
    finally:
        await close_channel(channel)


async def _remove_unheld(connection: Connection, name: str) -> bool:
    """Remove a mark that no worker holds: its worker died before binding to it."""
    channel = await connection.channel()
    try:
        async with rpc(f"deleting the exchange {name!r}"):
            await channel.exchange_delete(name, if_unused=True)
    except BrokerError:
        return False
    finally:
        await close_channel(channel)
    return True
