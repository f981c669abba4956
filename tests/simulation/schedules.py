"""A token in, a schedule out: the same token is the same schedule, as long as the code is the same."""

from typing import Final

from tests.simulation.choices import Choices, DeviatingChoices, SeededChoices
from tests.simulation.job_plan import BrokerPlan, make_broker_plan
from tests.simulation.job_world import JobWorld, run_broker_plan
from tests.simulation.loop import SimulatedLoop
from tests.simulation.plan import Plan, Published, make_plan
from tests.simulation.world import World, run_plan

#: How tokens of schedules with a broker begin.
BROKER: Final = "broker."
#: The casts whose every schedule with few deviations is run: one job, and one with a copy and an undo.
SMALL: Final[dict[str, Plan]] = {
    name: Plan("memory", jobs, crashes=1, stalls=1)
    for name, jobs in {
        **{
            action: (Published(action, "k0", deadline_s=8.0),)
            for action in ("keyed", "plain", "looked", "steps")
        },
        "copied": (
            Published("looked", "k0", deadline_s=8.0),
            Published("looked", "k0", at_s=0.5, deadline_s=20.0),
        ),
        "undone": (Published("looked", "k0"), Published("looked", "k0", "undo", at_s=0.02, deadline_s=60.0)),
        "keyed_undone": (Published("keyed", "k0"), Published("keyed", "k0", "undo", at_s=0.02)),
    }.items()
}


def token_of(store: str, seed: int, number: int) -> str:
    """Return the token of a seeded schedule."""
    return f"{store}.{seed}.{number}"


def small_token(name: str, deviations: dict[int, int]) -> str:
    """Return the token of a small cast's schedule."""
    return ".".join((f"small-{name}", *(f"{number}={option}" for number, option in deviations.items())))


def read_token(token: str) -> tuple[Plan, Choices]:
    """Return the cast and the decisions that a token stands for."""
    if not token.startswith("small-"):
        choices = SeededChoices(token)
        store = token.split(".")[0]
        if store not in {"memory", "sqlite"}:
            raise ValueError(f"{token!r} is no token")
        return make_plan("sqlite" if store == "sqlite" else "memory", choices), choices
    name, *deviations = token.removeprefix("small-").split(".")
    pairs = (each.split("=") for each in deviations)
    return SMALL[name], DeviatingChoices({int(number): int(option) for number, option in pairs})


def run_token(token: str) -> World | JobWorld:
    """Run a token's schedule.

    Raises:
        AssertionError: an invariant does not hold.
    """
    if token.startswith(BROKER):
        choices = SeededChoices(token)
        return run_broker_plan(make_broker_plan(choices), choices)
    plan, decisions = read_token(token)
    return run_plan(plan, decisions)


def replay(token: str) -> tuple[str, AssertionError | None]:
    """Run a token's schedule, and return its journal and what it broke."""
    plan: Plan | BrokerPlan
    choices: Choices
    broken = None
    if token.startswith(BROKER):
        choices = SeededChoices(token)
        plan = make_broker_plan(choices)
    else:
        plan, choices = read_token(token)
    loop = SimulatedLoop(choices)
    try:
        if isinstance(plan, BrokerPlan):
            run_broker_plan(plan, choices, loop)
        else:
            run_plan(plan, choices, loop)
    except AssertionError as error:
        broken = error
    lines = [f"{at:9.3f}  {who:<10} {what}" for at, who, what in loop.journal]
    return "\n".join([str(plan), *lines]), broken
