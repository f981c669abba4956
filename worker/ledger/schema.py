"""The ledger's tables, and how they come to be what this worker knows."""

from typing import Final
from uuid import uuid4

from worker.ledger.script import Ask, Do, Steps

#: The tables and their index, in SQL that both databases take.
TABLES: Final = {
    #: Facts about the ledger itself: its identity and the version of its schema.
    "connectors_ledger_facts": (
        """
        CREATE TABLE connectors_ledger_facts (
            name VARCHAR(64) NOT NULL PRIMARY KEY,
            value VARCHAR(255) NOT NULL
        )
        """,
    ),
    "connectors_ledger": (
        """
        CREATE TABLE connectors_ledger (
            tenant VARCHAR(63) NOT NULL,
            connector VARCHAR(63) NOT NULL,
            action VARCHAR(63) NOT NULL,
            key VARCHAR(255) NOT NULL,
            fingerprint VARCHAR(64) NOT NULL,
            -- running, done, unknown, undoing, undone
            state VARCHAR(8) NOT NULL,
            -- Grows with every claim; a worker with an older one writes nothing.
            fence BIGINT NOT NULL,
            -- Epoch seconds by the database's clock, here and below.
            lease_until DOUBLE PRECISION NOT NULL,
            -- An effect may be there that no stored result tells of: a call is on its way, or was cut off.
            in_flight BOOLEAN NOT NULL,
            -- From here on that call can no longer land; infinite if no one can say.
            lands_at DOUBLE PRECISION NOT NULL,
            attempts INTEGER NOT NULL,
            -- JSON text: what the finished parts of the action returned, by name; null if there are none.
            steps TEXT,
            -- JSON text; null until done.
            result TEXT,
            -- The state that an undo which fails puts back; null if the undo came before its run.
            before_undo VARCHAR(8),
            -- The call of an undo is on its way, or was cut off. The default is for workers of an earlier version.
            undo_in_flight BOOLEAN NOT NULL DEFAULT FALSE,
            expires_at DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (tenant, connector, action, key)
        )
        """,
        "CREATE INDEX ix_connectors_ledger_expires_at ON connectors_ledger (expires_at)",
    ),
}

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
#: The lock in PostgreSQL that workers which start at once take in turn; SQLite's transaction is one.
_LOCK: Final = 7017012
_SQLITE_TABLES: Final = "SELECT name FROM sqlite_master WHERE type = 'table'"
_POSTGRESQL_TABLES: Final = (
    "SELECT name FROM unnest(ARRAY['connectors_ledger_facts', 'connectors_ledger']) AS name"
    " WHERE to_regclass(name) IS NOT NULL"
)


class LedgerFault(Exception):
    """The database cannot serve as a ledger as it is set up; one line that says what to do."""


def upgrade(*, is_sqlite: bool) -> Steps[str]:
    """Bring the schema up to date and return the ledger's identity.

    Of workers that start at once, one does it and the rest wait.

    Raises:
        LedgerFault: a later worker made the schema.
    """
    if not is_sqlite:
        yield Do((f"SELECT pg_advisory_xact_lock({_LOCK})",))
    # Looked for first: a role that may not create tables can use those that are there.
    rows = yield Ask(_SQLITE_TABLES if is_sqlite else _POSTGRESQL_TABLES)
    missing = TABLES.keys() - {row[0] for row in rows}
    if missing:
        yield Do(tuple(statement for table in sorted(missing) for statement in TABLES[table]))
    rows = yield Ask("SELECT name, value FROM connectors_ledger_facts")
    known = {str(row[0]): str(row[1]) for row in rows}
    for name, value in (("schema", str(SCHEMA_VERSION)), ("id", uuid4().hex)):
        if name not in known:
            yield Do((f"INSERT INTO connectors_ledger_facts (name, value) VALUES ('{name}', '{value}')",))
            known[name] = value
    version = int(known["schema"])
    if version > SCHEMA_VERSION:
        raise LedgerFault(
            f"the ledger's schema is version {version}, this worker knows {SCHEMA_VERSION}; upgrade this worker"
        )
    for each in range(version, SCHEMA_VERSION):
        yield Do(STEPS[each])
    if version < SCHEMA_VERSION:
        yield Do((f"UPDATE connectors_ledger_facts SET value = '{SCHEMA_VERSION}' WHERE name = 'schema'",))
    return known["id"]
