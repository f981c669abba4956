"""The product and its peers: how each is started, and how a job is written for it.

Every one of them acks after the work, and replies persistently with a publisher confirm before that.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pika

#: Jobs at once in one process: slots, prefetch or threads, as each calls it.
SLOTS: Final = 100
#: Where replies go: one durable queue in the virtual host of each contestant.
REPLIES: Final = "replies"

ROOT: Final = Path(__file__).parents[2]
PEERS: Final = ROOT / ".venv-bench" / "bin"


@dataclass(frozen=True)
class Work:
    """What a job does, and so how a worker is set up for it."""

    action: str
    params: dict[str, Any]

    @property
    def waits(self) -> bool:
        """Whether its time is spent waiting: many threads help."""
        return self.action != "echo"


ECHO: Final = Work("echo", {"message": "hello"})
IO_50_MS: Final = Work("sleep", {"seconds": 0.05})
BLOCKING_50_MS: Final = Work("block", {"seconds": 0.05})


@dataclass(frozen=True)
class Message:
    """A job as one contestant reads it."""

    exchange: str
    key: str
    body: bytes
    properties: pika.BasicProperties


@dataclass(frozen=True)
class Contestant:
    """A worker to measure."""

    name: str
    #: Its queue; a quorum queue unless it cannot.
    queue: str
    write: Callable[[str, Work], Message]
    #: What every reply of a job that went well has in its body.
    success: bytes
    #: The commands for: processes, slots, work.
    commands: Callable[[int, int, Work], list[list[str]]]
    #: Settings for: broker URL, slots, work.
    environment: Callable[[str, int, Work], dict[str, str]]

    def start(
        self, url: str, folder: Path, work: Work, *, processes: int = 1, slots: int = SLOTS
    ) -> list[subprocess.Popen[bytes]]:
        """Start its processes, their logs in a file; the caller ends them."""
        environment = {"PATH": f"{PEERS}:/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        environment |= self.environment(url, slots, work)
        with (folder / f"{self.name}.log").open("ab") as log:
            return [
                subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
                for command in self.commands(processes, slots, work)
            ]


def _ours(id: str, work: Work) -> Message:
    body = {"id": id, "connector": "dummy", "action": work.action, "params": work.params}
    return Message("connectors.jobs", f"dummy.{work.action}", json.dumps(body).encode(), _properties(id))


def _by_hand(id: str, work: Work) -> Message:
    body = {"id": id, "action": work.action, "params": work.params}
    return Message("", "bench", json.dumps(body).encode(), _properties(id))


def _taskiq(id: str, work: Work) -> Message:
    body = {"task_id": id, "task_name": work.action, "labels": {}, "args": [], "kwargs": work.params}
    headers = {"task_id": id, "task_name": work.action}
    return Message("", "bench", json.dumps(body).encode(), _properties(id, headers=headers))


def _celery(id: str, work: Work) -> Message:
    """Write by Celery's message protocol 2: https://docs.celeryq.dev/en/stable/internals/protocol.html."""
    headers = {"lang": "py", "task": work.action, "id": id, "root_id": id, "parent_id": None, "group": None}
    body = json.dumps([[], work.params, {}]).encode()
    properties = _properties(
        id, headers=headers, content_type="application/json", content_encoding="utf-8", priority=0
    )
    return Message("", "bench", body, properties)


def _dramatiq(id: str, work: Work) -> Message:
    body = {
        "queue_name": "bench",
        "actor_name": work.action,
        "args": [],
        "kwargs": work.params,
        "options": {},
        "message_id": id,
        "message_timestamp": 0,
    }
    return Message("", "bench", json.dumps(body).encode(), _properties(id))


def _properties(id: str, **more: Any) -> pika.BasicProperties:
    more.setdefault("content_type", "application/json")
    return pika.BasicProperties(reply_to=REPLIES, correlation_id=id, delivery_mode=2, **more)


def _our_settings(url: str, slots: int, _work: Work) -> dict[str, str]:
    return {
        "CONNECTORS_RABBITMQ_URL": url,
        "CONNECTORS_ENABLED": "dummy",
        "CONNECTORS_CONCURRENCY": str(slots),
        "CONNECTORS_METRICS_PORT": "0",
        "CONNECTORS_DATA_DIR": "data",
        "CONNECTORS_MAX_BODY_BYTES": str(4 * 1024 * 1024),
    }


def _peer_settings(url: str, slots: int, work: Work) -> dict[str, str]:
    """Celery's multiplier: high for short tasks, 1 for as many threads as there are slots."""
    return {"BENCH_URL": url, "BENCH_SLOTS": str(slots), "BENCH_PREFETCH": "1" if work.waits else str(slots)}


def _same(*command: str) -> Callable[[int, int, Work], list[list[str]]]:
    return lambda processes, _slots, _work: [list(command)] * processes


def _run_taskiq(processes: int, slots: int, _work: Work) -> list[list[str]]:
    options = ["--workers", str(processes), "--max-async-tasks", str(slots)]
    options += ["--max-threadpool-threads", str(slots), "--ack-type", "when_saved", "--log-level", "WARNING"]
    return [[str(PEERS / "taskiq"), "worker", *options, "tests.bench.peers.taskiq_app:broker"]]


def _run_celery(processes: int, slots: int, work: Work) -> list[list[str]]:
    """Threads for what waits, a command each; child processes for what computes."""
    command = [str(PEERS / "celery"), "-A", "tests.bench.peers.celery_app", "worker", "--loglevel", "WARNING"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    if not work.waits:
        return [[*command, "--pool", "prefork", "--concurrency", str(processes), "-O", "fair"]]
    pool = ["--pool", "threads", "--concurrency", str(slots)]
    return [[*command, *pool, "-n", f"bench{number}@localhost"] for number in range(processes)]


def _run_dramatiq(processes: int, slots: int, work: Work) -> list[list[str]]:
    """8 threads are its default, and best for what computes."""
    threads = str(slots if work.waits else 8)
    options = ["--processes", str(processes), "--threads", threads, "--skip-logging"]
    return [[str(PEERS / "dramatiq"), *options, "tests.bench.peers.dramatiq_app"]]


_DATA: Final = b'"data"'
OURS: Final = Contestant(
    "ours",
    "connectors.jobs.dummy",
    _ours,
    b'"succeeded"',
    _same(sys.executable, "-m", "worker", "worker"),
    _our_settings,
)
PLAIN: Final = Contestant(
    "aio-pika",
    "bench",
    _by_hand,
    _DATA,
    _same(str(PEERS / "python"), "-m", "tests.bench.peers.plain"),
    _peer_settings,
)
FASTSTREAM: Final = Contestant(
    "FastStream",
    "bench",
    _by_hand,
    _DATA,
    _same(str(PEERS / "faststream"), "run", "tests.bench.peers.faststream_app:app"),
    _peer_settings,
)
TASKIQ: Final = Contestant("taskiq", "bench", _taskiq, b'"is_err":false', _run_taskiq, _peer_settings)
CELERY: Final = Contestant("Celery", "bench", _celery, b'"SUCCESS"', _run_celery, _peer_settings)
DRAMATIQ: Final = Contestant("Dramatiq", "bench", _dramatiq, _DATA, _run_dramatiq, _peer_settings)

ALL: Final = (OURS, PLAIN, FASTSTREAM, TASKIQ, CELERY, DRAMATIQ)
