"""A vault's HTTP edge with a script of answers and a journal of what was asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def token(self) -> str | None:
        return self.headers.get("x-vault-token")


@dataclass(frozen=True)
class Answer:
    """One answer: a status, a body that is sent as it is, headers."""

    status: int
    body: bytes | dict[str, Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    #: Seconds between single bytes of the body.
    drip_s: float = 0.0


DENIED = Answer(403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]})
BAD_TOKEN = Answer(403, {"errors": ["permission denied"]})
SEALED = Answer(503, {"errors": ["Vault is sealed"]})
BAD_LOGIN = Answer(400, {"errors": ["invalid role or secret ID"]})


class VaultStub:
    """Speaks as much of a vault's API as the worker uses; `script` answers first where it has something."""

    def __init__(self) -> None:
        self.journal: list[Asked] = []
        self.secrets: dict[str, dict[str, Any]] = {}
        #: By a part of the path: what to answer instead.
        self.script: dict[str, Answer | Callable[[Asked], Answer | None]] = {}
        self.tokens: set[str] = set()
        self.secret_ids: set[str] = {"the-secret-id"}
        self.wrapped: dict[str, tuple[str, str]] = {}
        self.lease_s: float = 3600
        self.renewed_lease_s: float | None = None
        #: Cleared, answers to reads wait.
        self.open = threading.Event()
        self.open.set()
        self.reading = 0
        self.most_reading = 0
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (ConnectionError, ValueError):
                    self.close_connection = True

            def answer(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                text = self.rfile.read(size)
                asked = Asked(
                    self.command,
                    self.path.removeprefix("/v1/"),
                    {name.lower(): value for name, value in self.headers.items()},
                    json.loads(text) if text else None,
                )
                answer = stub.answer(asked)
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"content-type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                if "content-length" not in answer.headers and answer.status != 204:
                    self.send_header("content-length", str(len(body)))
                self.end_headers()
                if answer.drip_s:
                    for at in range(len(body)):
                        self.wfile.write(body[at : at + 1])
                        time.sleep(answer.drip_s)
                else:
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_LIST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def asked(self, part: str) -> list[Asked]:
        """Say what was asked of paths that contain this."""
        return [asked for asked in self.journal if part in asked.path]

    def answer(self, asked: Asked) -> Answer:
        with self._lock:
            self.journal.append(asked)
        if "/data/" not in asked.path:
            return self._decide(asked)
        with self._lock:
            self.reading += 1
            self.most_reading = max(self.most_reading, self.reading)
        self.open.wait()
        with self._lock:
            self.reading -= 1
        return self._decide(asked)

    def _decide(self, asked: Asked) -> Answer:
        for part, scripted in self.script.items():
            if part in asked.path:
                answer = scripted if isinstance(scripted, Answer) else scripted(asked)
                if answer is not None:
                    return answer
        match asked.path:
            case "sys/health":
                return Answer(200, {"initialized": True, "sealed": False, "standby": False})
            case "auth/approle/login":
                return self._login() if asked.body["secret_id"] in self.secret_ids else BAD_LOGIN
            case "auth/kubernetes/login":
                return self._login()
            case "auth/token/lookup-self" if asked.token in self.tokens:
                return Answer(200, {"data": {"ttl": 60, "creation_ttl": 60, "renewable": True}})
            case "auth/token/renew-self" if asked.token in self.tokens:
                lease_s = self.lease_s if self.renewed_lease_s is None else self.renewed_lease_s
                return self._auth(str(asked.token), lease_s)
            case "sys/wrapping/lookup" if asked.body["token"] in self.wrapped:
                path = self.wrapped[asked.body["token"]][0]
                return Answer(200, {"data": {"creation_path": path, "creation_ttl": 60}})
            case "sys/wrapping/unwrap" if asked.token in self.wrapped:
                return Answer(200, {"data": {"secret_id": self.wrapped.pop(str(asked.token))[1]}})
            case "sys/wrapping/lookup" | "sys/wrapping/unwrap":
                return Answer(400, {"errors": ["wrapping token is not valid or does not exist"]})
            case path if path.startswith("secret/data/") and asked.token in self.tokens:
                fields = self.secrets.get(path.removeprefix("secret/data/connectors/"))
                if fields is None:
                    return Answer(404, {"errors": []})
                return Answer(200, {"data": {"data": fields, "metadata": {"version": 1, "destroyed": False}}})
        return BAD_TOKEN

    def _login(self) -> Answer:
        token = f"s.token-{len(self.asked('/login'))}"
        self.tokens.add(token)
        return self._auth(token, self.lease_s)

    def _auth(self, token: str, lease_s: float) -> Answer:
        return Answer(200, {"auth": {"client_token": token, "lease_duration": lease_s, "renewable": True}})

    @contextmanager
    def running(self) -> Iterator["VaultStub"]:
        self._thread.start()
        try:
            yield self
        finally:
            self.open.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
