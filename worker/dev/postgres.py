"""A private PostgreSQL: a child process on a free loopback port, its data in a given directory."""

import os
import pwd
import secrets
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from worker.dev import debian
from worker.dev.errors import InfrastructureError, NotInstalled, StartFailed
from worker.dev.ports import LOOPBACK, free_ports, is_free
from worker.dev.process import ChildProcess, base_environment, run
from worker.settings import data_directory

#: Seconds until it takes connections, and for making its data directory.
START_TIMEOUT_S = 60.0
#: Starts tried, each on another port: between finding one and listening on it another may take it.
START_ATTEMPTS = 3
_USER = "connectors"
_PACKAGE = "postgresql"
_HOW_TO_INSTALL = (
    "PostgreSQL is not installed. On Debian or Ubuntu: apt-get install postgresql; on macOS: brew install "
    "postgresql; or start it elsewhere and set CONNECTORS_DATABASE_URL"
)
#: A private database need not survive a power cut. Its process is killed, though, and committed data has to
#: survive that: no synchronous_commit=off, which loses the last commits then (seen).
_FAST = ("fsync=off", "full_page_writes=off")


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """The programs of a private database."""

    server: Path
    initdb: Path
    env: dict[str, str]


class PrivatePostgres:
    """One server: start, kill, pause, restart, stop.

    It listens on 127.0.0.1 alone, without unix sockets. Its user calls `stop` after `start`, or uses
    `async with`; a launcher that dies leaves nothing behind. What is in the directory stays and is found
    again by the next server on it. Nothing is bound to an event loop.
    """

    def __init__(
        self, directory: Path, *, cache: Path | None = None, programs: PostgresPrograms | None = None
    ) -> None:
        """Create a server; nothing is started yet.

        Args:    directory: its data, password and log; made where it is not there.
                 cache: where downloaded packages are kept; default the user's data directory.
                 programs: those to run instead of the ones found on the machine.
        """
        self._directory = directory.absolute()
        self._cache = cache if cache is not None else data_directory()
        self._programs = programs
        self._password = ""
        self._port = 0
        self._process: ChildProcess | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The URL of the default database, password included."""
        return self.url_of("postgres")

    @property
    def port(self) -> int:
        """The port it listens on, on 127.0.0.1."""
        return self._port

    def url_of(self, database: str) -> str:
        """Return the URL of a database, password included."""
        return f"postgresql://{_USER}:{self._password}@{LOOPBACK}:{self._port}/{database}"

    async def start(self) -> None:
        """Create the data directory if there is none, start the server, and wait until it takes connections.

        Raises:
            NotInstalled: with what to install.
            StartFailed: with the end of its log.
        """
        if self._programs is None:
            self._programs = await find_programs(self._cache)
        await self._init(self._programs)
        for attempt in range(1, START_ATTEMPTS + 1):
            self._port = free_ports(1)[0]
            self._process = self._prepare(self._programs)
            try:
                await self._boot(self._process)
                return
            except StartFailed:
                await self.stop()
                if attempt == START_ATTEMPTS or is_free(self._port):
                    raise
            except BaseException:
                await self.stop()
                raise

    async def restart(self) -> None:
        """Stop it if it runs, and start it on the same port and data."""
        process = self._running()
        await _stop(process)
        await self._boot(process)

    async def stop(self) -> None:
        """Stop it. The data stays; stopping twice is fine."""
        if self._process is not None:
            await _stop(self._process)
            self._process = None

    async def kill(self) -> None:
        """Kill it, its backends too, with SIGKILL. `restart` brings it back."""
        await self._running().kill()

    def pause(self) -> None:
        """Pause it (SIGSTOP), its backends too: connections stay open and nothing responds."""
        self._running().pause()

    def resume(self) -> None:
        """Resume a paused server."""
        self._running().resume()

    async def create_database(self, name: str) -> str:
        """Create a database, and return its URL."""
        connection = await asyncpg.connect(self.url, timeout=10, ssl=False)
        try:
            await connection.execute(f'create database "{name}"', timeout=30)
        finally:
            await connection.close(timeout=10)
        return self.url_of(name)

    def _running(self) -> ChildProcess:
        if self._process is None:
            raise RuntimeError("the private PostgreSQL is not running")
        return self._process

    async def _init(self, programs: PostgresPrograms) -> None:
        """Create the data directory; on a later start read the password that it was created with."""
        self._directory.mkdir(parents=True, exist_ok=True)
        data, staging, password = (self._directory / name for name in ("data", "data.new", "password"))
        if data.exists():
            self._password = password.read_text()
            return
        shutil.rmtree(staging, ignore_errors=True)  # of an attempt that was killed
        self._password = secrets.token_hex(16)
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        password.write_text(self._password)
        if (account := _account()) is not None:
            for path in (self._directory, password):
                os.chown(path, account.pw_uid, account.pw_gid)
        command = [
            *without_root(),
            programs.initdb,
            f"--pgdata={staging}",
            f"--username={_USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        await run(command, env=programs.env, cwd=self._directory, timeout_s=START_TIMEOUT_S)
        staging.rename(data)

    def _prepare(self, programs: PostgresPrograms) -> ChildProcess:
        options = [f"listen_addresses={LOOPBACK}", f"port={self._port}", "unix_socket_directories=", *_FAST]
        return ChildProcess(
            "PostgreSQL",
            [
                *without_root(),
                programs.server,
                "-D",
                self._directory / "data",
                *(f"-c{option}" for option in options),
            ],
            env=programs.env,
            cwd=self._directory,
            log=self._directory / "postgres.log",
        )

    async def _boot(self, process: ChildProcess) -> None:
        async def answers() -> bool:
            try:
                connection = await asyncpg.connect(self.url, timeout=5, ssl=False)
            except (OSError, asyncpg.PostgresError, TimeoutError):
                return False
            await connection.close(timeout=5)
            return True

        process.start()
        await process.wait_until(answers, timeout_s=START_TIMEOUT_S)


async def _stop(process: ChildProcess) -> None:
    # SIGINT ends the connections; SIGTERM would wait for the clients to.
    await process.stop(grace_s=10.0, with_signal=signal.SIGINT)


async def find_programs(cache: Path) -> PostgresPrograms:
    """Return the programs, downloaded from Debian's packages into the cache if need be.

    Raises:
        NotInstalled: with what to install.
    """
    for folder in _places():
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return PostgresPrograms(folder / "postgres", folder / "initdb", base_environment([folder]))
    if not debian.is_available():
        raise NotInstalled(_HOW_TO_INSTALL)
    return await downloaded_programs(cache)


async def downloaded_programs(cache: Path) -> PostgresPrograms:
    """Return the programs from Debian's packages, unpacked in the cache.

    Raises:
        NotInstalled: with what to install.
    """
    try:
        tree = await debian.unpacked(_PACKAGE, follow="postgresql-", cache=cache)
    except InfrastructureError as error:
        raise NotInstalled(f"{_HOW_TO_INSTALL}. Getting Debian's packages failed: {error}") from error
    # Package `postgresql` stands for the release's own version, postgresql-15 and the like.
    folders = sorted((tree / "usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not folders:
        raise NotInstalled(
            f"the unpacked PostgreSQL in {tree} is not whole: remove that directory and start again"
        )
    env = base_environment([folders[0]])
    if libraries := debian.library_path(tree):
        env["LD_LIBRARY_PATH"] = libraries
    return PostgresPrograms(folders[0] / "postgres", folders[0] / "initdb", env)


def _places() -> list[Path]:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    brewed = [Path(prefix) / "opt/postgresql/bin" for prefix in ("/opt/homebrew", "/usr/local")]
    on_path = shutil.which("initdb")
    return [*versions, *brewed, *([Path(on_path).resolve().parent] if on_path else [])]


def _account() -> pwd.struct_passwd | None:
    """Return the user to run as: PostgreSQL refuses root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def without_root() -> list[str | Path]:
    """Return the start of a command line that runs the rest as that user, if it is not our own.

    Root's own directories are closed to that user, and the data or the programs may lie below them: the
    one capability lets it pass, so that no one's permissions have to be changed.
    """
    account = _account()
    if account is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise NotInstalled(
            "PostgreSQL does not run as root and setpriv (util-linux) is not here: use another user"
        )
    ids = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    pass_through = [
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--securebits=+no_setuid_fixup",  # else access(2), which initdb asks, does not count it
    ]
    return [setpriv, *ids, *pass_through, "--"]
