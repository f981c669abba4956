"""The tables of the encrypted credentials, and what is asked of them."""

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple

from worker.credentials.script import TableQuery
from worker.credentials.source import CredentialName

#: Versions of a document that are kept.
KEPT_VERSIONS: Final = 10

Rows = Sequence[Sequence[Any]]
Steps = Generator[TableQuery, Rows, Any]

_TABLES: Final = (
    # A master key that ever wrote here, and a sealed word by which a key of its id is recognised.
    "CREATE TABLE IF NOT EXISTS connectors_master_keys"
    " (id VARCHAR(63) PRIMARY KEY, sentinel {blob} NOT NULL)",
    # The key of each tenant, encrypted under a master key.
    "CREATE TABLE IF NOT EXISTS connectors_tenant_keys"
    " (tenant VARCHAR(63) PRIMARY KEY, master_key VARCHAR(63) NOT NULL, wrapped {blob} NOT NULL)",
    "CREATE INDEX IF NOT EXISTS connectors_tenant_keys_by_master"
    " ON connectors_tenant_keys (master_key, tenant)",
    # The newest version of each credential, sealed with whether there is one: a row put back does not open.
    "CREATE TABLE IF NOT EXISTS connectors_credential_heads"
    " (tenant VARCHAR(63) NOT NULL, connector VARCHAR(63) NOT NULL, name VARCHAR(63) NOT NULL,"
    " version BIGINT NOT NULL, is_deleted BOOLEAN NOT NULL, seal {blob} NOT NULL,"
    " PRIMARY KEY (tenant, connector, name))",
    "CREATE TABLE IF NOT EXISTS connectors_credentials"
    " (tenant VARCHAR(63) NOT NULL, connector VARCHAR(63) NOT NULL, name VARCHAR(63) NOT NULL,"
    " version BIGINT NOT NULL, document {blob} NOT NULL,"
    " PRIMARY KEY (tenant, connector, name, version))",
    # Who did what to which credential, and when; no values.
    "CREATE TABLE IF NOT EXISTS connectors_credential_audit"
    " (at VARCHAR(32) NOT NULL, actor VARCHAR(255) NOT NULL, deed VARCHAR(16) NOT NULL,"
    " tenant VARCHAR(63) NOT NULL, connector VARCHAR(63) NOT NULL, name VARCHAR(63) NOT NULL,"
    " version BIGINT)",
)


class TenantKey(NamedTuple):
    """A tenant's key as it is stored."""

    master_key: str
    wrapped: bytes


class StoredRows(NamedTuple):
    """What the tables hold of one credential: nothing of it is believed before it opens."""

    key: TenantKey | None
    #: 0 if there never was one.
    version: int
    is_deleted: bool
    seal: bytes
    document: bytes | None


class New(NamedTuple):
    """The next version of a credential, sealed."""

    #: The tenant's key as it is; a new one where the tenant had none.
    key: TenantKey
    #: None deletes.
    document: bytes | None
    seal: bytes


class Deed(NamedTuple):
    """One row of the audit."""

    at: str
    actor: str
    deed: str
    name: CredentialName
    version: int | None


def create_tables(*, is_sqlite: bool) -> Steps:
    """Create what is not there."""
    if not is_sqlite:  # of workers that start at once, one creates and the rest wait
        yield TableQuery("SELECT pg_advisory_xact_lock(7017013)")
    for table in _TABLES:
        yield TableQuery(table.format(blob="BLOB" if is_sqlite else "BYTEA"))


def find(name: CredentialName) -> Generator[TableQuery, Rows, StoredRows]:
    """Read the newest version of a credential with its tenant's key."""
    # In one statement: what is read in two may be of two times.
    rows = yield TableQuery(
        "SELECT head.version, head.is_deleted, head.seal, newest.document, tenant_key.master_key, tenant_key.wrapped"
        " FROM connectors_credential_heads AS head"
        " LEFT JOIN connectors_tenant_keys AS tenant_key ON tenant_key.tenant = head.tenant"
        " LEFT JOIN connectors_credentials AS newest ON newest.tenant = head.tenant"
        " AND newest.connector = head.connector AND newest.name = head.name AND newest.version = head.version"
        " WHERE head.tenant = $1 AND head.connector = $2 AND head.name = $3",
        tuple(name),
    )
    if not rows:
        return StoredRows((yield from _tenant_key(name.tenant)), 0, True, b"", None)
    version, is_deleted, seal, document, master_key, wrapped = rows[0]
    return StoredRows(
        None if master_key is None else TenantKey(master_key, bytes(wrapped)),
        version,
        bool(is_deleted),
        bytes(seal),
        None if document is None else bytes(document),
    )


def store(name: CredentialName, found: StoredRows, new: New, deed: Deed) -> Generator[TableQuery, Rows, bool]:
    """Write the next version if nobody else did; return whether it was written.

    Args:
        found: what was read before; its version and its tenant's key must still be the same.
    """
    yield TableQuery(
        "INSERT INTO connectors_tenant_keys (tenant, master_key, wrapped) VALUES ($1, $2, $3)"
        " ON CONFLICT (tenant) DO NOTHING",
        (name.tenant, *new.key),
    )
    # The row is locked until the end: a rotation waits, and a key of another's making is noticed.
    if (yield from _locked_key(name.tenant)) != new.key:
        return False
    version, is_deleted = found.version + 1, new.document is None
    if found.version:
        written = yield TableQuery(
            "UPDATE connectors_credential_heads SET version = $4, is_deleted = $5, seal = $6"
            " WHERE tenant = $1 AND connector = $2 AND name = $3 AND version = $7 RETURNING version",
            (*name, version, is_deleted, new.seal, found.version),
        )
    else:
        written = yield TableQuery(
            "INSERT INTO connectors_credential_heads (tenant, connector, name, version, is_deleted, seal)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, connector, name) DO NOTHING RETURNING version",
            (*name, version, is_deleted, new.seal),
        )
    if not written:
        return False
    oldest = version if is_deleted else version - KEPT_VERSIONS
    yield TableQuery(
        "DELETE FROM connectors_credentials"
        " WHERE tenant = $1 AND connector = $2 AND name = $3 AND version <= $4",
        (*name, oldest),
    )
    if new.document is not None:
        yield TableQuery(
            "INSERT INTO connectors_credentials (tenant, connector, name, version, document)"
            " VALUES ($1, $2, $3, $4, $5)",
            (*name, version, new.document),
        )
    yield from audit(deed._replace(version=version))
    return True


def audit(deed: Deed) -> Steps:
    """Write down a deed."""
    yield TableQuery(
        "INSERT INTO connectors_credential_audit (at, actor, deed, tenant, connector, name, version)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        (deed.at, deed.actor, deed.deed, *deed.name, deed.version),
    )


def list_names() -> Generator[TableQuery, Rows, list[CredentialName]]:
    """List every credential that is there."""
    rows = yield TableQuery(
        "SELECT tenant, connector, name FROM connectors_credential_heads WHERE NOT is_deleted"
        " ORDER BY tenant, connector, name"
    )
    return [CredentialName(*row) for row in rows]


def shred(tenant: str, deed: Deed) -> Generator[TableQuery, Rows, bool]:
    """Delete a tenant's key, and with it all that it opens; return whether there was one."""
    gone = yield TableQuery(
        "DELETE FROM connectors_tenant_keys WHERE tenant = $1 RETURNING tenant", (tenant,)
    )
    yield TableQuery("DELETE FROM connectors_credentials WHERE tenant = $1", (tenant,))
    yield TableQuery("DELETE FROM connectors_credential_heads WHERE tenant = $1", (tenant,))
    yield from audit(deed)
    return bool(gone)


# Master keys.


def sentinels() -> Generator[TableQuery, Rows, dict[str, bytes]]:
    """Read the sealed word of each master key."""
    rows = yield TableQuery("SELECT id, sentinel FROM connectors_master_keys ORDER BY id")
    return {master_key: bytes(sentinel) for master_key, sentinel in rows}


def add_sentinel(master_key: str, sentinel: bytes) -> Steps:
    """Store the sealed word of a master key, unless there is one."""
    yield TableQuery(
        "INSERT INTO connectors_master_keys (id, sentinel) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
        (master_key, sentinel),
    )


def forget_sentinel(master_key: str) -> Steps:
    """Remove the sealed word of a master key that no tenant's key is wrapped under."""
    yield TableQuery(
        "DELETE FROM connectors_master_keys WHERE id = $1"
        " AND NOT EXISTS (SELECT 1 FROM connectors_tenant_keys WHERE master_key = $1)",
        (master_key,),
    )


def count_by_master_key() -> Generator[TableQuery, Rows, dict[str, int]]:
    """Count the tenants' keys under each master key."""
    rows = yield TableQuery("SELECT master_key, count(*) FROM connectors_tenant_keys GROUP BY master_key")
    return {str(row[0]): int(row[1]) for row in rows}


def tenant_keys_after(tenant: str, limit: int) -> Generator[TableQuery, Rows, list[tuple[str, TenantKey]]]:
    """Read tenants' keys in order, from behind a tenant."""
    rows = yield TableQuery(
        "SELECT tenant, master_key, wrapped FROM connectors_tenant_keys WHERE tenant > $1"
        " ORDER BY tenant LIMIT $2",
        (tenant, limit),
    )
    return [(row[0], TenantKey(row[1], bytes(row[2]))) for row in rows]


def rewrap(changes: Sequence[tuple[str, TenantKey, TenantKey]]) -> Generator[TableQuery, Rows, int]:
    """Put newly wrapped keys in the place of those that were read; return how many were still the same."""
    done = 0
    for tenant, old, new in changes:
        written = yield TableQuery(
            "UPDATE connectors_tenant_keys SET master_key = $2, wrapped = $3"
            " WHERE tenant = $1 AND wrapped = $4 RETURNING tenant",
            (tenant, *new, old.wrapped),
        )
        done += len(written)
    return done


def _tenant_key(tenant: str) -> Generator[TableQuery, Rows, TenantKey | None]:
    rows = yield TableQuery(
        "SELECT master_key, wrapped FROM connectors_tenant_keys WHERE tenant = $1", (tenant,)
    )
    return TenantKey(rows[0][0], bytes(rows[0][1])) if rows else None


def _locked_key(tenant: str) -> Generator[TableQuery, Rows, TenantKey | None]:
    rows = yield TableQuery(
        "UPDATE connectors_tenant_keys SET tenant = tenant WHERE tenant = $1 RETURNING master_key, wrapped",
        (tenant,),
    )
    return TenantKey(rows[0][0], bytes(rows[0][1])) if rows else None
