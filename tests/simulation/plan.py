"""What a schedule is made of, before the first step: who publishes what, and how bad the weather is."""

from dataclasses import dataclass
from typing import Final, Literal

from schemas.job import Mode
from tests.simulation.choices import Choices
from tests.simulation.shop import PARTS, UNDOABLE

#: Seconds that a caller waits; None if it is no one's business.
DEADLINES_S: Final = (None, 0.05, 0.5, 1.5, 3.0, 8.0, 20.0, 60.0)
#: Seconds after the start at which a job is published.
STARTS_S: Final = (0.0, 0.02, 0.5, 3.0, 9.0, 16.0, 30.0)

Store = Literal["memory", "sqlite"]


@dataclass(frozen=True, slots=True)
class Published:
    """One message that a caller sends."""

    action: str
    key: str
    mode: Mode = "run"
    at_s: float = 0.0
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A schedule's cast."""

    store: Store
    jobs: tuple[Published, ...]
    workers: int = 2
    crashes: int = 0
    stalls: int = 0
    #: Outages, rotations and clock jumps.
    weather: int = 0
    #: How probable a fault of the provider, of the ledger, and of a worker right before something leaves is.
    provider_rate: float = 0.12
    ledger_rate: float = 0.03
    hot_rate: float = 0.05
    #: Each worker has read the secret before the first job.
    has_secret: bool = False

    @property
    def keys(self) -> dict[str, str]:
        """The action of each key."""
        return {job.key: job.action for job in self.jobs}

    def runs_of(self, key: str) -> int:
        """Return how many messages ask to have the effect of a key."""
        return sum(job.key == key and job.mode == "run" for job in self.jobs)


def make_plan(store: Store, choices: Choices) -> Plan:
    """Make a plan."""
    jobs: list[Published] = []
    for number in range(choices.pick((1, 1, 2))):
        action, key = choices.pick(tuple(PARTS)), f"k{number}"
        for _ in range(choices.pick((1, 1, 1, 2, 3))):
            start_s, wait_s = choices.pick(STARTS_S, 0.5), choices.pick(DEADLINES_S, 0.6)
            jobs.append(Published(action, key, "run", start_s, wait_s))
        for _ in range(choices.pick((0, 1, 2), 0.5) if action in UNDOABLE else 0):
            start_s, wait_s = choices.pick(STARTS_S, 0.8), choices.pick(DEADLINES_S, 0.3)
            jobs.append(Published(action, key, "undo", start_s, wait_s))
    return Plan(
        store,
        tuple(jobs),
        workers=choices.pick((2, 2, 3)),
        crashes=choices.pick((0, 1, 1, 2, 3)),
        stalls=choices.pick((0, 1, 1, 2)),
        weather=choices.pick((0, 0, 1, 3)),
        # One kind of fault at a time makes chains of it: swarm testing (Groce and others, ISSTA 2012).
        provider_rate=choices.pick((0.12, 0.12, 0.4, 0.0)),
        ledger_rate=choices.pick((0.03, 0.03, 0.15, 0.0)),
        hot_rate=choices.pick((0.05, 0.05, 0.3)),
        has_secret=choices.pick((False, True)),
    )
