"""The ledger's tables, and how they come to be what this worker knows."""

from typing import Final
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

METADATA: Final = sa.MetaData()

#: Facts about the ledger itself: its identity and the version of its schema.
facts = sa.Table(
    "connectors_ledger_facts",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(255), nullable=False),
)

entries = sa.Table(
    "connectors_ledger",
    METADATA,
    sa.Column("tenant", sa.String(63), primary_key=True),
    sa.Column("connector", sa.String(63), primary_key=True),
    sa.Column("action", sa.String(63), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    #: running, done, unknown, undoing, undone
    sa.Column("state", sa.String(8), nullable=False),
    #: Grows with every claim; a worker with an older one writes nothing.
    sa.Column("fence", sa.BigInteger, nullable=False),
    #: Epoch seconds by the database's clock, here and below.
    sa.Column("lease_until", sa.Double, nullable=False),
    #: An effect may be there that no stored result tells of: a call is on its way, or was cut off.
    sa.Column("in_flight", sa.Boolean, nullable=False),
    #: From here on that call can no longer land; infinite if no one can say.
    sa.Column("lands_at", sa.Double, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    #: JSON text: what the finished parts of the action returned, by name; null if there are none.
    sa.Column("steps", sa.Text),
    #: JSON text; null until done.
    sa.Column("result", sa.Text),
    #: The state that an undo which fails puts back; null if the undo came before its run.
    sa.Column("before_undo", sa.String(8)),
    #: The call of an undo is on its way, or was cut off. The default is for workers of an earlier version.
    sa.Column("undo_in_flight", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("expires_at", sa.Double, nullable=False, index=True),
)

#: What brings a schema of each earlier version to the next one, in SQL that both databases take.
STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE connectors_ledger RENAME COLUMN calling TO in_flight",
        "ALTER TABLE connectors_ledger RENAME COLUMN settles_at TO lands_at",
        "ALTER TABLE connectors_ledger RENAME COLUMN starts TO attempts",
        "ALTER TABLE connectors_ledger ADD COLUMN steps TEXT",
        "ALTER TABLE connectors_ledger ADD COLUMN before_undo VARCHAR(8)",
    ),
    2: ("ALTER TABLE connectors_ledger ADD COLUMN undo_in_flight BOOLEAN NOT NULL DEFAULT FALSE",),
}
#: The version of the tables above: one more than the last step's.
SCHEMA_VERSION: Final = 3
#: The lock in PostgreSQL that workers which start at once take in turn.
_LOCK: Final = 7017012


class LedgerFault(Exception):
    """The database cannot serve as a ledger as it is set up; one line that says what to do."""


async def upgrade(connection: AsyncConnection, *, is_sqlite: bool) -> str:
    """Bring the schema up to date and give the ledger's identity.

    Of workers that start at once, one does it and the rest wait.

    Raises:
        LedgerFault: a later worker made the schema.
    """
    if is_sqlite:
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        await connection.execute(sa.text(f"select pg_advisory_xact_lock({_LOCK})"))
    await connection.run_sync(METADATA.create_all)
    known = {row.name: row.value for row in await connection.execute(sa.select(facts.c.name, facts.c.value))}
    for name, value in (("schema", str(SCHEMA_VERSION)), ("id", uuid4().hex)):
        if name not in known:
            await connection.execute(facts.insert().values(name=name, value=value))
            known[name] = value
    found = int(known["schema"])
    if found > SCHEMA_VERSION:
        raise LedgerFault(
            f"the ledger's schema is version {found}, this worker knows {SCHEMA_VERSION}; upgrade this worker"
        )
    for version in range(found, SCHEMA_VERSION):
        for statement in STEPS[version]:
            await connection.exec_driver_sql(statement)
    if found < SCHEMA_VERSION:
        await connection.execute(
            facts.update().where(facts.c.name == "schema").values(value=str(SCHEMA_VERSION))
        )
    return str(known["id"])
