"""A pgbouncer of the tests' own, from Debian's package: a pooler between the worker and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from platformdirs import user_data_path

from worker.dev import debian
from worker.dev.ports import LOOPBACK, free_ports
from worker.dev.postgres import without_root
from worker.dev.process import ChildProcess, base_environment


@asynccontextmanager
async def pgbouncer(
    database: str, directory: Path, mode: Literal["transaction", "session"], *, servers: int = 4
) -> AsyncIterator[str]:
    """Run a pooler before a database; give the URL that leads through it."""
    tree = await debian.unpacked("pgbouncer", follow="^$", cache=user_data_path("connectors-service"))
    parts = urlsplit(database)
    (port,) = free_ports(1)
    directory.mkdir()
    directory.chmod(0o755)
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n"
        f"ledger = host={parts.hostname} port={parts.port} dbname={parts.path[1:]} "
        f"user={parts.username} password={parts.password}\n"
        f"[pgbouncer]\nlisten_addr = {LOOPBACK}\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {servers}\n"
    )
    process = ChildProcess(
        "pgbouncer",
        [*without_root(), tree / "usr/sbin/pgbouncer", configuration],
        env=base_environment([]) | {"LD_LIBRARY_PATH": debian.library_path(tree)},
        cwd=directory,
        log=directory.parent / "pgbouncer.log",
    )
    process.start()
    try:
        await process.wait_until(lambda: _listens(port), timeout_s=10)
        yield f"postgresql://connectors@{LOOPBACK}:{port}/ledger"
    finally:
        await process.stop()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True
