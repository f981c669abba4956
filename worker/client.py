"""The client for publishers: publish a job, or call an action and wait for its result."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from schemas.error import Error
from schemas.job import Job, Mode
from schemas.result import PROGRESS_TYPE, Progress, Result
from worker.broker import BrokerError, BrokerRefusal, Connection, Delivery, Properties, PublishRefused
from worker.broker.confirmed_publisher import ConfirmedPublisher
from worker.broker.connector import BrokerConnector
from worker.broker.reply_queue import ReplyQueue
from worker.broker.topology import Topology, routing_key
from worker.client_reply import UnreadableReply, read_progress, read_result

__all__ = ["ConnectorsClient", "ConnectorsError", "NoReply", "UnreadableReply"]

#: Seconds that `call` waits beyond the deadline: the worker replies at the deadline, and the reply takes a moment.
GRACE_S: Final = 2.0
#: Seconds before a job is published again that no queue took, or that a full one rejected.
RETRY_S: Final = 0.5
#: Seconds for the question why no reply came.
REASON_TIMEOUT_S: Final = 1.0


class ConnectorsError(Exception):
    """A job failed; `code` says how, `result` is the whole reply."""

    def __init__(self, result: Result) -> None:
        assert result.error is not None
        super().__init__(f"{result.error.code}: {result.error.message}")
        self.result = result
        self.error: Error = result.error
        #: A `Code`, or the text of a newer worker's code that this client does not know.
        self.code: str = result.error.code


class NoReply(Exception):
    """No reply came in time; the job may still run. The same id, sent again, returns its result."""

    def __init__(self, job_id: str, waited_s: float, reason: str) -> None:
        super().__init__(f"no reply to the job {job_id} in {waited_s:g} s: {reason}")
        self.job_id = job_id
        self.reason = reason


@dataclass(slots=True, eq=False)
class _Call:
    """A job whose reply is awaited."""

    job: Job
    key: str
    result: "asyncio.Future[Result]"
    on_progress: Callable[[Progress], None] | None
    #: What it waits for, besides the connection; None once the job is confirmed.
    waiting_for: str | None = "the job is not published yet"


class ConnectorsClient:
    """A publisher's connection: many calls in flight, their replies on one reply queue.

    It heals by itself. If the broker, the connection or the reply queue is lost, the calls in flight are
    sent again with the same id until their time is up: a job is known by its id, so its effect happens once.

    Example:
        async with ConnectorsClient("amqp://guest:guest@localhost/") as client:
            result = await client.call("dummy", "echo", {"message": "hi"}, timeout_s=5)
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "connectors",
        reply_exchange: str = "",
        user_id: str | None = None,
        tls: ssl.SSLContext | Callable[[], ssl.SSLContext | None] | None = None,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            user_id: the broker user; the broker checks it, and workers that map publishers need it.
            tls: a context, or what makes one for each connection because its files may be replaced.
        """
        self._topology = Topology(prefix)
        self._user_id = user_id
        self._calls: dict[str, _Call] = {}
        connector = BrokerConnector(url, tls=tls if callable(tls) else lambda: tls)

        async def connect() -> Connection:
            return await connector.open("connectors client")

        self._publisher = ConfirmedPublisher(connect, name="client")
        self._replies = ReplyQueue(connect, self._receive, exchange=reply_exchange)

    async def __aenter__(self) -> Self:
        """Connect; if the broker cannot be reached now, keep trying in the background.

        Raises:
            BrokerRefused: the broker refuses the login.
        """
        await self._replies.start()
        self._publisher.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._replies.close()
        await self._publisher.close()

    @property
    def unreachable_reason(self) -> str | None:
        """Why no reply can be received now; None if one can."""
        return self._replies.fault

    async def call(
        self,
        connector: str,
        action: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = 30.0,
        tenant: str = "default",
        credential: str = "default",
        key: str | None = None,
        job_id: str | None = None,
        mode: Mode = "run",
        locale: str = "en",
        metadata: Mapping[str, str] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Publish one job and wait for its result.

        Args:
            timeout_s: seconds; becomes the job's deadline, too.
            key: the idempotency key; the same key has its effect once.
            on_progress: called for each progress message; asks for them.

        Raises:
            ConnectorsError: the job failed.
            NoReply: no reply in time; says what was waited for.
            UnreadableReply: a reply that is not one by the contract.
            BrokerError: the broker refuses the job.
        """
        now = datetime.now(UTC)
        job = Job(
            id=job_id or str(uuid4()),
            connector=connector,
            action=action,
            params=dict(params or {}),
            tenant=tenant,
            credential=credential,
            idempotency_key=key,
            mode=mode,
            progress=on_progress is not None,
            deadline=now + timedelta(seconds=timeout_s),
            locale=locale,
            metadata=dict(metadata or {}),
        )
        result = await self.send(job, timeout_s=timeout_s, on_progress=on_progress)
        if result.error is not None:
            raise ConnectorsError(result)
        return result

    async def send(
        self,
        job: Job,
        *,
        timeout_s: float,
        bulk: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Result:
        """Publish a job as it is and wait for its result, failed or not.

        Raises:
            NoReply, UnreadableReply, BrokerError: as `call`.
        """
        correlation_id = uuid4().hex
        key = routing_key(job.connector, job.action, bulk=bulk)
        call = _Call(job, key, asyncio.get_running_loop().create_future(), on_progress)
        self._calls[correlation_id] = call
        try:
            async with asyncio.timeout(timeout_s + GRACE_S):
                while not call.result.done():
                    await self._send_once(correlation_id, call)
                return call.result.result()
        except TimeoutError:
            raise NoReply(job.id, timeout_s, await self._reason(call)) from None
        finally:
            del self._calls[correlation_id]

    async def publish(self, job: Job, *, bulk: bool = False, timeout_s: float = 30.0) -> None:
        """Publish a job that no caller waits for, and wait for the broker's confirm.

        Raises:
            BrokerError: the broker refuses it, or does not confirm it in time; says why.
        """
        key = routing_key(job.connector, job.action, bulk=bulk)
        call = _Call(job, key, asyncio.get_running_loop().create_future(), None)
        try:
            async with asyncio.timeout(timeout_s):
                await self._publish(call, self._properties(job))
        except TimeoutError:
            reason = self._publisher.fault or call.waiting_for
            raise BrokerError(f"the job {job.id} is not published after {timeout_s:g} s: {reason}") from None

    async def _send_once(self, correlation_id: str, call: _Call) -> None:
        """Publish the job for the reply queue there is, and wait for the result or the loss of that queue."""
        address = await self._replies.address()
        properties = self._properties(call.job, correlation_id, reply_to=address.name)
        publishing = asyncio.create_task(self._publish(call, properties))
        lost = asyncio.create_task(address.lost.wait())
        ends: set[asyncio.Future[Any]] = {lost, call.result}
        try:
            await asyncio.wait({publishing, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if publishing.done() and not call.result.done():
                publishing.result()
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            publishing.cancel()
            lost.cancel()
            await asyncio.gather(publishing, lost, return_exceptions=True)

    async def _publish(self, call: _Call, properties: Properties) -> None:
        """Publish until a queue took the job and the broker confirmed it."""
        while True:
            try:
                if await self._publisher.deliver(self._topology.jobs, call.key, _body(call.job), properties):
                    call.waiting_for = None
                    return
                call.waiting_for = f"no queue takes {call.key!r}: has a worker ever run on this broker?"
            except PublishRefused as refused:
                call.waiting_for = self._refused(refused)
            await asyncio.sleep(RETRY_S)

    def _refused(self, refused: PublishRefused) -> str:
        """Return why a refused job waits for another try.

        Raises:
            BrokerError: another try cannot succeed.
        """
        if refused.refusal is BrokerRefusal.MISSING:
            return f"there is no exchange {self._topology.jobs!r}: has a worker ever run on this broker?"
        if refused.refusal is BrokerRefusal.FULL:
            return str(refused)
        raise BrokerError(f"the broker refuses the job: {refused}") from None

    async def _reason(self, call: _Call) -> str:
        """Return why no reply came, as far as it can be known."""
        fault = self._replies.fault or self._publisher.fault or call.waiting_for
        if fault is not None:
            return fault
        queue = self._topology.job_queue_name(call.job.connector, bulk=call.key.endswith(".bulk"))
        connection, counts = self._publisher.connection, None
        with suppress(TimeoutError, BrokerError):
            async with asyncio.timeout(REASON_TIMEOUT_S):
                counts = await connection.count(queue) if connection is not None else None
        if counts is None:
            return f"the job was published, and nothing is known of {queue!r}; is a worker running?"
        if counts[1] == 0:
            return f"no worker consumes {queue!r}; is a worker running?"
        return f"the job was published, {counts[1]} consumers are on {queue!r}, {counts[0]} jobs wait in it"

    def _properties(
        self, job: Job, correlation_id: str | None = None, reply_to: str | None = None
    ) -> Properties:
        return Properties(
            message_id=job.id,
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type="application/json",
            user_id=self._user_id,
        )

    def _receive(self, delivery: Delivery) -> None:
        call = self._calls.get(delivery.properties.correlation_id or "")
        if call is None or call.result.done():
            return  # a second copy, or a reply that came too late
        if delivery.properties.type == PROGRESS_TYPE:
            progress = read_progress(delivery.body)
            if call.on_progress is not None and progress is not None:
                call.on_progress(progress)
            return
        try:
            call.result.set_result(read_result(delivery.body))
        except UnreadableReply as unreadable:
            call.result.set_exception(unreadable)


def _body(job: Job) -> bytes:
    return job.model_dump_json(exclude_defaults=True, exclude_none=True).encode()
