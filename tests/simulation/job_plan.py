"""What a schedule with a broker is made of: who sends which jobs to whom, and what goes wrong."""

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from connectors.sdk.runtime.deadline import format_instant
from schemas.job import Mode
from tests.simulation.broker import DIRECT
from tests.simulation.choices import Choices
from tests.simulation.clock import EPOCH
from worker.job.waiting_room import PER_SLOT

#: The actions, and the undoable ones of them.
ACTIONS: Final = ("keyed", "plain", "looked", "steps", "read")
UNDOABLE: Final = frozenset({"keyed", "plain", "looked"})
#: Seconds that a caller waits.
DEADLINES_S: Final = (None, 0.3, 1.2, 3.0, 8.0, 20.0, 60.0)
STARTS_S: Final = (0.2, 0.0, 1.0, 4.0, 9.0)
#: Seconds after the start at which a caller goes away.
GONE_S: Final = (0.5, 3.0, 10.0)

#: Where an answer goes: to a queue, over direct reply-to, nowhere, to a queue that is deleted or full, to a forgery.
Reply = Literal["queue", "direct", "none", "gone", "full", "forged"]
#: What is sent: a job, bytes that are not JSON, a frame that no client can decode.
Kind = Literal["job", "garbage", "undecodable"]


@dataclass(frozen=True, slots=True)
class JobPlan:
    """One message that a caller publishes."""

    uid: str
    action: str
    key: str
    mode: Mode = "run"
    at_s: float = 0.0
    deadline_s: float | None = None
    tenant: str = "acme"
    reply: Reply = "queue"
    kind: Kind = "job"
    is_bulk: bool = False
    #: Published to the queue of another connector.
    is_misrouted: bool = False
    #: How often its publisher sends it, having lost a confirm.
    copies: int = 1
    gone_at_s: float | None = None

    @property
    def body(self) -> bytes:
        """The message, byte for byte."""
        if self.kind != "job":
            return f"{{not json {self.uid}".encode()
        fields = {
            "id": self.uid,
            "connector": "shop",
            "action": self.action,
            "params": {"item": "x"},
            "idempotency_key": self.key,
            "mode": self.mode,
            "tenant": self.tenant,
            "progress": self.key == "k1",
        }
        if self.deadline_at is not None:
            fields["deadline"] = format_instant(EPOCH + timedelta(seconds=self.deadline_at))
        return json.dumps(fields).encode()

    @property
    def deadline_at(self) -> float | None:
        """The instant of its deadline."""
        return None if self.deadline_s is None else round(self.at_s + self.deadline_s, 3)

    @property
    def address(self) -> str | None:
        """The property `reply_to`."""
        match self.reply:
            case "none":
                return None
            case "direct":
                return f"{DIRECT}g1h2AA5yZXBseUAxMjM0.{self.uid}"
            case "forged":
                return f"{DIRECT}g1h2AA5yZXBseUAxMjM0.forged"
            case _:
                return f"replies.{self.uid}"

    @property
    def is_live(self) -> bool:
        """Whether someone waits for the answer."""
        return self.reply in {"queue", "direct"} and self.kind == "job"

    @property
    def routing_key(self) -> str:
        """The key it is published under."""
        return self.own_key.replace("shop", "crm") if self.is_misrouted else self.own_key

    @property
    def own_key(self) -> str:
        """The key of the queue that its body names."""
        return f"shop.{self.action}{'.bulk' if self.is_bulk else ''}"


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """A schedule's cast."""

    jobs: tuple[JobPlan, ...]
    workers: int
    slots: int
    crashes: int
    stalls: int
    #: Outages of vault, ledger, provider.
    weather: int
    #: What befalls the broker: alarms, deleted queues, restarts, cancelled consumers, full queues.
    trouble: int
    #: Workers that are stopped with a signal, and replaced.
    deploys: int
    is_faulty: bool

    @property
    def is_crowded(self) -> bool:
        """Whether there are more messages than the workers have room for in memory."""
        return sum(job.copies for job in self.jobs) > self.workers * self.slots * PER_SLOT


def make_broker_plan(choices: Choices) -> BrokerPlan:
    """Make a plan."""
    pick = choices.pick
    jobs: list[JobPlan] = []
    for number in range(pick((1, 2, 3, 5, 14))):
        action, key = pick(ACTIONS), f"k{number}"
        common = {"tenant": pick(("acme", "bolt", "cord"), 0.5), "is_bulk": pick((False, True), 0.15)}
        for _ in range(pick((1, 2), 0.2)):
            jobs.append(_job(choices, len(jobs), action, key, "run", **common))
        if action in UNDOABLE and pick((False, True), 0.2):
            jobs.append(_job(choices, len(jobs), action, key, "undo", **common))
    if pick((False, True), 0.15):
        kind: Kind = pick(("garbage", "undecodable"))
        jobs.append(JobPlan(f"j{len(jobs)}", "read", "none", kind=kind, at_s=pick(STARTS_S, 0.5)))
    return BrokerPlan(
        tuple(jobs),
        workers=pick((2, 2, 3)),
        slots=pick((2, 1, 4)),
        crashes=pick((0, 1, 1, 2)),
        stalls=pick((0, 0, 1, 2)),
        weather=pick((0, 0, 1, 2)),
        trouble=pick((0, 1, 1, 2)),
        deploys=pick((0, 1), 0.2),
        is_faulty=pick((True, False), 0.2),
    )


def _job(choices: Choices, number: int, action: str, key: str, mode: Mode, **common: object) -> JobPlan:
    pick = choices.pick
    reply: Reply = pick(("queue", "direct", "none", "gone", "full", "forged"), 0.4)
    if reply == "forged" and not pick((False, True), 0.3):
        reply = "direct"
    return JobPlan(
        f"j{number}",
        action,
        key,
        mode,
        at_s=pick(STARTS_S, 0.5),
        deadline_s=pick(DEADLINES_S, 0.6),
        reply=reply,
        is_misrouted=pick((False, True), 0.08),
        copies=pick((1, 2), 0.12),
        gone_at_s=pick(GONE_S) if reply == "gone" else None,
        **common,  # type: ignore[arg-type]
    )
