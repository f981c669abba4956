"""A connector that runs in a process of its own, and does there what a bad one does."""

import asyncio
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from pydantic import BaseModel, SecretStr

from connectors.sdk.connector import Connector, UrlSetting
from connectors.sdk.context import Context
from connectors.sdk.effects import Effect
from connectors.sdk.errors import Conflict


class Account(BaseModel):
    """Its credential."""

    base_url: str
    key: SecretStr


isolated = Connector(
    "isolated", credential=Account, settings=[UrlSetting("api_url", "https://a.example")], isolation="process"
)


@isolated.action(effect=Effect.READ)
async def look() -> dict[str, str]:
    """Return what this process can see of itself and its worker."""
    return {
        **{f"env {name}": value for name, value in os.environ.items()},
        "pid": str(os.getpid()),
        "parent": str(os.getppid()),
        "api_url": isolated.settings["api_url"],
    }


@isolated.action(effect=Effect.READ)
async def whoami(ctx: Context[Account]) -> list[str]:
    """Return what the job carries."""
    ctx.progress("asked")
    ctx.log.info("who", count=2)
    return [ctx.tenant, ctx.idempotency_key, ctx.credential.key.get_secret_value(), str(ctx.attempt)]


@isolated.action(effect=Effect.WRITE, timeout_s=20)
async def send(ctx: Context[Account], path: str = "/") -> int:
    """Send one request that has an effect."""
    return (await ctx.http.at(ctx.credential.base_url).post(path)).status_code


@isolated.action(effect=Effect.WRITE, timeout_s=20)
async def order(ctx: Context[Account], conflict_first: bool = True) -> list[str]:
    """Write in two parts, under a lease."""
    async with ctx.lease("desk"), ctx.step("one") as one:
        if not one.is_done:
            one.result = "1"
    async with ctx.step("two") as two:
        if not two.is_done:
            two.result = "2"
    return [one.result, two.result]


@send.undo
async def unsend(ctx: Context[Account], result: int | None) -> None:
    """Take it back."""
    await ctx.http.at(ctx.credential.base_url).delete(f"/{result}")


@isolated.action(effect=Effect.READ, errors=[Conflict])
def refuse() -> None:
    """Fail by what a connector may raise."""
    raise Conflict("it is there", data={"id": "17"}, retry_after_s=1.5)


@isolated.action(effect=Effect.READ)
def add(a: int, b: int) -> int:
    """Add in a thread."""
    return a + b


@isolated.action(effect=Effect.WRITE, timeout_s=1)
def hang_write(mark: str) -> None:
    """Hang in a thread, and have an effect in the end."""
    Path(mark).write_text("begun")
    time.sleep(30)
    Path(mark).write_text("ended")


@isolated.action(effect=Effect.READ, timeout_s=1)
def hang_read() -> None:
    """Hang in a thread."""
    time.sleep(30)


@isolated.action(effect=Effect.READ, timeout_s=1)
async def block() -> None:
    """Block the loop."""
    time.sleep(30)  # that is the point


@isolated.action(effect=Effect.READ, timeout_s=20)
async def block_long(mark: str) -> None:
    """Block the loop for longer than others wait."""
    Path(mark).write_text("begun")
    time.sleep(30)


@isolated.action(effect=Effect.READ, timeout_s=1)
async def ignore() -> None:
    """Ignore cancellation."""
    while True:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            continue


@isolated.action(effect=Effect.READ)
async def exchange(ctx: Context[Account], tenant: str) -> None:
    """Exchange a refresh token of a tenant's, and report a quota."""
    account = (tenant, ctx.connector, "default")
    ctx.http.quota(1, 4)
    await ctx.http.rotations.rotate(account, "key", ctx.credential.key, SecretStr("newer-secret"))


async def _wait(mark: str, seconds: float) -> str:
    Path(mark).write_text("begun")
    await asyncio.sleep(seconds)
    return "done"


@isolated.action(effect=Effect.WRITE, timeout_s=20)
async def wait_write(mark: str, seconds: float = 30) -> str:
    """Wait, like an innocent call."""
    return await _wait(mark, seconds)


@isolated.action(effect=Effect.READ, timeout_s=20)
async def wait_read(mark: str, seconds: float = 30) -> str:
    """Wait, like an innocent call."""
    return await _wait(mark, seconds)


@isolated.action(effect=Effect.WRITE)
async def crash() -> None:
    """End the process as a broken extension does."""
    os.kill(os.getpid(), signal.SIGSEGV)


@isolated.action(effect=Effect.READ)
async def scream() -> None:
    """Write bytes that are no frame where the worker reads."""
    os.write(int(sys.argv[1]), b"\xff" * 64)


@isolated.action(effect=Effect.READ)
async def dies_with_its_worker() -> int:
    """Return the signal that the kernel sends when the worker dies."""
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(number))
    return number.value
