"""The connector that the simulated jobs use: one action of each kind that the core tells apart."""

import asyncio
from typing import Any, Final, cast

from pydantic import BaseModel

from connectors.sdk import Connector, Context, Effect
from tests.simulation.provider import SimulatedClient

#: Seconds that an action gets: less than a lease, and more.
SHORT_S: Final = 4.0
LONG_S: Final = 20.0


class Secret(BaseModel):
    """What the vault holds."""

    token: str


def _http(ctx: Context[Secret]) -> SimulatedClient:
    return cast(SimulatedClient, ctx.http)


async def _write(ctx: Context[Secret], within_s: float, *, keyed: bool = False, part: str = "") -> str:
    await _http(ctx).write(ctx.idempotency_key, part, ctx.credential.token, keyed=keyed, within_s=within_s)
    return ctx.idempotency_key


async def _remove(ctx: Context[Secret]) -> None:
    ends_at = asyncio.get_running_loop().time() + SHORT_S
    await _http(ctx).remove(ctx.idempotency_key, ends_at=ends_at)


def make_shop() -> Connector[Any]:
    """Create the connector; one serves every schedule."""
    shop = Connector("shop", credential=Secret)

    @shop.action(effect=Effect.KEYED, timeout_s=LONG_S)
    async def keyed(ctx: Context[Secret], item: str) -> str:
        """Write under a key that the provider knows."""
        return await _write(ctx, LONG_S, keyed=True)

    @keyed.undo
    async def undo_keyed(ctx: Context[Secret]) -> None:
        await _remove(ctx)

    @shop.action(effect=Effect.WRITE, timeout_s=SHORT_S)
    async def plain(ctx: Context[Secret], item: str) -> str:
        """Write what cannot be looked up."""
        return await _write(ctx, SHORT_S)

    @plain.undo
    async def undo_plain(ctx: Context[Secret]) -> None:
        await _remove(ctx)

    @shop.action(effect=Effect.WRITE, timeout_s=LONG_S)
    async def looked(ctx: Context[Secret], item: str) -> str:
        """Write what can be looked up."""
        return await _write(ctx, LONG_S)

    @looked.reconcile
    async def look(ctx: Context[Secret], item: str) -> str | None:
        return ctx.idempotency_key if await _http(ctx).is_there(ctx.idempotency_key) else None

    @looked.undo
    async def undo_looked(ctx: Context[Secret]) -> None:
        await _remove(ctx)

    @shop.action(effect=Effect.WRITE, timeout_s=SHORT_S)
    async def brief(ctx: Context[Secret], item: str) -> str:
        """Write what can be looked up, and soon no longer lands."""
        return await _write(ctx, SHORT_S)

    @brief.reconcile
    async def look_briefly(ctx: Context[Secret], item: str) -> str | None:
        return ctx.idempotency_key if await _http(ctx).is_there(ctx.idempotency_key) else None

    @brief.undo
    async def undo_brief(ctx: Context[Secret]) -> None:
        await _remove(ctx)

    @shop.action(effect=Effect.WRITE, timeout_s=SHORT_S)
    async def steps(ctx: Context[Secret], item: str) -> str:
        """Write twice, each part recorded."""
        for part in ("/first", "/second"):
            async with ctx.step(part) as step:
                if not step.is_done:
                    step.result = await _write(ctx, SHORT_S, part=part)
        return ctx.idempotency_key

    return shop


SHOP: Final = make_shop()
#: The actions, and the keys of the provider that each writes under.
PARTS: Final[dict[str, tuple[str, ...]]] = {
    "keyed": ("",),
    "plain": ("",),
    "looked": ("",),
    "brief": ("",),
    "steps": ("/first", "/second"),
}
#: Those with an undo.
UNDOABLE: Final = ("keyed", "plain", "looked", "brief")
#: Those with a reconcile.
LOOKED: Final = ("looked", "brief")
