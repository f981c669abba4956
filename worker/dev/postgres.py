"""A PostgreSQL of our own: a child process on a free loopback port, its data in a directory given."""

import os
import pwd
import secrets
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
from platformdirs import user_data_path

from worker.dev import debian
from worker.dev.errors import InfrastructureError, NotInstalled, StartFailed
from worker.dev.ports import LOOPBACK, free_ports
from worker.dev.process import Account, ChildProcess, base_environment, run

#: Seconds until it takes connections, and for making its data directory.
START_TIMEOUT_S = 60.0
_USER = "connectors"
_PACKAGE = "postgresql-15"
_HOW_TO_INSTALL = (
    "PostgreSQL is not installed. On Debian or Ubuntu: apt-get install postgresql; on macOS: brew install "
    "postgresql; or start it elsewhere and set CONNECTORS_DATABASE_URL"
)
#: Durability is not what a private database is for.
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """What a private database is run with."""

    server: Path
    initdb: Path
    env: dict[str, str]


class PrivatePostgres:
    """One server: start, kill, pause, restart, stop. Whoever starts it stops it."""

    def __init__(self, directory: Path, *, cache: Path | None = None) -> None:
        self._directory = directory
        self._cache = cache or user_data_path("connectors-service", appauthor=False)
        self._password = secrets.token_hex(16)
        self._port = 0
        self._process: ChildProcess | None = None
        self._programs: PostgresPrograms | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The URL of the database that is always there."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of a database, password included."""
        return f"postgresql://{_USER}:{self._password}@{LOOPBACK}:{self._port}/{database}"

    async def start(self) -> None:
        """Make the data directory, start the server, and wait until it takes connections.

        Raises:
            NotInstalled: with what to install.
            StartFailed: with the end of its log.
        """
        self._programs = await find_programs(self._cache)
        await self._init(self._programs)
        for attempts_left in (2, 1, 0):
            self._port = free_ports(1)[0]
            try:
                await self._boot()
                return
            except StartFailed:
                await self.stop()
                if attempts_left == 0:
                    raise

    async def restart(self) -> None:
        """Stop it where it runs, and start it on the same port and data."""
        await self.stop()
        await self._boot()

    async def stop(self) -> None:
        """Stop it; stopping twice is fine."""
        if self._process is not None:
            await self._process.stop(grace_s=5.0)
            self._process = None

    async def kill(self) -> None:
        """Kill it with SIGKILL. `restart` brings it back."""
        assert self._process is not None
        await self._process.kill()

    async def create_database(self, name: str) -> str:
        """Make a database, and give its URL."""
        connection = await asyncpg.connect(self.url, timeout=10, ssl=False)
        try:
            await connection.execute(f'create database "{name}"')
        finally:
            await connection.close()
        return self.url_of(name)

    async def _init(self, programs: PostgresPrograms) -> None:
        data = self._directory / "data"
        if data.exists():
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        account = _account()
        password = self._directory / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        if account is not None:
            os.chown(self._directory, account.uid, account.gid)
            os.chown(password, account.uid, account.gid)
            _open_way(self._directory)
        command: list[str | Path] = [
            programs.initdb,
            f"--pgdata={data}",
            f"--username={_USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        prefix: list[str | Path] = []
        if account is not None:
            prefix = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
        await run([*prefix, *command], env=programs.env, cwd=self._directory, timeout_s=START_TIMEOUT_S)

    async def _boot(self) -> None:
        assert self._programs is not None
        data = self._directory / "data"
        options = [f"listen_addresses={LOOPBACK}", f"port={self._port}", "unix_socket_directories=", *_FAST]
        command: list[str | Path] = [self._programs.server, "-D", data]
        command += [f"-c{option}" for option in options]
        self._process = ChildProcess(
            "PostgreSQL",
            command,
            env=self._programs.env,
            cwd=self._directory,
            log=self._directory / "postgres.log",
            account=_account(),
        )
        self._process.start()

        async def answers() -> bool:
            try:
                connection = await asyncpg.connect(self.url, timeout=5, ssl=False)
            except (OSError, asyncpg.PostgresError, TimeoutError):
                return False
            await connection.close()
            return True

        await self._process.wait_until(answers, timeout_s=START_TIMEOUT_S)


async def find_programs(cache: Path) -> PostgresPrograms:
    """Find the programs, or get them from Debian's packages into the cache.

    Raises:
        NotInstalled: with what to install.
    """
    for folder in _places():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return PostgresPrograms(folder / "postgres", folder / "initdb", base_environment([folder]))
    if not debian.is_available():
        raise NotInstalled(_HOW_TO_INSTALL)
    try:
        tree = await debian.unpacked(_PACKAGE, follow="postgresql-", cache=cache)
    except InfrastructureError as error:
        raise NotInstalled(f"{_HOW_TO_INSTALL}. Getting Debian's packages failed: {error}") from error
    folder = tree / "usr/lib/postgresql/15/bin"
    env = base_environment([folder])
    if libraries := debian.library_path(tree):
        env["LD_LIBRARY_PATH"] = libraries
    return PostgresPrograms(folder / "postgres", folder / "initdb", env)


def _places() -> list[Path]:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    brewed = [Path(prefix) / "opt/postgresql/bin" for prefix in ("/opt/homebrew", "/usr/local")]
    on_path = shutil.which("initdb")
    return [*versions, *brewed, *([Path(on_path).resolve().parent] if on_path else [])]


def _account() -> Account | None:
    """Choose whom to run as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def _open_way(directory: Path) -> None:
    """Let another user pass through the directories above, where they are ours alone."""
    for parent in directory.parents:
        mode = parent.stat().st_mode
        if parent.stat().st_uid == os.geteuid() and not mode & stat.S_IXOTH and parent != Path("/"):
            parent.chmod(mode | stat.S_IXOTH)
