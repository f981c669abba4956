"""The composition root: builds the parts, starts and stops them in order, drains on a signal."""

import asyncio
import signal
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from loguru import logger

from connectors.registry import Registry
from connectors.sdk.isolation.processes import Processes
from connectors.sdk.isolation.reports import Callbacks
from connectors.sdk.runtime.executor import Executor
from connectors.sdk.runtime.infrastructure import HoldPolicy
from connectors.sdk.runtime.lease import LeasePolicy
from worker.broker import BrokerRefused, Connection, TopologyMismatch, declare
from worker.broker.confirmed_publisher import ConfirmedPublisher
from worker.broker.connector import BrokerConnector
from worker.broker.ledger_guard import LedgerGuard
from worker.broker.publish_probe import PublishProbe, check_publishing, learn_user
from worker.broker.queue_consumer import QueueConsumer
from worker.broker.shared_connection import SharedConnection
from worker.broker.topology import JobQueue, Queue, Topology
from worker.credential_store import secret_store
from worker.job.concurrency import ConcurrencyLimiter
from worker.job.guarded_ledger import guarded
from worker.job.isolation import isolation_plans
from worker.job.processor import JobProcessor
from worker.job.publisher import JobPublisher
from worker.job.waiting_room import WaitingRoom
from worker.ledger.schema import LedgerFault
from worker.ledger.store import ledger_of
from worker.logs.masking import Redactor
from worker.logs.setup import LogInfo, log_info
from worker.metrics import Metrics
from worker.monitoring.listener import CannotListen, PortTaken
from worker.monitoring.server import MonitoringServer
from worker.monitoring.worker_status import WorkerStatus
from worker.provider_http import http_policy
from worker.settings import SettingError, Settings
from worker.tls import broker_tls

if TYPE_CHECKING:
    from connectors.sdk.http.client import HttpPool

#: Deliveries of the queue of unrouted jobs that are answered at once; each is only a reply.
UNROUTED_SLOTS: Final = 20
#: Synchronous actions of one connector that run at once, however many slots there are.
MOST_THREADS: Final = 500
#: Seconds that closing connections may take after the drain.
CLOSE_TIMEOUT_S: Final = 5.0


class Worker:
    """One worker process.

    Start: monitoring, vault, publishing connections, queue consumers. Stop: the consumers receive nothing
    more, the jobs in flight end and are replied to, then everything is closed in reverse order.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        redactor: Redactor,
        *,
        lease_policy: LeasePolicy | None = None,
        hold_policy: HoldPolicy | None = None,
        log_info: LogInfo = log_info,
    ) -> None:
        self.settings = settings
        self.registry = registry
        for connector in registry.connectors.values():
            connector.settings.update(settings.of_connector(connector))
        self.topology = Topology(settings.prefix)
        self.metrics = Metrics(version=version("connectors-service"))
        self._connector = BrokerConnector(
            settings.rabbitmq_url.get_secret_value(), tls=partial(broker_tls, settings)
        )
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        #: The shared topology is there, and the worker may publish.
        self._shared_declared = asyncio.Event()
        self._failure: Exception | None = None
        self.credentials = secret_store(
            settings, on_fetch=self.metrics.credential_fetched, on_secret=redactor.register
        )
        plans = isolation_plans(
            http_policy(settings), registry, threads=min(settings.concurrency, MOST_THREADS)
        )
        self._http = self._make_http(redactor)
        self._consuming = SharedConnection(partial(self._connect, "consume"))
        self.confirmed_publisher = ConfirmedPublisher(
            partial(self._connect, "publish"),
            name="publish",
            on_change=self.metrics.broker_connected,
            declare=partial(self._declare, list(self.topology.queues())),
        )
        #: What a worker publishes to, besides replies.
        self._exchanges = list(self.topology.published())
        self.publish_probe = PublishProbe(
            self.confirmed_publisher, [settings.reply_exchange, *self._exchanges]
        )
        self._direct = ConfirmedPublisher(partial(self._connect, "direct"), name="direct")
        self.ledger = ledger_of(settings, lease_policy)
        self.ledger_guard = LedgerGuard(
            self.topology.ledger,
            ledger_id=lambda: self.ledger.id,
            connection=lambda: self.confirmed_publisher.connection,
        )
        self._processes = Processes(
            plans,
            Callbacks(
                self.metrics.called_out,
                self.metrics.quota_seen,
                redactor.register,
                self.credentials.keep,
            ),
            on_change=self.metrics.processes,
            on_end=self.metrics.process_ended,
        )
        self._executor = Executor(
            registry,
            self.credentials,
            self._http,
            guarded(self.ledger, self.ledger_guard),
            publishers=settings.publishers,
            lease_policy=lease_policy,
            hold_policy=hold_policy,
            threads=min(settings.concurrency, MOST_THREADS),
            on_hung=self.metrics.calls_hung,
            isolated=self._processes,
        )
        publisher = JobPublisher(
            self.confirmed_publisher,
            self._direct,
            self.topology,
            user=settings.broker_user,
            reply_exchange=settings.reply_exchange,
            reply_to_pattern=settings.reply_to_pattern,
            publishers=settings.publishers,
            is_strict=settings.strict,
        )
        self.rooms = dict(self._make_rooms())
        self._processor = JobProcessor(
            self._executor,
            publisher,
            registry,
            self.metrics,
            rooms=self.rooms,
            trusted_users=settings.trusted_users,
            max_attempts=settings.max_attempts,
            max_body_bytes=settings.max_body_bytes,
            log_info=log_info,
        )
        self.consumers = list(self._make_consumers())
        self.status = WorkerStatus(self)
        self._monitoring = MonitoringServer(
            settings.metrics_host,
            settings.metrics_port,
            metrics=self.metrics,
            checks=self.status.checks(),
            status=self.status,
            not_loaded=registry.broken,
            insecure=settings.gaps,
            hung_calls=lambda: self._executor.hung.by_action,
        )

    @property
    def is_stopping(self) -> bool:
        """Whether a signal came."""
        return self._stop.is_set()

    @property
    def hung_fault(self) -> str | None:
        """Why a connector can no longer be counted on, its calls hang; None if all can."""
        return self._executor.hung.fault

    @property
    def is_connected(self) -> bool:
        """Whether jobs are received and replies are sent."""
        return self.confirmed_publisher.is_open

    def stop(self) -> None:
        """Drain and end; called a second time, end at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def run(self) -> None:
        """Run until stopped.

        Raises:
            SettingError: what cannot work as it is set: the broker's refusal, a queue with other
                arguments, a taken port, a vault that refuses the login.
        """
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        try:
            await self._monitoring.start()
        except (PortTaken, CannotListen) as taken:
            raise SettingError(str(taken)) from None
        logger.info(
            "worker starting",
            version=version("connectors-service"),
            connectors=sorted(self.registry.connectors),
            metrics=f"http://{self.settings.metrics_host}:{self._monitoring.port}/",
        )
        for gap in self.settings.gaps:
            logger.warning("insecure", reason=gap)
        for fault in self.registry.broken.values():
            logger.error("connector not loaded", reason=fault)
        try:
            await self._start_stores()
            self.confirmed_publisher.start()
            consuming = [asyncio.create_task(queue.run(self._processor.receive)) for queue in self.consumers]
            consuming.append(asyncio.create_task(self.ledger_guard.run()))
            consuming.append(asyncio.create_task(self.publish_probe.run()))
            try:
                await self._until_stopped(consuming)
                await self._drain()
            finally:
                for task in consuming:
                    task.cancel()
                await asyncio.gather(*consuming, return_exceptions=True)
        finally:
            await self._close()
            for signum in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(signum)
        logger.info("worker stopped")

    async def _start_stores(self) -> None:
        """Log in to the vault and open the ledger; either may be unavailable for now, neither may be wrong."""
        try:
            await self.ledger.start()
        except LedgerFault as fault:
            raise SettingError(str(fault)) from None
        await self.credentials.start()

    async def _until_stopped(self, consuming: "list[asyncio.Task[None]]") -> None:
        stop = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait({stop, *consuming}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        for task in done - {stop}:
            error = task.exception()
            if isinstance(error, TopologyMismatch | BrokerRefused):
                raise SettingError(str(error)) from None
            if error is not None:
                raise error

    async def _drain(self) -> None:
        """Receive nothing more, and finish what is in flight; a second signal ends the waiting."""
        seconds = self.settings.drain_seconds
        logger.info("worker draining", in_flight=self._processor.in_flight, seconds=seconds)
        await asyncio.gather(*(queue.stop() for queue in self.consumers))
        draining = asyncio.create_task(self._processor.drain(seconds))
        at_once = asyncio.create_task(self._stop_now.wait())
        await asyncio.wait({draining, at_once}, return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        if draining.done():
            left = draining.result()
        else:
            draining.cancel()
            left = await self._processor.abandon()
        if left:
            logger.warning("jobs left unfinished", count=left, next="the broker delivers them again")

    async def _close(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                # The consuming connection last of the broker's links: it carried the acks.
                await self.confirmed_publisher.close()
                await self._direct.close()
                await self._consuming.close()
                await self._executor.close()
                await self._processes.close()
                await self.ledger.close()
                if self._http is not None:
                    await self._http.close()
                await self.credentials.close()
        await self._monitoring.stop()

    async def _connect(self, purpose: str) -> Connection:
        return await self._connector.open(f"connectors {purpose}")

    def _make_http(self, redactor: Redactor) -> "HttpPool | None":
        """Create what all calls to providers share; None if no connector can make one."""
        if not any(connector.needs_context for connector in self.registry.connectors.values()):
            return None
        # Imported here: aiohttp and httpx are 15 MB.
        from connectors.sdk.http.client import HttpPool  # noqa: PLC0415

        pool = HttpPool(
            http_policy(self.settings),
            on_call=self.metrics.called_out,
            on_quota=self.metrics.quota_seen,
            on_secret=redactor.register,
            keep=self.credentials.keep,
        )
        self.metrics.host_loads_from(pool.loads)
        return pool

    def _make_rooms(self) -> Iterable[tuple[JobQueue, WaitingRoom]]:
        """Create the waiting room of each queue; a connector's two queues share their slots."""
        for name in self.registry.connectors:
            queue, bulk = (self._job_queue(name, bulk=bulk) for bulk in (False, True))
            limiter = ConcurrencyLimiter(
                self.settings.concurrency,
                tenant_total=self.settings.tenant_slots,
                on_change=partial(self.metrics.slots, queue.name),
            )
            installed = self.registry.installed[name]
            self.metrics.add_connector(
                name,
                self.registry.connectors[name].actions,
                distribution=installed.distribution,
                version=installed.version,
            )
            self.metrics.add_queue(queue.name, limiter.total)
            self.metrics.add_queue(bulk.name, limiter.bulk_total)
            yield queue, WaitingRoom(limiter)
            yield bulk, WaitingRoom(limiter, bulk=True)
        yield JobQueue(self.topology.unrouted, None), WaitingRoom(ConcurrencyLimiter(UNROUTED_SLOTS))

    def _job_queue(self, connector: str, *, bulk: bool) -> JobQueue:
        return JobQueue(self.topology.job_queue_name(connector, bulk=bulk), connector, bulk)

    def _make_consumers(self) -> Iterable[QueueConsumer]:
        for queue, room in self.rooms.items():
            yield QueueConsumer(
                queue,
                prefetch=room.capacity,
                connect=self._consuming.open,
                declare=self._declare_shared
                if queue.connector is None
                else partial(self._declare_queue, self.topology.job_queue(queue.connector, bulk=queue.bulk)),
                flowing=self.confirmed_publisher.flowing,
            )

    async def _declare_shared(self, connection: Connection) -> None:
        await self._declare(list(self.topology.queues()), connection)
        if not self._shared_declared.is_set():  # later the probe says it, and the worker goes on
            await check_publishing(connection, self._exchanges, self.settings.reply_exchange)
        await self._learn_user(connection)
        self._shared_declared.set()

    async def _learn_user(self, connection: Connection) -> None:
        """Learn by which name the broker knows us: headers of ours count from that user alone."""
        configured = self.settings.broker_user
        actual = await learn_user(connection, configured, self.topology.jobs)
        if actual != configured:
            logger.info("broker user", configured=configured, actual=actual)
            self.confirmed_publisher.act_as(configured, actual)
            self._processor.trust(actual)

    async def _declare_queue(self, queue: Queue, connection: Connection) -> None:
        # No job is received before it is known that its reply and its retries can be published.
        await self._shared_declared.wait()
        await self._declare([queue], connection)

    async def _declare(self, queues: list[Queue], connection: Connection) -> None:
        exchanges = list(self.topology.exchanges())
        await declare(connection, exchanges, queues, reply_exchange=self.settings.reply_exchange)
