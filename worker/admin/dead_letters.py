"""The dead-letter queue: list, replay, remove."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from connectors.sdk.runtime.deadline import format_instant
from connectors.sdk.runtime.ledger import Identity, LedgerUnavailable, fingerprint_of
from schemas.error import Code
from schemas.job import Job, JobRefused, parse_job
from worker.admin.poison import count_poison
from worker.broker import BrokerError, Browser, Connection, Delivery, Properties
from worker.broker.publish_probe import learn_user
from worker.broker.topology import Topology
from worker.job import headers as header
from worker.job.headers import NO_DEADLINE
from worker.ledger.schema import LedgerFault
from worker.ledger.store import SqlLedger, ledger_of
from worker.settings import SettingError, Settings
from worker.tls import broker_tls

#: Headers of a dead letter that its replay takes along.
_KEPT = (header.PUBLISHER, header.TRACEPARENT)


@dataclass(frozen=True, slots=True)
class DeadLetterMessage:
    """One dead-lettered job."""

    delivery: Delivery

    @property
    def job_id(self) -> str | None:
        """The job's id: the body's, else the property."""
        found = self._field("id")
        return found if found is not None else self.delivery.properties.message_id

    @property
    def reason(self) -> str:
        """The code it was dead-lettered with."""
        return str(self.delivery.properties.headers.get(header.REASON, ""))

    def summary(self) -> dict[str, Any]:
        """Return what a listing shows, without the body."""
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
        """Return the job; None if the body is not a valid one."""
        try:
            return parse_job(self.delivery.body, message_id=self.delivery.properties.message_id)
        except JobRefused:
            return None

    def text(self) -> str:
        """Return the body as text."""
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
    """Record in the ledger whether a dead-lettered job's effect happened; False if none is unknown.

    Raises:
        SettingError: the ledger cannot be used.
        BrokerError: the dead letters cannot be read, or the ledger is unavailable.
    """
    async with DeadLetterQueue(settings) as queue:
        found = [each.job() for each in await queue.all() if each.job_id == job_id]
    async with _ledger(settings) as ledger:
        resolved = [
            await ledger.resolve(
                _identity(job), fingerprint_of(job.params, job.credential), happened=happened
            )
            for job in found
            if job is not None
        ]
    return any(resolved)


@asynccontextmanager
async def _ledger(settings: Settings) -> AsyncIterator[SqlLedger]:
    """Open the ledger for an operator's question."""
    ledger = ledger_of(settings)
    try:
        await ledger.start()
        yield ledger
    except LedgerFault as fault:
        raise SettingError(str(fault)) from None
    except LedgerUnavailable as unavailable:
        raise BrokerError(f"the ledger is unavailable: {unavailable}") from None
    finally:
        await ledger.close()


def _identity(job: Job) -> Identity:
    return Identity(job.tenant, job.connector, job.action, job.key)


class DeadLetterQueue:
    """The queue of dead-lettered jobs, on a connection of its own."""

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

    async def all(self) -> list[DeadLetterMessage]:
        """Return every dead letter; each stays in the queue."""
        found = await self._receive_all()
        await self._requeue()
        return found

    async def replay(
        self, wanted: Callable[[DeadLetterMessage], bool], *, deadline: str | None = None
    ) -> list[DeadLetterMessage]:
        """Publish dead letters to their job queues again, and return them.

        Each is published and confirmed before it leaves the dead-letter queue: a crash in between makes
        a second copy, which the job's idempotency key makes harmless.
        """
        channel = await self._connected.publish_channel()
        user = await learn_user(self._connected, self._settings.broker_user, self._topology.jobs)
        chosen = await self._receive(wanted)
        await self._check_settled(chosen)
        for dead_letter in chosen:
            came = dead_letter.delivery
            if not await channel.publish(
                self._topology.jobs, came.routing_key, came.body, self._replayed(dead_letter, deadline, user)
            ):
                raise BrokerError(
                    f"no queue is bound for the job {dead_letter.job_id!r}, which stays here; start a worker once"
                )
            await came.ack()
        return chosen

    async def _check_settled(self, chosen: list[DeadLetterMessage]) -> None:
        """Refuse to replay a write that may have happened and of which the ledger knows nothing any more.

        Raises:
            BrokerError: names the job, and how to settle it.
        """
        unknown = [each for each in chosen if each.reason == Code.OUTCOME_UNKNOWN]
        if not unknown:
            return
        async with _ledger(self._settings) as ledger:
            for dead_letter in unknown:
                job = dead_letter.job()
                if job is not None and not await ledger.knows(_identity(job)):
                    raise BrokerError(
                        f"the job {dead_letter.job_id!r} may have had its effect, and this ledger has no row for "
                        f"it: look at the provider, then `connectors dead resolve {dead_letter.job_id} "
                        "--happened` or `--not-happened`"
                    )

    async def remove(self, wanted: Callable[[DeadLetterMessage], bool]) -> list[DeadLetterMessage]:
        """Remove dead letters for good, and return them."""
        chosen = await self._receive(wanted)
        for dead_letter in chosen:
            await dead_letter.delivery.ack()
        return chosen

    async def count_poison(self) -> dict[str, int]:
        """Return how many messages the broker dead-lettered by itself, by the reason why."""
        return await count_poison(self._connected, self._topology.poison)

    async def purge_poison(self) -> int:
        """Remove what the broker dead-lettered by itself, and return how many there were."""
        return await self._connected.purge(self._topology.poison)

    @property
    def _connected(self) -> Connection:
        assert self._connection is not None
        return self._connection

    async def _receive(self, wanted: Callable[[DeadLetterMessage], bool]) -> list[DeadLetterMessage]:
        """Receive the dead letters that are wanted; the others are requeued when the channel closes."""
        return [each for each in await self._receive_all() if wanted(each)]

    async def _requeue(self) -> None:
        if self._browser is not None:
            await self._browser.close()
            self._browser = None

    async def _receive_all(self) -> list[DeadLetterMessage]:
        counted = await self._connected.count(self._topology.dead)
        if counted is None:
            raise BrokerError(
                f"there is no queue {self._topology.dead!r}; start a worker once on this broker"
            )
        browser = self._browser = await self._connected.browser(self._topology.dead)
        dead_letters: list[DeadLetterMessage] = []
        # As many as were counted: what is requeued meanwhile would be received again without end.
        for _ in range(counted[0]):
            delivery = await browser.next()
            if delivery is None:
                break
            dead_letters.append(DeadLetterMessage(delivery))
        return dead_letters

    def _replayed(self, dead_letter: DeadLetterMessage, deadline: str | None, user: str) -> Properties:
        came = dead_letter.delivery.properties
        headers = {name: came.headers[name] for name in _KEPT if name in came.headers}
        headers[header.FIRST_SEEN] = came.headers.get(header.FIRST_SEEN) or format_instant(datetime.now(UTC))
        headers[header.DEADLINE] = deadline or NO_DEADLINE
        return replace(came, user_id=user, headers=headers)
