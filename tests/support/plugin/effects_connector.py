"""A third party's connector, as the worker finds it: one action of each effect, on the oracle's service."""

import asyncio
import os
import sys

import httpx

from connectors.sdk import Connector, Context, Effect, NotFound, Personal, RateLimited, Timeout, Unavailable
from connectors.sdk.errors import Sent

effects = Connector("effects")

_URL = os.environ.get("EFFECTS_URL", "")


@effects.action(effect=Effect.KEYED, timeout_s=5)
async def book(ctx: Context, note: str = "") -> dict[str, str]:
    """Book once per key: the provider knows the key."""
    return await _send("PUT", f"bookings/{ctx.idempotency_key}")


@book.undo
async def unbook(ctx: Context, result: dict[str, str] | None) -> None:
    """Cancel the booking of this key."""
    await _send("DELETE", f"bookings/{ctx.idempotency_key}")


@effects.action(effect=Effect.KEYED)
async def remember(note: str) -> str:
    """Return the note once per key, and ask no provider: what is left is the ledger."""
    return note


@effects.action(effect=Effect.WRITE, timeout_s=5)
async def scribble(ctx: Context, note: str = "") -> dict[str, str]:
    """Write a note each time; nobody can find it again."""
    return await _send("POST", f"notes/{ctx.idempotency_key}")


@effects.action(effect=Effect.WRITE, timeout_s=5)
async def jot(ctx: Context, note: str = "") -> dict[str, str]:
    """Write a note each time; it can be found again by its key."""
    return await _send("POST", f"notes/{ctx.idempotency_key}")


@jot.reconcile
async def find_note(ctx: Context, note: str = "") -> dict[str, str] | None:
    """Look for the note of this key."""
    try:
        return await _send("GET", f"notes/{ctx.idempotency_key}")
    except NotFound:
        return None


@jot.undo
async def erase(ctx: Context, result: dict[str, str] | None) -> None:
    """Erase the note of this key."""
    await _send("DELETE", f"notes/{ctx.idempotency_key}")


@effects.action(effect=Effect.WRITE, timeout_s=10)
async def pair(ctx: Context) -> dict[str, str]:
    """Write two notes with two requests: a failure of the second leaves the first."""
    await _send("POST", f"firsts/{ctx.idempotency_key}")
    return await _send("POST", f"pairs/{ctx.idempotency_key}")


@effects.action(effect=Effect.WRITE, timeout_s=10)
async def steps(ctx: Context) -> dict[str, str]:
    """Write two notes, each in a step of its own."""
    async with ctx.step("first") as first:
        if not first.is_done:
            first.result = await _send("POST", f"firsts/{ctx.idempotency_key}")
    return await _send("POST", f"pairs/{ctx.idempotency_key}")


@effects.action(effect=Effect.WRITE, timeout_s=60)
async def linger(ctx: Context, seconds: float) -> str:
    """Write a note and take long to say so."""
    await _send("POST", f"notes/{ctx.idempotency_key}")
    await asyncio.sleep(seconds)
    return "lingered"


@effects.action(effect=Effect.WRITE)
async def crash(ctx: Context) -> str:
    """Raise what no connector should."""
    raise ZeroDivisionError("a canary: hunter2-secret-text")


@effects.action(effect=Effect.READ)
async def quit(ctx: Context) -> str:
    """Try to take the worker along."""
    sys.exit(3)


@effects.action(effect=Effect.READ)
async def find_caller(ctx: Context, phone: Personal[str]) -> str:
    """Find nobody, and say so wherever people read along."""
    ctx.log.info(f"asked for {phone}", phone=phone, digits=phone[1:])
    raise NotFound(f"nobody has the number {phone}")


async def _send(method: str, path: str) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=_URL, trust_env=False, verify=False, timeout=4) as client:
        try:
            response = await client.request(method, path)
        except httpx.ConnectError:
            raise Unavailable("the provider cannot be reached", sent=Sent.NO) from None
        except httpx.TimeoutException:
            raise Timeout("the provider took too long") from None
        except httpx.TransportError:
            raise Unavailable("the connection was cut", sent=Sent.UNCERTAIN) from None
    if response.status_code == 404:
        raise NotFound("there is none")
    if response.status_code == 429:
        raise RateLimited("the provider asks to slow down")
    if response.status_code >= 500:
        raise Unavailable("the provider is failing")
    return {str(name): str(value) for name, value in response.json().items()}
