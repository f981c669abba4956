"""The encrypted table: what opens, what never does, and two writers at once."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from connectors.sdk.errors import CredentialInvalid, CredentialNotFound
from worker.credentials.key_rotation import KeyRotation, RotationState
from worker.credentials.keyring import Keyring
from worker.credentials.script import TableQuery
from worker.credentials.sealing import new_key
from worker.credentials.source import CredentialName, SecretUnavailable
from worker.credentials.table import MAX_DOCUMENT_BYTES, CredentialTable
from worker.credentials.table_database import table_database
from worker.credentials.table_schema import KEPT_VERSIONS, Rows
from worker.dev.postgres import PrivatePostgres
from worker.settings import SettingError

CANARY = "canary-7d1f"
TABLES = (
    "connectors_master_keys",
    "connectors_tenant_keys",
    "connectors_credential_heads",
    "connectors_credentials",
    "connectors_credential_audit",
)
ACME = CredentialName("acme", "http", "default")
OTHER = CredentialName("other", "http", "default")
DOCUMENT: dict[str, JsonValue] = {
    "base_url": "https://a.example",
    "token": CANARY,
    "nested": {"ş": [1, None, True]},
}


class Bench:
    """A table in a database, and the keyring beside it."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.keyring = folder / "keyring"
        self.write_keys("k1")
        self.database = table_database(url or f"sqlite:///{folder / 'table.db'}", lambda: None)

    async def rows(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """TableQuery the database, as someone does who can write it and has no key."""

        def script() -> Generator[TableQuery, Rows, list[tuple[Any, ...]]]:
            found = yield TableQuery(text, values)
            return [tuple(row) for row in found]

        return await self.database.transact(script)

    async def put_back(self, table: str, row: tuple[Any, ...]) -> None:
        """Insert a row that was there before."""
        await self.rows(
            f"insert into {table} values ({','.join(f'${n}' for n in range(1, len(row) + 1))})", *row
        )

    def write_keys(self, *ids: str) -> None:
        """Put new keys before those that are there."""
        before = self.keyring.read_text() if self.keyring.exists() else ""
        new = "".join(f"{each} {base64.b64encode(new_key()).decode()}\n" for each in ids)
        self.keyring.write_text(new + before)
        self.keyring.chmod(0o600)

    async def table(self) -> CredentialTable:
        """Open the table as a process does that starts now."""
        table = CredentialTable(self.database, Keyring(self.keyring), actor="tests")
        await table.start()
        return table

    async def rotate(self) -> RotationState:
        """Wrap every key under the first of the keyring."""
        await self.table()
        return await KeyRotation(self.database, Keyring(self.keyring)).run(lambda _: None)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/table.db"
    postgres: PrivatePostgres = request.getfixturevalue("postgres")
    return asyncio.run(postgres.create_database(f"test_{uuid4().hex}"))


@pytest.fixture
async def bench(url: str, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, url)
    yield bench
    await bench.database.close()


async def test_a_document_is_read_by_another_process(bench: Bench) -> None:
    assert 1 == await (await bench.table()).put(ACME, DOCUMENT)

    version, fields = await (await bench.table()).read(ACME)

    assert (1, DOCUMENT) == (version, dict(fields))


async def test_nothing_in_the_dump_tells_a_value(bench: Bench) -> None:
    table = await bench.table()
    await table.put(ACME, DOCUMENT)
    await table.put(ACME, DOCUMENT)

    dump = str([await bench.rows(f"select * from {each}") for each in TABLES]).lower()

    keys = [line.split()[1] for line in bench.keyring.read_text().splitlines()]
    wanted = [CANARY, *keys, *(base64.b64decode(key).hex() for key in keys)]
    assert [] == [each for each in wanted if each.lower() in dump or each.encode().hex() in dump]


async def test_what_is_not_there_or_was_deleted_is_not_found(bench: Bench) -> None:
    table = await bench.table()
    with pytest.raises(CredentialNotFound):
        await table.read(ACME)
    await table.put(ACME, DOCUMENT)
    await table.delete(ACME)

    for again in (table.read(ACME), table.delete(ACME)):
        with pytest.raises(CredentialNotFound):
            await again
    assert [] == await table.names()
    assert 3 == await table.put(ACME, DOCUMENT)


async def test_the_last_ten_versions_are_kept(bench: Bench) -> None:
    table = await bench.table()
    for _ in range(KEPT_VERSIONS + 3):
        await table.put(ACME, DOCUMENT)

    kept = await bench.rows("select version from connectors_credentials order by version")

    assert [(number,) for number in range(4, KEPT_VERSIONS + 4)] == kept


async def test_a_version_is_written_only_after_the_one_that_was_read(bench: Bench) -> None:
    table, beside = await bench.table(), await bench.table()
    await table.put(ACME, DOCUMENT)
    await beside.put(ACME, {"token": "newer"})

    assert None is await table.put(ACME, DOCUMENT, only_after=1)
    assert 3 == await table.put(ACME, DOCUMENT, only_after=2)


async def test_of_many_writers_each_writes_one_version(bench: Bench) -> None:
    tables = [await bench.table() for _ in range(8)]

    numbers = await asyncio.gather(*(table.put(ACME, DOCUMENT) for table in tables))

    assert list(range(1, 9)) == sorted(number or 0 for number in numbers)


async def test_a_document_that_is_too_large_is_refused(bench: Bench) -> None:
    with pytest.raises(CredentialInvalid, match="larger"):
        await (await bench.table()).put(ACME, {"token": "x" * MAX_DOCUMENT_BYTES})


# What somebody does who can write the database, and has no key.

TAMPERINGS = {
    "a document of another tenant": (
        "update connectors_credentials set document ="
        " (select document from connectors_credentials where tenant = 'other' and version = 2)"
        " where tenant = 'acme' and version = 2"
    ),
    "a tenant's key of another tenant": (
        "update connectors_tenant_keys set wrapped ="
        " (select wrapped from connectors_tenant_keys where tenant = 'other') where tenant = 'acme'"
    ),
    "an older document in the newest row": (
        "update connectors_credentials set document ="
        " (select document from connectors_credentials where tenant = 'acme' and version = 1)"
        " where tenant = 'acme' and version = 2"
    ),
    "the head set back to an older version": (
        "update connectors_credential_heads set version = 1 where tenant = 'acme'"
    ),
    "the newest row removed": "delete from connectors_credentials where tenant = 'acme' and version = 2",
    "a tenant's key removed": "delete from connectors_tenant_keys where tenant = 'acme'",
    "a deletion without the key": (
        "update connectors_credential_heads set is_deleted = true where tenant = 'acme'"
    ),
    "another master key's name": "update connectors_tenant_keys set master_key = 'k2' where tenant = 'acme'",
}


@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS.keys())
async def test_a_row_that_was_tampered_with_does_not_open(bench: Bench, tampering: str) -> None:
    bench.write_keys("k2")
    bench.keyring.write_text("".join(reversed(bench.keyring.read_text().splitlines(keepends=True))))
    table = await bench.table()
    for name in (ACME, OTHER):
        for _ in range(2):
            await table.put(name, DOCUMENT)
    await bench.rows(tampering)

    for reader in (table, await bench.table()):
        with pytest.raises(CredentialInvalid, match="does not open"):
            await reader.read(ACME)
    assert DOCUMENT == dict((await table.read(OTHER)).fields)


async def test_a_whole_older_state_is_refused_by_who_saw_a_newer_one(bench: Bench) -> None:
    table = await bench.table()
    await table.put(ACME, DOCUMENT)
    tables = ("connectors_credential_heads", "connectors_credentials")
    before = {each: await bench.rows(f"select * from {each}") for each in tables}
    await table.put(ACME, {"token": "newer"})
    for each, rows in before.items():
        await bench.rows(f"delete from {each}")
        for row in rows:
            await bench.put_back(each, row)

    with pytest.raises(CredentialInvalid, match="put back"):
        await table.read(ACME)


@settings(max_examples=60, deadline=None)
@given(
    where=st.sampled_from(["document", "seal", "wrapped"]), position=st.floats(0, 1), bit=st.integers(0, 7)
)
async def test_every_flipped_bit_is_refused(
    tmp_path_factory: pytest.TempPathFactory, where: str, position: float, bit: int
) -> None:
    bench = Bench(tmp_path_factory.mktemp("table"))
    table = await bench.table()
    await table.put(ACME, DOCUMENT)
    of = {
        "document": "connectors_credentials",
        "seal": "connectors_credential_heads",
        "wrapped": "connectors_tenant_keys",
    }[where]
    data = bytearray((await bench.rows(f"select {where} from {of}"))[0][0])
    data[round(position * (len(data) - 1))] ^= 1 << bit
    await bench.rows(f"update {of} set {where} = $1", bytes(data))

    with pytest.raises(CredentialInvalid, match="does not open"):
        await (await bench.table()).read(ACME)


async def test_a_tenant_that_was_shredded_opens_no_more(bench: Bench) -> None:
    table = await bench.table()
    await table.put(ACME, DOCUMENT)
    backup = await bench.rows("select * from connectors_credentials")
    heads = await bench.rows("select * from connectors_credential_heads")

    assert await table.shred("acme")
    assert not await table.shred("acme")

    with pytest.raises(CredentialNotFound):
        await table.read(ACME)
    for name, rows in (("connectors_credentials", backup), ("connectors_credential_heads", heads)):
        await bench.put_back(name, rows[0])
    with pytest.raises(CredentialInvalid):
        await table.read(ACME)


async def test_each_deed_is_a_row_of_the_audit_without_values(bench: Bench) -> None:
    table = await bench.table()
    await table.put(ACME, DOCUMENT)
    await table.note("check", ACME, 1)
    await table.delete(ACME)

    rows = await bench.rows("select actor, deed, tenant, connector, name, version from"
                              " connectors_credential_audit")  # fmt: skip

    assert [
        ("tests", "put", *ACME, 1),
        ("tests", "check", *ACME, 1),
        ("tests", "delete", *ACME, 2),
    ] == rows
    assert CANARY not in json.dumps(rows)


# Master keys.


async def test_a_keyring_that_lacks_a_key_ends_the_start_with_its_id(bench: Bench) -> None:
    await (await bench.table()).put(ACME, DOCUMENT)
    bench.keyring.unlink()
    bench.write_keys("k9")

    with pytest.raises(SettingError, match="lacks the master key 'k1'"):
        await bench.table()


async def test_another_key_of_the_same_id_ends_the_start(bench: Bench) -> None:
    await (await bench.table()).put(ACME, DOCUMENT)
    bench.keyring.unlink()
    bench.write_keys("k1")

    with pytest.raises(SettingError, match="'k1' is another key"):
        await bench.table()


async def test_a_rotation_wraps_every_tenant_and_names_the_key_that_may_go(bench: Bench) -> None:
    table = await bench.table()
    names = [CredentialName(f"t{number}", "http", "default") for number in range(230)]
    for name in names:
        await table.put(name, DOCUMENT)
    bench.write_keys("k2")

    rotation = await bench.rotate()
    again = await bench.rotate()

    assert (230, 0, 0, {}, ["k1"]) == (
        rotation.done, rotation.already, rotation.left, rotation.failed, rotation.free,
    )  # fmt: skip
    assert (0, 230) == (again.done, again.already)
    assert [("k2", 230)] == await bench.rows(
        "select master_key, count(*) from connectors_tenant_keys group by master_key"
    )
    bench.keyring.write_text(bench.keyring.read_text().splitlines()[0] + "\n")
    fresh = await bench.table()
    assert DOCUMENT == dict((await fresh.read(names[229])).fields)


async def test_a_rotation_that_was_broken_off_goes_on(bench: Bench) -> None:
    table = await bench.table()
    for number in range(250):
        await table.put(CredentialName(f"t{number}", "http", "default"), DOCUMENT)
    bench.write_keys("k2")
    await bench.table()

    class BrokenOff(Exception):
        pass

    def break_off(rotation: RotationState) -> None:
        if rotation.done >= 200:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        await KeyRotation(bench.database, Keyring(bench.keyring)).run(break_off)
    rotation = await bench.rotate()

    assert (50, 200, 0) == (rotation.done, rotation.already, rotation.left)


async def test_workers_of_both_keyrings_read_and_write_while_keys_are_rotated(bench: Bench) -> None:
    old = await bench.table()
    await old.put(ACME, DOCUMENT)
    bench.write_keys("k2")
    new = await bench.table()

    await bench.rotate()

    assert 2 == await old.put(ACME, {"token": "by the old one"})
    assert 3 == await new.put(ACME, {"token": "by the new one"})
    assert {"token": "by the new one"} == dict((await old.read(ACME)).fields)


async def test_a_worker_whose_keyring_lacks_the_new_key_says_which(bench: Bench) -> None:
    old = await bench.table()
    await old.put(ACME, DOCUMENT)
    keyring = bench.keyring.read_text()
    bench.write_keys("k2")
    await bench.rotate()
    bench.keyring.write_text(keyring)

    with pytest.raises(SecretUnavailable, match="'k2' is not in this worker's keyring"):
        await old.read(ACME)


async def test_a_key_that_does_not_open_is_counted_and_no_old_key_may_go(bench: Bench) -> None:
    table = await bench.table()
    await table.put(ACME, DOCUMENT)
    await table.put(OTHER, DOCUMENT)
    bench.write_keys("k2")
    await bench.rows("update connectors_tenant_keys set wrapped = $1 where tenant = 'acme'", b"1")

    rotation = await bench.rotate()

    found: tuple[Any, ...] = (rotation.done, rotation.left, list(rotation.failed), rotation.free)
    assert (1, 1, ["acme"], []) == found
