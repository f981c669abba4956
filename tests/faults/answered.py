"""Jobs published before a fault, and their answers collected after it."""

import asyncio
import functools
from typing import Any

from tests.support.rpc import ExternalClient, job

REPLIES = "callers.replies"


async def publish(url: str, count: int, action: str = "echo", seconds: float = 1) -> list[str]:
    """Publish jobs of `dummy` whose replies wait in a durable queue; the caller hangs up."""

    def send() -> list[str]:
        with ExternalClient(url, reply_queue=REPLIES, collects=False) as client:
            client.channel.confirm_delivery()
            params: dict[str, Any] = {"message": "x" * 100} if action == "echo" else {"seconds": seconds}
            return [client.send(job("dummy", action, params)) for _ in range(count)]

    return await asyncio.to_thread(send)


async def answers(
    url: str, sent: list[str], timeout_s: float = 60, *, dead_letters: int = 0
) -> dict[str, int]:
    """Collect the replies, all of them successes, and count them by correlation id; nothing else is dead-lettered."""

    def collect() -> dict[str, int]:
        with ExternalClient(url, reply_queue=REPLIES) as client:
            replies = client.wait(sent, timeout_s)
            assert {"succeeded"} == {each["status"] for copies in replies.values() for each in copies}
            depth = functools.partial(client.depth, "connectors.dead")
            client.until(lambda: depth() >= dead_letters, 20, lambda: "the dead letters")
            assert dead_letters == depth()
            return {each: len(copies) for each, copies in replies.items()}

    return await asyncio.to_thread(collect)
