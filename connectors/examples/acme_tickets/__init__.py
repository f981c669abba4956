"""A worked example: tickets of an imaginary help desk, by OAuth 2, in pages, each kind of effect."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from connectors.sdk import Connector, Context, Effect, NotFound, Personal
from connectors.sdk.auth import OAuth2
from connectors.sdk.paginate import Page, by_cursor, take

tickets = Connector("acme_tickets", title="Acme Tickets", credential=OAuth2)

Ctx = Context[OAuth2]


class Ticket(BaseModel):
    """One ticket."""

    id: str
    subject: str
    caller: Personal[str]


class Found(BaseModel):
    """Some of the tickets."""

    tickets: list[Ticket]
    truncated: bool


@tickets.action(effect=Effect.READ, timeout_s=10)
async def list_tickets(ctx: Ctx, limit: Annotated[int, Field(ge=1, le=100)] = 20) -> Found:
    """List the newest tickets."""
    api = ctx.credential.api(ctx)

    async def page(cursor: str | None) -> Page[Any]:
        ctx.progress("reading a page")
        answer = (await api.get("/tickets", params={"after": cursor or ""})).json()
        return Page(answer["tickets"], answer["next"])

    taken = await take(by_cursor(page), limit=limit)
    return Found(tickets=[Ticket.model_validate(each) for each in taken.items], truncated=taken.truncated)


@tickets.action(effect=Effect.WRITE, timeout_s=10)
async def open_ticket(
    subject: Annotated[str, Field(min_length=1, examples=["No dial tone"])],
    caller: Annotated[Personal[str], Field(examples=["+905321112233"])],
    ctx: Ctx,
) -> Ticket:
    """Open a ticket. The help desk knows no keys, so ours is written into the ticket."""
    body = {"subject": subject, "caller": caller, "reference": ctx.key_digest}
    return Ticket.model_validate((await ctx.credential.api(ctx).post("/tickets", json=body)).json())


@open_ticket.reconcile
async def find_ticket(subject: str, caller: str, ctx: Ctx) -> Ticket | None:
    """Find the ticket with our reference."""
    try:
        answer = await ctx.credential.api(ctx).get(f"/tickets/by-reference/{ctx.key_digest}")
    except NotFound:
        return None
    return Ticket.model_validate(answer.json())


@tickets.action(effect=Effect.KEYED, timeout_s=10, errors=[NotFound])
async def close_ticket(
    ticket_id: Annotated[str, Field(pattern="^[0-9]+$", examples=["1"])], ctx: Ctx
) -> Ticket:
    """Close a ticket; closing it twice changes nothing more."""
    answer = await ctx.credential.api(ctx).put(f"/tickets/{ticket_id}/state", json={"state": "closed"})
    return Ticket.model_validate(answer.json())


@tickets.action(effect=Effect.READ)
def count_words(text: str) -> int:
    """Count words in a function that blocks, as many libraries do."""
    return len(text.split())
