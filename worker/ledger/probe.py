"""The question that tells whether a job can be claimed: a row is written, as a claim writes one."""

from typing import Any, Final
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.ledger.schema import entries

#: Neutral values for the columns that must have one, by their type in Python.
_NEUTRAL: Final[dict[type, Any]] = {str: "", int: 0, float: 0.0, bool: False}


async def probe(connection: AsyncConnection) -> None:
    """Insert, update and delete a row: reads alone succeed on a standby that writes no more.

    The row has no connector, so it is in no one's way, and a time in the past, so a sweep removes it
    if this ends halfway.
    """
    key = f"probe-{uuid4().hex}"
    values = {each.name: _NEUTRAL[each.type.python_type] for each in entries.c if not each.nullable}
    await connection.execute(sa.insert(entries).values({**values, "key": key}))
    mine = entries.c.key == key, entries.c.connector == ""
    await connection.execute(sa.update(entries).where(*mine).values(state="probe"))
    await connection.execute(sa.delete(entries).where(*mine))
