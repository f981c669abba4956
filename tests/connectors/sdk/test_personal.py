"""Personal data: marked by type, masked wherever people read along."""

import logging
from typing import Any

import pytest
from pydantic import BaseModel

from connectors.sdk import Connector, Context, Personal
from connectors.sdk.context import JobLog
from connectors.sdk.personal import KEYWORD, MASK, PersonalData

crm = Connector("crm")


class Person(BaseModel):
    name: Personal[str]
    vip: bool = False


@crm.action
async def find(
    ctx: Context,
    phone: Personal[str],
    people: list[Person] | None = None,
    pin: Personal[int | None] = None,
    note: str = "",
) -> str:
    """Find somebody."""
    return phone


def personal(**params: Any) -> PersonalData:
    return find.signature.personal(params)


def test_the_schema_says_what_is_personal() -> None:
    schema = find.signature.schema

    assert schema["properties"]["phone"]["x-personal"] is True
    assert schema["properties"]["pin"]["x-personal"] is True
    assert schema["$defs"]["Person"]["properties"]["name"]["x-personal"] is True
    assert "x-personal" not in schema["properties"]["note"]


def test_values_are_found_wherever_they_lie() -> None:
    found = personal(phone="+90 532 000", people=[{"name": "Ada Lovelace"}], pin=4711, note="hello")

    assert {"+90 532 000", "90532000", "Ada Lovelace", "4711"} == set(found.values)
    assert {"phone", "name", "pin"} == found.names


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("call +90 532 000 now", "call *** now"),
        ({"who": {"text": "+90 532 000"}, "count": 2}, {"who": {"text": MASK}, "count": 2}),
        (["+90 532 000", None, True], [MASK, None, True]),
        ("nothing", "nothing"),
    ],
)
def test_a_value_is_masked_in_any_shape(value: Any, masked: Any) -> None:
    assert masked == personal(phone="+90 532 000").mask(value)


def test_a_short_value_is_masked_whole_and_blacks_out_no_words() -> None:
    found = personal(phone="90")

    assert (MASK, "1990") == (found.mask("90"), found.mask("1990"))


def test_a_small_number_is_masked_in_its_own_field_and_nowhere_else() -> None:
    found = personal(phone="+90 532 000", pin=17)

    assert {"pin": MASK, "attempt": 17} == found.mask({"pin": 17, "attempt": 17})
    assert MASK == personal(phone="+90 532 000", pin=4711).mask(4711)


def test_a_field_with_a_marked_name_is_masked_whatever_it_holds() -> None:
    assert MASK == personal(phone="0532").mask("+90532 (normalized)", "phone")


def test_a_misspelt_name_is_masked_too() -> None:
    assert "no ***" == personal(phnoe="+90 532 000").mask("no +90 532 000")


def test_a_log_line_masks_what_is_personal_and_keeps_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    log = JobLog(logging.getLogger("connectors"), {"job_id": "j"}, lambda: personal(phone="+90 532 000"))

    with caplog.at_level(logging.INFO, "connectors"):
        log.info("asked for +90 532 000", phone="+90532", found=3, who={"tel": "+90 532 000"})

    record = caplog.records[0]
    assert "asked for ***" == record.getMessage()
    assert {"job_id": "j", "phone": MASK, "found": 3, "who": {"tel": MASK}} == record.fields  # type: ignore[attr-defined]


def test_a_job_that_logs_nothing_is_not_looked_through() -> None:
    looked: list[str] = []

    def look() -> PersonalData:
        looked.append("at all of it")
        return personal(phone="+90 532 000")

    log = JobLog(logging.getLogger("connectors"), {}, look)
    before = list(looked)
    lines = [log.process("for +90 532 000", {})[0] for _ in range(2)]

    assert ([], ["at all of it"]) == (before, looked)
    assert ["for ***", "for ***"] == lines


async def test_the_action_itself_gets_the_value() -> None:
    params = find.signature.read({"phone": "+90 532 000"})

    assert {"phone": "+90 532 000"}.items() <= find.signature.arguments(params, None).items()


def test_the_digits_of_a_phone_number_are_masked_too() -> None:
    data = PersonalData.of({"phone": "+90 (532) 111-22-33"}, {"properties": {"phone": {KEYWORD: True}}})

    assert "asked *** and ***, 42 times" == data.mask("asked 905321112233 and 5321112233, 42 times")
