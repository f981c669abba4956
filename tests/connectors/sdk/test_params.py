"""An action's parameters: schema from the signature, strict reading, injection."""

import enum
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from connectors.sdk import Connector, Context, Effect, InvalidParams
from connectors.sdk.errors import ConnectorError
from connectors.sdk.params import Signature


class Colour(enum.Enum):
    RED = "red"


class Guest(BaseModel):
    name: str
    born: date | None = None


async def plan(
    when: datetime,
    count: Annotated[int, Field(ge=1)],
    guests: list[Guest],
    price: Decimal = Decimal(0),
    colour: Colour = Colour.RED,
    pair: tuple[int, int] = (0, 0),
    ctx: Context | None = None,
) -> str:
    return ""


GOOD: dict[str, Any] = {"when": "2026-03-08T15:00:00+01:00", "count": 1, "guests": [{"name": "a"}]}


def _read(**changes: Any) -> Any:
    return Signature(plan).read({**GOOD, **changes})


def test_good_params_are_read_into_their_types() -> None:
    read = _read(price="1.50", colour="red", pair=[1, 2], guests=[{"name": "a", "born": "2000-01-31"}])

    assert (Decimal("1.50"), Colour.RED, (1, 2)) == (read.price, read.colour, read.pair)
    assert date(2000, 1, 31) == read.guests[0].born


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"count": "1"}, "count"),
        ({"count": True}, "count"),
        ({"count": 1.5}, "count"),
        ({"count": 0}, "count"),
        ({"when": "1700000000"}, "when"),
        ({"when": 1700000000}, "when"),
        ({"when": "2026-03-08"}, "when"),
        ({"guests": [{"name": "a", "born": "946684800"}]}, "guests.0.born"),
        ({"guests": [{"name": 1}]}, "guests.0.name"),
        ({"guests": [{"name": "a", "surplus": 1}]}, "guests.0.surplus"),
        ({"colour": "blue"}, "colour"),
        ({"surplus": 1}, "surplus"),
        ({"ctx": {}}, "ctx"),
    ],
)
def test_a_wrong_param_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        _read(**changes)

    assert [field] == [detail.field for detail in caught.value.details]


def test_the_schema_says_what_the_reading_does() -> None:
    schema = Signature(plan).schema

    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Guest"]["additionalProperties"] is False
    assert ["when", "count", "guests"] == schema["required"]


def test_one_model_may_stand_for_all_parameters() -> None:
    async def invite(guest: Guest, ctx: Context) -> None: ...

    signature = Signature(invite)

    assert {"name", "born"} == signature.schema["properties"].keys()
    assert "a" == signature.arguments(signature.read({"name": "a"}), "CTX")["guest"].name  # type: ignore[arg-type]
    assert "ctx" == signature.context_name


def test_a_function_that_cannot_be_an_action_says_why() -> None:
    async def untyped(x) -> None: ...  # type: ignore[no-untyped-def]

    async def starred(*names: str) -> None: ...

    for function, said in ((untyped, "'x' needs a type"), (starred, "cannot come from a job")):
        with pytest.raises(TypeError, match=said):
            Signature(function)


def test_what_is_returned_must_fit_what_is_declared() -> None:
    connector = Connector("crm")

    @connector.action(effect=Effect.READ)
    async def count() -> int:
        return 1

    assert 1 == count.dump(1)
    with pytest.raises(ConnectorError, match=r"crm\.count returned a str"):
        count.dump("one")
    with pytest.raises(ConnectorError):
        count.dump(object())


def test_unsaid_an_action_is_a_write() -> None:
    connector = Connector("crm")

    @connector.action
    async def create() -> None: ...

    assert Effect.WRITE is create.effect


@pytest.mark.parametrize("name", ["Crm", "crm-x", "", "1crm", "crm\n"])
def test_a_connectors_name_is_checked(name: str) -> None:
    with pytest.raises(ValueError, match="a name is"):
        Connector(name)


def test_hooks_are_checked_when_they_are_declared() -> None:
    connector = Connector("crm")

    @connector.action
    async def create(name: str) -> None: ...

    with pytest.raises(TypeError, match="same parameters"):

        @create.reconcile
        async def find(title: str) -> None: ...

    with pytest.raises(TypeError, match="params, result"):

        @create.undo
        async def remove(name: str) -> None: ...

    with pytest.raises(TypeError, match="async"):

        @create.undo  # type: ignore[type-var]  # mypy sees it, too
        def forget() -> None: ...
