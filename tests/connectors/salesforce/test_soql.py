"""Values reach a query through quoting alone: what is parsed again equals what was given."""

import re
import time
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from simple_salesforce.format import format_external_id

from connectors.salesforce import salesforce
from connectors.salesforce.fields import FieldPath, FieldValues, ObjectName, RecordId, full_id
from connectors.salesforce.queries import value_of
from connectors.salesforce.record_params import Query
from connectors.salesforce.session import NOWHERE, has_dots, path_of
from connectors.salesforce.soql import bind, find, select
from connectors.sandbox.salesforce.soql import Comparison, parse_soql, parse_sosl
from connectors.sdk.errors import ConnectorError, InvalidParams, Sent

ROOT = "/services/data/v62.0/"
SOQL = "SELECT Id FROM Lead WHERE LastName = {name}"
#: What a job can carry: JSON text without lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
HOSTILE = (
    "x' OR Name LIKE '%",
    "\\' OR Name != '",
    "'",
    "\\",
    "\\\\'",
    "{name}",
    "{0.__class__}",
    "a\nb\r\t\b\f",
    "100%_",
    '"',
    "\u0000",
    "😀 \u202e",
    "${jndi:ldap://x}",
)


def _value(soql: str) -> Any:
    where = parse_soql(soql).where
    assert isinstance(where, Comparison)
    return where.value


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_a_value(text: str) -> None:
    assert text == _value(bind(SOQL, {"name": text}))


@settings(deadline=None)
@given(TEXT)
def test_bound_text_is_read_back_as_it_was(text: str) -> None:
    assert text == _value(bind(SOQL, {"name": text}))
    assert text == _value(select("Lead", ["Id"], "LastName = {value}", limit=2, value=text))


@settings(deadline=None)
@given(st.lists(TEXT | st.integers() | st.booleans() | st.none(), min_size=1, max_size=5))
def test_a_bound_list_is_read_back_as_it_was(values: list[Any]) -> None:
    assert tuple(values) == _value(bind("SELECT Id FROM Lead WHERE LastName IN {names}", {"names": values}))


@settings(deadline=None)
@given(TEXT)
def test_searched_text_is_one_phrase(text: str) -> None:
    plain = "".join(char if char.isprintable() else " " for char in text)
    if len(plain.strip()) < 2:
        return

    search = parse_sosl(find([text], "NAME", {"Contact": ["Id"]}, limit=5))

    assert (plain,) == search.terms
    assert "NAME" == search.group


@settings(deadline=None)
@given(TEXT)
@example("a//b")
@example("https://evil.example/?q=1#x")
@example("..")
@example("a/../b")
@example("%2e%2e")
def test_external_id_is_one_segment_of_the_path_or_refused(value: str) -> None:
    params = {"object": "Lead", "external_id_field": "Key__c", "external_id": value, "fields": {"A": 1}}
    try:
        salesforce.actions["upsert_record"].signature.read(params)
    except InvalidParams:
        assert value == "" or has_dots(value)
        return

    path = path_of(f"https://{NOWHERE}{ROOT}sobjects/Lead/{format_external_id('Key__c', value)}", ROOT)

    segment = path.removeprefix(f"{ROOT}sobjects/Lead/Key__c/")
    assert value == unquote(segment)
    assert "/" not in segment


@pytest.mark.parametrize(
    "soql",
    [
        "SELECT Id FROM Lead WHERE Name = 'x'",
        "SELECT Id FROM Lead WHERE Name = '{name}'",
        'SELECT Id FROM Lead WHERE Name = "{name}"',
        "SELECT Id FROM Lead WHERE Name = {name:literal}",
        "SELECT Id FROM Lead WHERE Name = {name:like}",
        "SELECT Id FROM Lead WHERE Name = {name!r}",
        "SELECT Id FROM Lead WHERE Name = {name.__class__}",
        "SELECT Id FROM Lead WHERE Name = {name[0]}",
        "SELECT Id FROM Lead WHERE Name = {}",
        "SELECT Id FROM Lead WHERE Name = {0}",
        "SELECT Id FROM Lead WHERE Name = {{name}}",
        "SELECT Id FROM Lead WHERE Name = {name} FOR UPDATE",
        "SELECT Id FROM Lead WHERE Name = {name} for\nview",
        "SELECT Id FROM Lead WHERE Name = {name} FOR  REFERENCE",
        "SELECT Id FROM Lead WHERE Name = {name} UPDATE TRACKING",
        "DELETE FROM Lead WHERE Name = {name}",
        "FIND {name} RETURNING Lead",
        "SELECT Id FROM Lead WHERE Name = {name} \\",
        "SELECT Id FROM Lead WHERE Name = {name} \u0000",
        "SELECT Id FROM Lead WHERE Name = {other}",
        "SELECT Id FROM Lead",
    ],
)
def test_a_query_that_is_not_bound_or_writes_is_refused(soql: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        bind(soql, {"name": "x"})

    assert Sent.NO is caught.value.sent
    assert caught.value.details


def test_an_empty_list_cannot_be_bound() -> None:
    with pytest.raises(InvalidParams):
        bind("SELECT Id FROM Lead WHERE Name IN {names}", {"names": []})


def test_dates_and_times_are_bound_without_quotes() -> None:
    bindings = '{"since": {"datetime": "2026-03-08T09:00:00+02:00"}, "day": {"date": "2026-03-08"}}'
    soql = "SELECT Id FROM Lead WHERE CreatedDate > {since} AND CreatedDate = {day}"
    params = Query.model_validate_json(f'{{"soql": "{soql}", "bindings": {bindings}}}')

    bound = bind(params.soql, {name: value_of(each) for name, each in params.bindings.items()})

    assert "> 2026-03-08T07:00:00+00:00 AND CreatedDate = 2026-03-08" in bound


BAD_IDS = (
    "",
    "003",
    "../Account/001",
    "../../query?q=x",
    "https://evil.example/x",
    "//evil.example/x",
    "003Hn00002VhAbC/",
    "003Hn00002VhAbC\n",
    "003Hn00002VhAb%2F",
    "００3Hn00002VhAbC",
    "003Hn00002VhAbCIAV1",
)


@pytest.mark.parametrize("record_id", BAD_IDS)
def test_a_malformed_id_is_refused_before_any_request(record_id: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(RecordId).validate_python(record_id)


@settings(deadline=None)
@given(TEXT)
def test_no_record_id_leads_a_request_elsewhere(record_id: str) -> None:
    url = f"https://{NOWHERE}{ROOT}sobjects/Lead/"
    try:
        checked = TypeAdapter(RecordId).validate_python(record_id)
    except ValidationError:
        return
    assert path_of(url + checked, ROOT).startswith(f"{ROOT}sobjects/Lead/")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/x",
        "//evil.example/x",
        f"http://{NOWHERE}{ROOT}sobjects/Lead/1",
        f"https://{NOWHERE}.evil.example{ROOT}sobjects",
        f"https://{NOWHERE}@evil.example{ROOT}sobjects",
        f"https://{NOWHERE}/services/oauth2/token",
        f"https://{NOWHERE}/services/data/v61.0/sobjects",
        f"https://{NOWHERE}{ROOT}../../oauth2",
        f"https://{NOWHERE}{ROOT}sobjects/%2e%2e/query",
        f"https://{NOWHERE}{ROOT}sobjects/%252e%252e/query",
        f"https://{NOWHERE}{ROOT}sobjects//Lead",
        f"https://{NOWHERE}{ROOT}query?q=x",
        f"https://{NOWHERE}{ROOT}query#x",
        f"https://{NOWHERE}{ROOT}sobjects/a\\b",
        f"https://{NOWHERE}{ROOT}sobjects/a b",
        f"https://{NOWHERE}{ROOT}sobjects/a\r\nX: y",
    ],
)
def test_a_url_outside_the_api_is_not_sent(url: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        path_of(url, ROOT)

    assert Sent.NO is caught.value.sent
    assert "evil" not in caught.value.message


@pytest.mark.parametrize(
    "name", ["Lead;DELETE", "Lead/../Account", "Lead ", "__class__", "1Lead", "", "Lead\n", "a" * 81]
)
def test_a_malformed_object_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ObjectName).validate_python(name)


@pytest.mark.parametrize(
    "path",
    ["Id FROM User--", "Id,Name", "(SELECT Id FROM Contacts)", "Account..Name", ".Name", "a" * 40_000 + "!"],
)
def test_a_malformed_field_is_refused(path: str) -> None:
    began = time.process_time()

    with pytest.raises(ValidationError):
        TypeAdapter(FieldPath).validate_python(path)

    assert 0.05 > time.process_time() - began


@pytest.mark.parametrize(
    "fields", [{"Id": "x"}, {"attributes": {"type": "Account"}}, {"Email": 1, "EMAIL": 2}, {"a b": 1}]
)
def test_fields_that_a_job_may_not_write_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(FieldValues).validate_python(fields)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("003Hn00002VhAbC", "003Hn00002VhAbCIAV"),
        ("001000000000000", "001000000000000AAA"),
        ("ABCDEABCDEABCDE", "ABCDEABCDEABCDE555"),
        ("003Hn00002VhAbCIAV", "003Hn00002VhAbCIAV"),
    ],
)
def test_an_id_of_15_characters_is_written_as_18(short: str, full: str) -> None:
    assert full == full_id(short)


@settings(deadline=None)
@given(st.from_regex(re.compile(r"[a-zA-Z0-9]{15}", re.ASCII), fullmatch=True))
def test_ids_that_differ_in_case_alone_differ_as_18(record_id: str) -> None:
    other = record_id.swapcase()

    assert 18 == len(full_id(record_id))
    assert (record_id == other) == (full_id(record_id).lower() == full_id(other).lower())


@pytest.mark.parametrize(
    ("action", "params"),
    [
        ("query", {"soql": "SELECT Id FROM A", "bindings": {"a": [0] * 300_000}}),
        ("query", {"soql": "SELECT Id FROM A", "bindings": {"a": [{}] * 300_000}}),
        ("query", {"soql": "SELECT Id FROM A", "bindings": {f"k{number}": {} for number in range(90_000)}}),
        ("run_flow", {"name": "A", "inputs": {"a": [{"b": []}] * 100_000}}),
        ("run_flow", {"name": "A", "inputs": {"a": {f"k{number}": [] for number in range(90_000)}}}),
        ("create_record", {"object": "A", "fields": {f"k{number}": [] for number in range(90_000)}}),
        ("create_lead", {"last_name": "A", "fields": {f"k{number}": 1 for number in range(90_000)}}),
    ],
)
def test_a_parameter_of_a_million_values_is_refused_quickly(action: str, params: dict[str, Any]) -> None:
    began = time.process_time()

    with pytest.raises(InvalidParams):
        salesforce.actions[action].signature.read(params)

    assert 2 > time.process_time() - began
