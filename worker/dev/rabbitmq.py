"""A private RabbitMQ: a child process on free loopback ports, its data in a given directory."""

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.dev.errors import CommandFailed, StartFailed
from worker.dev.ports import LOOPBACK, free_ports, is_free
from worker.dev.process import ChildProcess, run
from worker.dev.rabbitmq_programs import RabbitMQPrograms, find_programs
from worker.settings import data_directory

#: Seconds for a node to boot; about 5 on an idle machine, several times that on a busy one.
BOOT_TIMEOUT_S = 90.0
#: Seconds for one rabbitmqctl: it starts an Erlang of its own, 1.5 s on an idle machine.
CTL_TIMEOUT_S = 60.0
#: Starts tried, each on other ports: between finding a port and listening on it another may take it.
START_ATTEMPTS = 3

_USER = "connectors"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What must stay the same as long as the data does. The nodes of a cluster differ in their names alone."""

    node: str
    cookie: str = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Create a random one."""
        # A host name may not resolve in a container; localhost does.
        name = f"connectors-{secrets.token_hex(4)}@localhost"
        return cls(node=name, cookie=secrets.token_hex(16), password=secrets.token_hex(16))


class Epmd:
    """Erlang's port mapper: tells nodes (and rabbitmqctl) the distribution port of each other by name."""

    def __init__(self, programs: RabbitMQPrograms, directory: Path) -> None:
        self.port = free_ports(1)[0]
        # In the foreground: otherwise a node starts one that outlives all of them.
        self._process = ChildProcess(
            "epmd",
            [programs.epmd, "-port", str(self.port), "-address", LOOPBACK],
            env=programs.env,
            cwd=directory,
            log=directory / "epmd.log",
        )

    async def start(self) -> None:
        """Start it and wait until it listens."""

        async def listens() -> bool:
            return await _listens(self.port)

        self._process.start()
        await self._process.wait_until(listens, timeout_s=10.0)

    async def stop(self) -> None:
        """Stop it."""
        await self._process.stop()


class PrivateRabbitMQ:
    """One broker node: start, kill, pause, restart, stop.

    Two brokers of one machine see nothing of each other: ports, node names' mapper (epmd), cookie, data and
    configuration are each node's own. Its user calls `stop` after `start`, or uses `async with`; a launcher
    that dies leaves nothing behind. What is in the directory stays and is found again by the next broker on
    it. Nothing is bound to an event loop.
    """

    def __init__(
        self,
        directory: Path,
        *,
        cache: Path | None = None,
        config: Sequence[str] = (),
        plugins: Sequence[str] = (),
        programs: RabbitMQPrograms | None = None,
        identity: NodeIdentity | None = None,
        epmd: Epmd | None = None,
    ) -> None:
        """Create a broker; nothing is started yet.

        Args:    directory: its data, configuration and log; made where it is not there.
                 cache: where downloaded packages are kept; default the user's data directory.
                 config: further lines of rabbitmq.conf, as `consumer_timeout = 5000`.
                 plugins: enabled from the start, by name.
                 programs: those to run instead of the ones found on the machine.
                 identity: the node's, where there is no data yet; default one of its own.
                 epmd: a running one to share with other nodes; default one of its own.
        """
        self.directory = directory.absolute()
        self._cache = cache if cache is not None else data_directory()
        self._config = tuple(config)
        self._plugins = tuple(plugins)
        self._programs = programs
        self._identity: NodeIdentity | None = None
        self._first_identity = identity
        self._node_process: ChildProcess | None = None
        self._own_epmd: Epmd | None = None
        self._shared_epmd = epmd
        self._amqp_port = 0
        self._epmd_port = 0
        self._distribution_port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The AMQP URL of the default virtual host, password included."""
        return self.url_of("/")

    @property
    def amqp_port(self) -> int:
        """The port that clients connect to, on 127.0.0.1."""
        return self._amqp_port

    @property
    def node(self) -> str:
        """The node's name, as `rabbitmqctl -n` takes it."""
        return self._known().node

    @property
    def pid(self) -> int:
        """The process id of the broker's virtual machine."""
        return self._process().pid

    @property
    def is_running(self) -> bool:
        """Whether the broker's virtual machine lives. A paused one does."""
        return self._node_process is not None and self._node_process.is_running

    @property
    def log(self) -> Path:
        """The broker's log file."""
        return self.directory / "broker.log"

    def url_of(self, vhost: str) -> str:
        """Return the AMQP URL of a virtual host, password included."""
        path = "" if vhost == "/" else vhost
        return f"amqp://{_USER}:{self._known().password}@{LOOPBACK}:{self._amqp_port}/{path}"

    async def start(self) -> None:
        """Start the broker and wait until it takes connections.

        Raises:  NotInstalled: no RabbitMQ here, and none to be had.
                 StartFailed: it did not come up; with the tail of its log.
        """
        programs = await self._found_programs()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._identity = self._load_identity()
        for attempt in range(1, START_ATTEMPTS + 1):
            ports = self._amqp_port, self._distribution_port = _two(free_ports(2))
            try:
                epmd = self._shared_epmd or await self._start_epmd(programs)
                self._node_process = self._prepare(programs, epmd)
                await self._boot(self._node_process)
                return
            except StartFailed:
                taken = any(not is_free(port) for port in ports)
                await self.stop()
                if attempt == START_ATTEMPTS or not (taken or self._says_address_in_use()):
                    raise
            except BaseException:
                await self.stop()
                raise

    async def restart(self) -> None:
        """Stop the broker if it runs or is paused, and start it on the same ports and data."""
        process = self._process()
        await process.stop(grace_s=30.0)
        await self._boot(process)

    async def kill(self) -> None:
        """Kill the broker's virtual machine with SIGKILL. `restart` brings it back.

        What was confirmed is there again, but for a quorum queue declared in the last half second: which
        ones there are is on disk only by then, and a younger one neither answers nor can be used (3.10).
        """
        await self._process().kill()

    def pause(self) -> None:
        """Pause the broker (SIGSTOP): its connections stay open and nothing responds."""
        self._process().pause()

    def resume(self) -> None:
        """Resume a paused broker."""
        self._process().resume()

    async def stop(self) -> None:
        """Stop the broker and its epmd. The data stays; stopping twice is fine."""
        if self._node_process is not None:
            await self._node_process.stop(grace_s=30.0)
            self._node_process = None
        if self._own_epmd is not None:
            await self._own_epmd.stop()
            self._own_epmd = None

    async def ctl(self, *args: str, timeout_s: float = CTL_TIMEOUT_S) -> str:
        """Run `rabbitmqctl` on this node and return what it prints. Takes 0.6 to 1.5 s; `eval` milliseconds.

        Raises:  CommandFailed: with what it said.
        """
        programs = await self._found_programs()
        command: list[str | Path] = [programs.ctl, "--node", self.node, "--quiet", *args]
        return await run(command, env=self._environment(programs), cwd=self.directory, timeout_s=timeout_s)

    async def eval(self, expression: str, *, timeout_s: float = CTL_TIMEOUT_S) -> str:
        """Evaluate Erlang in the node and return the value as Erlang writes it. A few milliseconds.

        For short answers, atoms and numbers best: long ones are cut, and binaries printed as bytes.

        Raises:  CommandFailed: the node is not there, or the expression failed.
        """
        programs = await self._found_programs()
        if programs.erl_call is None:
            return (await self.ctl("eval", f"{expression}.", timeout_s=timeout_s)).strip()
        # The cookie comes from the file in HOME: as an argument, everyone on the machine could read it.
        command: list[str | Path] = [
            programs.erl_call,
            "-sname",
            self.node,
            "-timeout",
            str(max(1, round(timeout_s))),
            "-e",
        ]
        env = self._environment(programs)
        said = await run(command, env=env, stdin=f"{expression}.\n", timeout_s=timeout_s)
        answer = re.fullmatch(r"\{ok, (.*)\}", said.strip(), re.DOTALL)
        if answer is None:
            raise CommandFailed(f"{self.node} refused {expression}: {said.strip()}")
        return answer[1]

    async def add_vhost(self, name: str) -> str:
        """Create a virtual host that the broker's user may use; return its URL. About 20 ms."""
        vhost, user = _binary(name), _binary(_USER)
        every = _binary(".*")
        await self._eval_ok(f"rabbit_vhost:add({vhost}, {user})")
        await self._eval_ok(
            f"rabbit_auth_backend_internal:set_permissions({user}, {vhost}, {every}, {every}, {every}, {user})"
        )
        return self.url_of(name)

    async def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with its contents; its connections are closed."""
        await self._eval_ok(f"rabbit_vhost:delete({_binary(name)}, {_binary(_USER)})")

    async def _eval_ok(self, expression: str) -> None:
        for tries_left in (2, 1, 0):
            try:
                answer = await self.eval(expression)
            except CommandFailed as failed:
                # A node that is very busy turns its own tools away; nothing was evaluated.
                if not tries_left or "failed to connect to node" not in str(failed):
                    raise
                await asyncio.sleep(0.2)
                continue
            if answer == "ok":
                return
            raise CommandFailed(f"{self.node} answered {answer} to {expression}")

    async def _boot(self, process: ChildProcess) -> None:
        async def ready() -> bool:
            # The port first: a check costs nothing, and it opens shortly before the node reports that it runs.
            if not await _listens(self._amqp_port):
                return False
            try:
                return await self.eval("rabbit:is_running()", timeout_s=10.0) == "true"
            except CommandFailed:
                return False

        process.start()
        await process.wait_until(ready, timeout_s=BOOT_TIMEOUT_S)

    async def _start_epmd(self, programs: RabbitMQPrograms) -> Epmd:
        self._own_epmd = Epmd(programs, self.directory)
        await self._own_epmd.start()
        return self._own_epmd

    def _prepare(self, programs: RabbitMQPrograms, epmd: Epmd) -> ChildProcess:
        """Write the node's files; return its process, not yet started."""
        cookie = self.directory / ".erlang.cookie"
        _write_secret(cookie, self._known().cookie)
        _write_secret(self.directory / "rabbitmq.conf", self._configuration())
        (self.directory / "enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        (self.directory / "rabbitmq-env.conf").write_text("")
        self._epmd_port = epmd.port
        return ChildProcess(
            f"RabbitMQ {self._known().node}",
            [programs.server],
            env=self._environment(programs),
            cwd=self.directory,
            log=self.log,
        )

    def _configuration(self) -> str:
        identity = self._known()
        return "\n".join(
            [
                f"listeners.tcp.1 = {LOOPBACK}:{self._amqp_port}",
                f"default_user = {_USER}",
                f"default_pass = {identity.password}",
                "log.file = false",
                "log.console = true",
                "log.console.level = info",
                # A laptop with a full disk is no reason to block every publisher.
                "disk_free_limit.absolute = 50MB",
                *self._config,
                "",
            ]
        )

    def _environment(self, programs: RabbitMQPrograms) -> dict[str, str]:
        here = self.directory
        return programs.env | {
            "HOME": str(here),  # of the cookie
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_NODENAME": self._known().node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(here / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_LOG_BASE": str(here / "log"),
            "RABBITMQ_PID_FILE": str(here / "broker.pid"),
            # The script then becomes the virtual machine instead of waiting for one: one process, one id.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
                # No spinning while idle: the tests share the cores with the broker.
                " +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
        }

    def _load_identity(self) -> NodeIdentity:
        path = self.directory / "identity.json"
        with contextlib.suppress(FileNotFoundError):
            return NodeIdentity(**json.loads(path.read_text()))
        identity = self._first_identity or NodeIdentity.new()
        _write_secret(path, json.dumps(asdict(identity)))
        return identity

    async def _found_programs(self) -> RabbitMQPrograms:
        if self._programs is None:
            self._programs = await find_programs(self._cache)
        return self._programs

    def _known(self) -> NodeIdentity:
        if self._identity is None:
            raise RuntimeError("the private RabbitMQ was not started")
        return self._identity

    def _process(self) -> ChildProcess:
        if self._node_process is None:
            raise RuntimeError("the private RabbitMQ is not running")
        return self._node_process

    def _says_address_in_use(self) -> bool:
        return self.log.exists() and "eaddrinuse" in self.log.read_text(errors="replace")


async def _listens(port: int) -> bool:
    try:
        async with asyncio.timeout(2.0):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def _binary(text: str) -> str:
    """Write a string as Erlang reads it back."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'<<"{escaped}"/utf8>>'


def _two(ports: Sequence[int]) -> tuple[int, int]:
    first, second = ports
    return first, second
