"""A worker that dies at a named point of a job's life, once. Run as a script; nothing of it is in the product.

The points are those of the fault list: K0 received, K1 validated, K2 claimed, K3 secret read, K4 about to
call, K5 request processed, K6 answered but not recorded, K7 recorded but not replied, K8 replied but not
confirmed, K9 confirmed but not acked, K10 acked.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from yarl import URL

from connectors.sdk.runtime.action_runner import ActionRunner
from connectors.sdk.runtime.idempotency import IdempotentRunner
from connectors.sdk.runtime.infrastructure import HoldPolicy
from connectors.sdk.runtime.lease import LeasePolicy
from worker.broker import Delivery, PublishChannel
from worker.broker.wire.frames import ack_frame
from worker.job.processor import JobProcessor
from worker.ledger.store import SqlLedger
from worker.main import run_worker

POINTS = [f"K{number}" for number in range(11)]


def die_once() -> None:
    """kill -9, unless this point was died at before."""
    marker = Path(os.environ["FAILPOINT_MARKER"])
    try:
        marker.open("x").close()
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: type, name: str) -> None:
    """Die when a method is called."""
    method = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        die_once()
        return method(*args, **kwargs)

    setattr(owner, name, dying)


def after(owner: type, name: str) -> None:
    """Die when an asynchronous method has returned."""
    method = getattr(owner, name)

    async def dying(*args: Any, **kwargs: Any) -> Any:
        result = await method(*args, **kwargs)
        die_once()
        return result

    setattr(owner, name, dying)


def die_unconfirmed() -> None:
    """Die once a reply is on the wire and before its confirm is read."""
    publish = PublishChannel.publish

    async def dying(self: PublishChannel, exchange: str, *args: Any, **kwargs: Any) -> bool:
        publishing = asyncio.create_task(publish(self, exchange, *args, **kwargs))
        if exchange == "":
            for _ in range(20):
                await asyncio.sleep(0)
            die_once()
        return await publishing

    PublishChannel.publish = dying  # type: ignore[method-assign]


def die_processed() -> None:
    """Die when the provider has done the work and its answer was not looked at."""
    request = httpx.AsyncClient.request

    async def dying(self: httpx.AsyncClient, *args: Any, **kwargs: Any) -> httpx.Response:
        response = await request(self, *args, **kwargs)
        die_once()
        return response

    httpx.AsyncClient.request = dying  # type: ignore[method-assign]


def ack_twice() -> None:
    """Ack one delivery a second time, which the broker answers by closing the channel."""
    ack = Delivery.ack

    async def doubled(self: Delivery) -> bool:
        done = await ack(self)
        if not Path(os.environ["FAILPOINT_MARKER"]).exists():
            Path(os.environ["FAILPOINT_MARKER"]).touch()
            # Past the delivery and its channel, which let no tag out twice.
            channel: Any = self._channel
            channel.socket.flush()
            channel.socket.send(ack_frame(channel.number, self._tag, multiple=False))
        return done

    Delivery.ack = doubled  # type: ignore[method-assign]


FAIL_AT: dict[str, Callable[[], None]] = {
    "K0": lambda: before(JobProcessor, "receive"),
    "K1": lambda: before(IdempotentRunner, "run"),
    "K2": lambda: after(SqlLedger, "claim"),
    "K3": lambda: after(ActionRunner, "fetch"),
    "K4": lambda: after(SqlLedger, "begin"),
    "K5": die_processed,
    "K6": lambda: before(SqlLedger, "complete"),
    "K7": lambda: after(SqlLedger, "complete"),
    "K8": die_unconfirmed,
    "K9": lambda: before(Delivery, "ack"),
    "K10": lambda: after(Delivery, "ack"),
    "double ack": ack_twice,
}

if __name__ == "__main__":
    if heartbeat_s := os.environ.get("HEARTBEAT_S"):
        url = URL(os.environ["CONNECTORS_RABBITMQ_URL"])
        os.environ["CONNECTORS_RABBITMQ_URL"] = str(url.update_query(heartbeat=heartbeat_s))
    if point := os.environ.get("FAILPOINT"):
        FAIL_AT[point]()
    sys.exit(
        run_worker(
            lease_policy=LeasePolicy(lease_s=2.0, renew_s=0.5, stall_s=2.0),
            hold_policy=HoldPolicy(hold_s=float(os.environ.get("HOLD_S", "60"))),
        )
    )
