"""Replies, retries and dead letters: what is published for a job, and with which headers."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from connectors.sdk.runtime.publisher_rights import Publishers
from schemas.error import Code
from schemas.job import Job
from schemas.result import MAX_RESULT_BYTES, PROGRESS_TYPE, RESULT_TYPE, Progress, Result, Stage, error_of
from worker.broker import Delivery, Properties
from worker.broker.confirmed_publisher import ConfirmedPublisher, PublishOutcome
from worker.broker.topology import Topology, is_bulk, retry_delay_for, routing_key
from worker.job import headers as header
from worker.job.headers import JobHeaders
from worker.job.reply_addresses import DIRECT, ReplyAddresses

#: Refusals of a reply before it counts as undeliverable: a full queue may empty.
_REPLY_REFUSALS: Final = 3
#: Progress messages in flight at once; more are dropped, because no caller relies on them.
_MAX_PROGRESS: Final = 100
#: Refusals of a dead letter before it waits in a retry queue.
_LETTER_REFUSALS: Final = 3
#: Characters of the safe message in a dead letter's header.
_MAX_MESSAGE: Final = 1000


class JobPublisher:
    """Publishes for jobs; nothing of a job's own headers is copied but what is named here.

    A `CC` header copied into a reply would route it to any queue (measured).
    """

    def __init__(
        self,
        confirmed: ConfirmedPublisher,
        direct: ConfirmedPublisher,
        topology: Topology,
        *,
        user: str,
        reply_exchange: str = "",
        reply_to_pattern: str | None = None,
        publishers: Publishers | None = None,
        is_strict: bool = False,
    ) -> None:
        self._confirmed = confirmed
        #: Direct reply-to goes over a link of its own: a forged address kills the connection (measured).
        self._direct = direct
        self._topology = topology
        self._user = user
        self._reply_exchange = reply_exchange
        self._addresses = ReplyAddresses(
            topology,
            reply_exchange=reply_exchange,
            pattern=reply_to_pattern,
            publishers=publishers,
            is_strict=is_strict,
        )
        self._progress: set[asyncio.Task[Any]] = set()

    def refusal_of(self, reply_to: str | None, publisher: str | None) -> str | None:
        """Return why nothing may be published to an address of a publisher's; None if it may."""
        return self._addresses.refusal(reply_to, publisher)

    async def reply(self, delivery: Delivery, headers: JobHeaders, result: Result) -> PublishOutcome:
        """Publish the result to the caller's queue."""
        body = result.model_dump_json().encode()
        if len(body) > MAX_RESULT_BYTES + 64 * 1024:  # metadata and details are on top of the data
            body = _without_data(result).model_dump_json().encode()
        properties = Properties(
            correlation_id=delivery.properties.correlation_id,
            type=RESULT_TYPE,
            content_type="application/json",
            message_id=_new_message_id(),
            timestamp=result.finished_at,
            headers=_trace(headers),
        )
        outcome = await self._publish_reply(delivery, body, properties)
        if outcome is PublishOutcome.TOO_LARGE:  # for this broker's own limit
            body = _without_data(result).model_dump_json().encode()
            outcome = await self._publish_reply(delivery, body, properties)
        return outcome

    def progress(
        self, delivery: Delivery, headers: JobHeaders, job: Job, stage: Stage, note: str | None
    ) -> None:
        """Publish how far a job has come, without waiting for it."""
        if len(self._progress) >= _MAX_PROGRESS or not self._confirmed.is_open:
            return
        at = datetime.now(UTC)
        body = Progress(id=job.id, stage=stage, message=note, at=at).model_dump_json().encode()
        properties = Properties(
            correlation_id=delivery.properties.correlation_id,
            type=PROGRESS_TYPE,
            content_type="application/json",
            message_id=_new_message_id(),
            timestamp=at,
            headers=_trace(headers),
        )
        task = asyncio.create_task(self._publish_reply(delivery, body, properties))
        self._progress.add(task)
        task.add_done_callback(self._progress.discard)

    async def _publish_reply(self, delivery: Delivery, body: bytes, properties: Properties) -> PublishOutcome:
        reply_to = delivery.properties.reply_to
        assert reply_to is not None
        if reply_to.startswith(DIRECT):
            # Mandatory and direct reply-to do not mix: delivered and returned at once (measured).
            return await self._direct.publish("", reply_to, body, properties, mandatory=False, refusals=2)
        return await self._confirmed.publish(
            self._reply_exchange, reply_to, body, properties, refusals=_REPLY_REFUSALS
        )

    async def delay(self, delivery: Delivery, headers: JobHeaders, now: datetime) -> None:
        """Publish the job to the retry queue that brings it back nearest to `not_before`."""
        assert headers.not_before is not None
        delay = retry_delay_for((headers.not_before - now).total_seconds())
        properties = self._copied(delivery, headers)
        await self._store(self._topology.retry(delay), delivery.routing_key, delivery, properties)

    async def reroute(self, delivery: Delivery, headers: JobHeaders, job: Job) -> None:
        """Publish the job to the queue that its body names."""
        key = routing_key(job.connector, job.action, bulk=is_bulk(delivery.routing_key))
        properties = self._copied(delivery, replace(headers, rerouted=True))
        await self._store(self._topology.jobs, key, delivery, properties)

    async def dead_letter(
        self,
        delivery: Delivery,
        headers: JobHeaders,
        *,
        queue: str,
        code: Code,
        message: str,
        attempts: int,
    ) -> bool:
        """Publish the job to the dead letters, its body byte for byte, its headers saying why.

        Returns whether there was room for it.
        """
        properties = self._copied(delivery, replace(headers, pending=None))
        reasons = {
            header.REASON: code.value,
            header.ATTEMPTS: attempts,
            header.QUEUE: queue,
            header.ERROR: message[:_MAX_MESSAGE],
        }
        properties = replace(properties, headers={**properties.headers, **reasons})
        sent = await self._confirmed.publish(
            self._topology.dead,
            delivery.routing_key,
            delivery.body,
            properties,
            must_route=True,
            refusals=_LETTER_REFUSALS,
        )
        return sent is PublishOutcome.DELIVERED

    async def _store(self, exchange: str, key: str, delivery: Delivery, properties: Properties) -> None:
        """Publish what has nowhere else to go, for as long as it takes."""
        await self._confirmed.publish(exchange, key, delivery.body, properties, must_route=True)

    def _copied(self, delivery: Delivery, headers: JobHeaders) -> Properties:
        return replace(delivery.properties, user_id=self._user, headers=headers.write())


def _new_message_id() -> str:
    """Return 32 random hex digits. No secret: the kernel's randomness costs 8 µs a job."""
    return f"{random.getrandbits(128):032x}"


def _without_data(result: Result) -> Result:
    message = f"the reply is larger than {MAX_RESULT_BYTES} bytes, or than the broker accepts"
    error = error_of(Code.RESULT_TOO_LARGE, message)
    return result.model_copy(update={"status": "failed", "data": None, "error": error})


def _trace(headers: JobHeaders) -> dict[str, Any]:
    return {} if headers.traceparent is None else {header.TRACEPARENT: headers.traceparent}
