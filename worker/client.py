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

from schemas.error import Code, Error
from schemas.job import Job, Mode
from schemas.result import PROGRESS_TYPE, Progress, Result
from worker.broker import (
    BrokerError,
    Connection,
    Consumer,
    Delivery,
    Properties,
    PublishChannel,
    PublishRefused,
    PublishUncertain,
)
from worker.broker.topology import Topology, routing_key

#: Seconds that `call` waits beyond the deadline: the worker replies at the deadline, and the reply takes a moment.
GRACE_S: Final = 2.0
#: Seconds before the next attempt to connect to the broker.
RETRY_S: Final = 0.5


class ConnectorsError(Exception):
    """A job failed; `code` says how, `result` is the whole reply."""

    def __init__(self, result: Result) -> None:
        assert result.error is not None
        super().__init__(f"{result.error.code}: {result.error.message}")
        self.result = result
        self.error: Error = result.error
        self.code: Code = result.error.code


class NoReply(Exception):
    """No reply came in time; the job may still run. Send the same id again to learn its result."""

    def __init__(self, job_id: str, waited_s: float) -> None:
        super().__init__(f"no reply to the job {job_id} in {waited_s:g} s; is a worker running?")
        self.job_id = job_id


@dataclass(slots=True, eq=False)
class _Call:
    job: Job
    key: str
    result: "asyncio.Future[Result]"
    on_progress: Callable[[Progress], None] | None


class ConnectorsClient:
    """A publisher's connection: many calls in flight, their replies on one reply queue.

    If the broker is lost, the calls in flight are sent again with the same id once it is back, until
    their timeout: the id is the idempotency key, so each effect happens once.

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
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._topology = Topology(prefix)
        self._reply_exchange = reply_exchange
        self._tls = tls
        #: The broker checks it against our login; needed if publishers are mapped to tenants.
        self._user_id = user_id
        self._calls: dict[str, _Call] = {}
        self._ready = asyncio.Event()
        self._channel: PublishChannel | None = None
        self._reply_to = ""
        self._connection: Connection | None = None
        self._supervisor: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerError: the broker cannot be reached, or rejects the login.
        """
        connection = await self._open()
        self._supervisor = asyncio.create_task(self._supervise(connection))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
        if self._connection is not None:
            await self._connection.close()

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
            key: the idempotency key; the same key is the same effect, once.
            on_progress: called for each progress message; requests them.

        Raises:
            ConnectorsError: the job failed.
            NoReply: no reply in time.
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
            NoReply, BrokerError: as `call`.
        """
        correlation_id = uuid4().hex
        key = routing_key(job.connector, job.action, bulk=bulk)
        call = _Call(job, key, asyncio.get_running_loop().create_future(), on_progress)
        self._calls[correlation_id] = call
        try:
            async with asyncio.timeout(timeout_s + GRACE_S):
                await self._publish_call(correlation_id, call)
                return await call.result
        except TimeoutError:
            raise NoReply(job.id, timeout_s) from None
        finally:
            del self._calls[correlation_id]

    async def publish(self, job: Job, *, bulk: bool = False, timeout_s: float = 30.0) -> None:
        """Publish a job without waiting for its result; wait for the broker's confirm.

        Raises:
            BrokerError: it is not confirmed in time.
        """
        properties = Properties(message_id=job.id, content_type="application/json", user_id=self._user_id)
        key = routing_key(job.connector, job.action, bulk=bulk)
        try:
            async with asyncio.timeout(timeout_s):
                await self._confirmed(key, _body(job), properties)
        except TimeoutError:
            raise BrokerError(f"the broker did not confirm the job {job.id} in {timeout_s:g} s") from None

    async def _publish_call(self, correlation_id: str, call: _Call) -> None:
        await self._ready.wait()
        properties = Properties(
            message_id=call.job.id,
            correlation_id=correlation_id,
            reply_to=self._reply_to,
            content_type="application/json",
            user_id=self._user_id,
        )
        await self._confirmed(call.key, _body(call.job), properties)

    async def _confirmed(self, key: str, body: bytes, properties: Properties) -> None:
        """Publish until the broker confirms it."""
        while True:
            await self._ready.wait()
            channel = self._channel
            assert channel is not None
            try:
                if not await channel.publish(self._topology.jobs, key, body, properties):
                    raise BrokerError(f"no queue is bound for {key!r}; start a worker once on this broker")
                return
            except PublishUncertain:
                await asyncio.sleep(RETRY_S)
            except PublishRefused as refusal:
                raise BrokerError(
                    f"the broker refuses the job: {refusal}; start a worker once on this broker"
                ) from None

    async def _open(self) -> Connection:
        connection = await Connection.open(self._url, name="connectors client", tls=self._tls)
        replies = await Consumer.open(connection, "", self._receive)
        self._reply_to = await replies.declare_reply_queue(self._reply_exchange)
        await replies.consume(0, no_ack=True)
        self._channel = await PublishChannel.open(connection)
        self._connection = connection
        self._ready.set()
        return connection

    async def _supervise(self, connection: Connection) -> None:
        """Reconnect after each loss, and send the calls in flight again."""
        while True:
            await connection.closed()
            self._ready.clear()
            await connection.close()
            while not self._ready.is_set():
                try:
                    connection = await self._open()
                except BrokerError:
                    await asyncio.sleep(RETRY_S)
            for correlation_id, call in list(self._calls.items()):
                if not call.result.done():
                    with suppress(BrokerError):
                        await self._publish_call(correlation_id, call)

    def _receive(self, delivery: Delivery) -> None:
        call = self._calls.get(delivery.properties.correlation_id or "")
        if call is None:
            return  # a second copy, or a reply that came too late
        if delivery.properties.type == PROGRESS_TYPE:
            if call.on_progress is not None:
                call.on_progress(Progress.model_validate_json(delivery.body))
        elif not call.result.done():
            call.result.set_result(Result.model_validate_json(delivery.body))


def _body(job: Job) -> bytes:
    return job.model_dump_json(exclude_defaults=True, exclude_none=True).encode()
