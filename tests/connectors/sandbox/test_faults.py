"""The faults of a sandbox, and its journal: the same for every provider."""

import json
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from connectors.sandbox.faults import BaseFault, BaseJournal, Faults


@dataclass(slots=True)
class Broken(BaseFault):
    def refuse(self, status: int) -> web.Response:
        return web.Response(status=status)


@dataclass(frozen=True, slots=True)
class Change:
    kind: str


def _met(faults: Faults[Broken], *operations: str) -> list[bool]:
    return [faults.take(operation) is not None for operation in operations]


def test_a_fault_meets_its_operation_as_often_as_asked() -> None:
    faults = Faults[Broken]()
    faults.add(Broken("create", times=2))

    assert [False, True, True, False] == _met(faults, "query", "create", "create", "create")


def test_a_fault_lets_the_first_calls_pass() -> None:
    faults = Faults[Broken]()
    faults.add(Broken(skip=2))

    assert [False, False, True, False] == _met(faults, "create", "query", "create", "create")


def test_a_fault_without_a_count_lasts_until_it_is_cleared() -> None:
    faults = Faults[Broken]()
    faults.add(Broken(times=None))
    met = _met(faults, *["create"] * 3)
    faults.clear()

    assert [True, True, True] == met
    assert [False] == _met(faults, "create")


def test_the_journal_appends_each_effect_to_its_file(tmp_path: Path) -> None:
    journal = BaseJournal[Change](tmp_path / "journal.ndjson")

    for kind in ("created", "deleted"):
        journal.append(Change(kind))

    lines = (tmp_path / "journal.ndjson").read_text().splitlines()
    assert [{"kind": "created"}, {"kind": "deleted"}] == [json.loads(line) for line in lines]
    assert ["created", "deleted"] == [effect.kind for effect in journal.effects]
