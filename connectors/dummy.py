"""The smallest connector: no credential, no network. The one to copy, and the one to test with."""

import asyncio
import time
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from connectors.sdk import Connector, ConnectorError, Effect, InvalidParams
from connectors.sdk.errors import Code

dummy = Connector("dummy", title="Dummy")

Seconds = Annotated[float, Field(ge=0, le=3600, examples=[0.5])]


class Received(TypedDict):
    """What `echo` answers."""

    received_message: str


@dummy.action(effect=Effect.READ)
async def ping() -> str:
    """Answer "pong": the way through broker, worker and back is open."""
    return "pong"


@dummy.action(effect=Effect.READ)
async def echo(message: Annotated[str, Field(examples=["hello"])]) -> Received:
    """Return the message."""
    return {"received_message": message}


@dummy.action(effect=Effect.READ)
async def sleep(seconds: Seconds) -> None:
    """Wait without holding anything up, as a slow provider would make an action wait."""
    await asyncio.sleep(seconds)


@dummy.action(effect=Effect.READ)
def block(seconds: Seconds) -> None:
    """Wait in a function that blocks, as a synchronous client library would."""
    time.sleep(seconds)


@dummy.action(effect=Effect.READ, errors=tuple(Code))
async def fail(code: str, message: str = "as asked") -> None:
    """Fail with a code of the closed list, to see what a caller would get."""
    if code not in Code.__members__:
        issue = f"is not a code; the codes are {', '.join(Code)}"
        raise InvalidParams.field("code", issue)
    raise ConnectorError(message, code=Code(code))
