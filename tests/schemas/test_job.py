"""Reading a job: strict, total, and never repeating the body."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from schemas.error import Category, Code, say
from schemas.job import MAX_DEPTH, Job, JobRefused, parse_instant, parse_job

GOOD: dict[str, Any] = {"id": "a", "connector": "dummy", "action": "echo", "params": {"message": "hi"}}


def _body(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def _raw(params: str) -> bytes:
    return b'{"id":"a","connector":"dummy","action":"echo","params":%s}' % params.encode()


def _refusal(body: bytes, **how: Any) -> JobRefused:
    with pytest.raises(JobRefused) as caught:
        parse_job(body, **how)
    return caught.value


def test_a_job_is_read_with_its_defaults() -> None:
    job = parse_job(_body())

    assert ("a", "dummy", "echo", {"message": "hi"}) == (job.id, job.connector, job.action, job.params)
    assert ("default", "default", "a", "run", "en") == (
        job.tenant,
        job.credential,
        job.key,
        job.mode,
        job.locale,
    )


def test_the_bodys_id_wins_over_the_propertys() -> None:
    assert "a" == parse_job(_body(), message_id="m").id
    body = json.dumps({name: value for name, value in GOOD.items() if name != "id"}).encode()
    assert "m" == parse_job(body, message_id="m").id
    assert "id: is required" in _refusal(body).message


def test_the_older_services_names_are_understood() -> None:
    old = {"id": "a", "connector_name": "dummy", "action_name": "echo", "payload": {"message": "hi"}}

    assert parse_job(_body()) == parse_job(json.dumps(old).encode())


@pytest.mark.parametrize(
    ("body", "is_object", "said"),
    [
        (b"", False, "line 1 column 1"),
        (b" \n ", False, "not JSON"),
        (b"null", False, "JSON null"),
        (b"[]", False, "JSON array"),
        (b"1", False, "JSON number"),
        (b'"x"', False, "JSON string"),
        (b"true", False, "JSON boolean"),
        (b"{} {}", False, "Extra data"),
        (b'{"a":1,}', False, "line 1 column"),
        (b"\xef\xbb\xbf{}", True, "byte order mark"),
        ('{"a":1}'.encode("utf-16"), False, "not UTF-8"),
        (b'{"a":"\xff"}', False, "byte 6"),
        (b'{"a":"\n"}', False, "control character"),
        (_raw('{"x":NaN}'), True, "NaN"),
        (_raw('{"x":-Infinity}'), True, "-Infinity"),
        (_raw('{"x":1e400}'), True, "1e400"),
        (_raw('{"x":' + "1" * 5000 + "}"), True, "4,300 digits"),
        (_raw('{"x":"\\ud800"}'), True, "Unicode"),
        (_raw('{"x":1,"x":2}'), True, "'x' comes twice"),
        (_raw('{"a":1,"\\u0061":2}'), True, "'a' comes twice"),
        (_raw("[" * 63 + "]" * 63), True, "params"),
        (_raw('{"x":' + "[" * 63 + "]" * 63 + "}"), True, f"deeper than {MAX_DEPTH}"),
        (b'{"id":"a","connector":"dummy","connector_name":"dummy"}', True, "two names for one field"),
    ],
)
def test_an_invalid_job_is_refused_with_its_place(body: bytes, is_object: bool, said: str) -> None:
    refusal = _refusal(body)

    assert Code.INVALID_MESSAGE is refusal.code
    assert said in refusal.message
    assert is_object == refusal.is_object


def test_62_levels_below_the_params_pass() -> None:
    parse_job(_raw('{"x":' + "[" * 62 + "]" * 62 + "}"))


def test_brackets_in_strings_are_no_nesting() -> None:
    parse_job(_body(params={"message": "[{" * 200 + '\\"[['}))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"id": "a b"}, "id"),
        ({"id": "a\n"}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"connector": "Dummy"}, "connector"),
        ({"connector": "dummy\n"}, "connector"),
        ({"action": "__init__"}, "action"),
        ({"action": "../x"}, "action"),
        ({"params": []}, "params"),
        ({"params": None}, "params"),
        ({"tenant": "../b"}, "tenant"),
        ({"tenant": "А"}, "tenant"),
        ({"credential": "a//b"}, "credential"),
        ({"credential": "%2e%2e"}, "credential"),
        ({"credential": ""}, "credential"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "é"}, "idempotency_key"),
        ({"idempotency_key": "k" * 256}, "idempotency_key"),
        ({"mode": "later"}, "mode"),
        ({"progress": 1}, "progress"),
        ({"deadline": 1700000000}, "deadline"),
        ({"deadline": "1700000000"}, "deadline"),
        ({"deadline": "2026-01-01T00:00:00"}, "deadline"),
        ({"deadline": "2026-02-30T00:00:00Z"}, "deadline"),
        ({"deadline": "0001-01-01T00:00:00+14:00"}, "deadline"),
        ({"locale": "english, please"}, "locale"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"surplus": 1}, "surplus"),
        ({"version": "1"}, "version"),
        ({"version": True}, "version"),
        ({"version": 1.0}, "version"),
        ({"version": None}, "version"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], field: str) -> None:
    refusal = _refusal(_body(**fields))

    assert Code.INVALID_MESSAGE is refusal.code
    assert [field] == [detail.field for detail in refusal.details]


@pytest.mark.parametrize("version", [0, 2, -1, 10**400])
def test_another_version_is_recognised_even_with_unknown_fields(version: int) -> None:
    assert Code.UNSUPPORTED_VERSION is _refusal(_body(version=version, novelty=1)).code


def test_a_body_over_the_limit_is_not_parsed() -> None:
    refusal = _refusal(b"[" * 2000, max_body_bytes=1999)

    assert (Code.MESSAGE_TOO_LARGE, True) == (refusal.code, "2000" in refusal.message)


def test_a_refusal_keeps_what_the_answer_needs() -> None:
    refusal = _refusal(_body(surplus=1, locale="tr", metadata={"call": "c1"}))
    duplicate = _refusal(_raw('{"x":1,"x":2}'))

    assert ("a", "dummy", "echo") == (refusal.id, refusal.connector, refusal.action)
    assert ("tr", {"call": "c1"}) == (refusal.locale, refusal.metadata)
    assert "a" == duplicate.id


@pytest.mark.parametrize(
    "body",
    [
        _body()[:-1] + b',"metadata":{"call":"\\ud800"}}',
        _body()[:-1] + b',"metadata":{"\\ud800":"c1"}}',
        _raw('{"\\ud800":1,"\\ud800":2}'),
    ],
    ids=["value", "name", "twice"],
)
def test_what_a_refusal_keeps_can_be_written_again(body: bytes) -> None:
    refusal = _refusal(body)

    kept = [refusal.message, refusal.metadata, *(detail.model_dump() for detail in refusal.details)]
    assert json.dumps(kept, ensure_ascii=False).encode()
    assert "a" == refusal.id


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":"a","connector":"dummy","action":"echo","params":{%s}}'
        % b",".join(b'"%d":1' % n for n in range(100_000)),
        b'{"metadata":{%s}}' % b",".join(b'"%d":1' % n for n in range(100_000)),
        b"{%s}" % b",".join(b'"k%d":1' % n for n in range(100_000)),
        b'"' + b'\\"' * 500_000,
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'"' * 1_000_000,
    ],
    ids=["params", "metadata", "fields", "open string", "brackets", "objects", "quotes"],
)
def test_no_body_takes_long_or_makes_a_long_message(body: bytes) -> None:
    begun = time.perf_counter()
    try:
        parse_job(body, max_body_bytes=2_000_000)
    except JobRefused as refusal:
        assert len(refusal.message) < 1000
        assert len(refusal.details) <= 10

    assert time.perf_counter() - begun < 2


@given(st.binary(max_size=200))
def test_any_bytes_are_a_job_or_refused(body: bytes) -> None:
    try:
        parse_job(body)
    except JobRefused as refusal:
        assert refusal.code in {Code.INVALID_MESSAGE, Code.UNSUPPORTED_VERSION}


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), _json, max_size=4))
def test_params_come_through_as_they_were_sent(params: dict[str, Any]) -> None:
    assert params == parse_job(_body(params=params)).params


_PIECES = [
    "\\ud83d",
    "\\ude00",
    "\\u0041",
    "\\\\",
    "\\n",
    "u",
    "\u00e9",
    "\x7f",
    "\u2028",
    '"',
    ",",
    "1",
    "-0.0",
    "1e99",
    " ",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=6).map("".join))
def test_what_is_taken_is_what_the_stricter_parser_reads(text: str) -> None:
    body = _raw(f'{{"x": ["{text}", 1.25e-7, {text or 0}]}}')
    try:
        params = parse_job(body).params
    except JobRefused:
        return
    assert params == from_json(body, allow_inf_nan=False)["params"]


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "\\uDEAD"])
def test_half_a_surrogate_pair_is_refused(half: str) -> None:
    assert "not Unicode JSON" in _refusal(_raw(f'{{"x": "{half}"}}')).message


@given(st.text(min_size=20, max_size=60, alphabet="abcdefXYZ0123456789"))
def test_a_refusal_never_repeats_a_value(canary: str) -> None:
    for fields in ({"tenant": canary + "!"}, {"deadline": canary}, {"mode": canary}, {"params": canary}):
        refusal = _refusal(_body(**fields))
        assert canary not in refusal.message + str(refusal.details)


def test_a_leap_second_is_the_start_of_the_next_minute() -> None:
    assert datetime(2017, 1, 1, tzinfo=UTC) == parse_instant("2016-12-31T23:59:60Z")


@pytest.mark.parametrize("code", Code)
def test_every_code_can_be_spoken(code: Code) -> None:
    assert say(code, "en") and say(code, "tr") != say(code, "en")
    assert say(code, "tr-TR") == say(code, "tr")
    assert say(code, "xx") == say(code, "en")
    assert (code.facts.category is Category.UNKNOWN) == (code is Code.OUTCOME_UNKNOWN)


def test_exactly_three_codes_are_worth_sending_again() -> None:
    assert {Code.RATE_LIMITED, Code.UNAVAILABLE, Code.TIMEOUT} == {
        code for code in Code if code.facts.retryable
    }


def test_a_job_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_job(_body()).id = "b"  # type: ignore[misc]

    assert Job.model_config["frozen"]
