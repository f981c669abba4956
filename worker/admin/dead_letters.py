"""The dead letters: looking, sending back, removing."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from schemas.job import Job, JobRefused, parse_job
from worker.broker import BrokerError, Browser, Connection, Delivery, Properties, PublishChannel
from worker.broker.topology import Topology
from worker.job import headers as header
from worker.job.headers import NO_DEADLINE, write_instant
from worker.ledger.database import LedgerUnavailable
from worker.ledger.schema import LedgerFault
from worker.ledger.store import Identity
from worker.service import ledger_of
from worker.settings import SettingError, Settings
from worker.tls import broker_tls

#: Headers of a dead letter that its replay takes along.
_KEPT = (header.PUBLISHER, header.TRACEPARENT)


@dataclass(frozen=True, slots=True)
class Letter:
    """One parked job."""

    delivery: Delivery

    @property
    def job_id(self) -> str | None:
        """The job's id: the body's, else the property."""
        found = self._field("id")
        return found if found is not None else self.delivery.properties.message_id

    @property
    def reason(self) -> str:
        """The code it was parked with."""
        return str(self.delivery.properties.headers.get(header.REASON, ""))

    def summary(self) -> dict[str, Any]:
        """Describe it, its body left out."""
        headers = self.delivery.properties.headers
        return {
            "id": self.job_id,
            "reason": self.reason,
            "attempts": headers.get(header.ATTEMPTS, 0),
            "first_seen": headers.get(header.FIRST_SEEN),
            "queue": headers.get(header.QUEUE),
            "error": headers.get(header.ERROR),
            "connector": self._field("connector", "connector_name"),
            "action": self._field("action", "action_name"),
            "tenant": self._field("tenant") or "default",
        }

    def job(self) -> Job | None:
        """Read the job; None where the body is none."""
        try:
            return parse_job(self.delivery.body, message_id=self.delivery.properties.message_id)
        except JobRefused:
            return None

    def text(self) -> str:
        """Give the body as text."""
        return self.delivery.body.decode("utf-8", "replace")

    def _field(self, *names: str) -> str | None:
        try:
            body = json.loads(self.delivery.body)
        except (ValueError, RecursionError):
            return None
        if not isinstance(body, dict):
            return None
        return next((body[name] for name in names if isinstance(body.get(name), str)), None)


async def resolve_unknown(settings: Settings, job_id: str, *, happened: bool) -> bool:
    """Settle the unknown outcome of a parked job in the ledger; False where there is none.

    Raises:
        SettingError: the ledger cannot be used.
        BrokerError: the dead letters cannot be read, or the ledger is away.
    """
    async with DeadLetters(settings) as letters:
        found = [letter.job() for letter in await letters.all() if letter.job_id == job_id]
    ledger = ledger_of(settings)
    try:
        await ledger.start()
        resolved = [
            await ledger.resolve(Identity(job.tenant, job.connector, job.action, job.key), happened=happened)
            for job in found
            if job is not None
        ]
    except LedgerFault as fault:
        raise SettingError(str(fault)) from None
    except LedgerUnavailable as away:
        raise BrokerError(f"the ledger is not available: {away}") from None
    finally:
        await ledger.close()
    return any(resolved)


class DeadLetters:
    """The queue of parked jobs, on a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topology = Topology(settings.prefix)
        self._connection: Connection | None = None
        self._browser: Browser | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        url = self._settings.rabbitmq_url.get_secret_value()
        self._connection = await Connection.open(url, name="connectors dead", tls=broker_tls(self._settings))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connected.close()

    async def all(self) -> list[Letter]:
        """Read every letter, and give each back."""
        found = await self._visit()
        await self._give_back()
        return found

    async def replay(self, wanted: Callable[[Letter], bool], *, deadline: str | None = None) -> list[Letter]:
        """Send letters back to their queues, and give them.

        Each is published and confirmed before it leaves the dead letters: a crash in between makes
        a second copy, which the job's key makes harmless.
        """
        channel = await PublishChannel.open(self._connected)
        chosen = await self._take(wanted)
        for letter in chosen:
            came = letter.delivery
            if not await channel.publish(
                self._topology.jobs, came.routing_key, came.body, self._again(letter, deadline)
            ):
                raise BrokerError(
                    f"no queue takes the job {letter.job_id!r}, which stays where it is; start a worker once"
                )
            await came.ack()
        return chosen

    async def remove(self, wanted: Callable[[Letter], bool]) -> list[Letter]:
        """Remove letters for good, and give them."""
        chosen = await self._take(wanted)
        for letter in chosen:
            await letter.delivery.ack()
        return chosen

    async def count_poison(self) -> int:
        """Count what no client can decode; it is never read, for that would kill the connection."""
        found = await self._connected.count(self._topology.poison)
        return 0 if found is None else found[0]

    async def purge_poison(self) -> int:
        """Remove what no client can decode, and say how many."""
        return await self._connected.purge(self._topology.poison)

    @property
    def _connected(self) -> Connection:
        assert self._connection is not None
        return self._connection

    async def _take(self, wanted: Callable[[Letter], bool]) -> list[Letter]:
        """Take the letters that are wanted; the others stay on the channel, and go back at the end."""
        return [letter for letter in await self._visit() if wanted(letter)]

    async def _give_back(self) -> None:
        if self._browser is not None:
            await self._browser.close()
            self._browser = None

    async def _visit(self) -> list[Letter]:
        counted = await self._connected.count(self._topology.dead)
        if counted is None:
            raise BrokerError(
                f"there is no queue {self._topology.dead!r}: has a worker ever run on this broker?"
            )
        browser = self._browser = await Browser.open(self._connected, self._topology.dead)
        letters: list[Letter] = []
        # As many as there were: what is given back meanwhile would be seen again without end.
        for _ in range(counted[0]):
            delivery = await browser.next()
            if delivery is None:
                break
            letters.append(Letter(delivery))
        return letters

    def _again(self, letter: Letter, deadline: str | None) -> Properties:
        came = letter.delivery.properties
        headers = {name: came.headers[name] for name in _KEPT if name in came.headers}
        headers[header.FIRST_SEEN] = write_instant(datetime.now(UTC))
        headers[header.DEADLINE] = deadline or NO_DEADLINE
        return replace(came, user_id=self._settings.broker_user, headers=headers)
