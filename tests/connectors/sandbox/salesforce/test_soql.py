"""The sandbox's query languages: what is malformed is refused, what is well-formed means what it says."""

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sandbox.salesforce.faults import Journal
from connectors.sandbox.salesforce.search import run_query, run_search
from connectors.sandbox.salesforce.server import Refusal
from connectors.sandbox.salesforce.soql import parse_soql, parse_sosl
from connectors.sandbox.salesforce.store import Store

NOW = datetime(2026, 3, 11, 12, tzinfo=UTC)  # a Wednesday


@pytest.fixture
def store() -> Store:
    store = Store(Journal(), lambda: NOW)
    user = store.insert("User", {"LastName": "Desk"})
    clinic = store.insert("Account", {"Name": "Clinic", "AnnualRevenue": 100})
    engines = store.insert("Account", {"Name": "100% Engines_", "AnnualRevenue": 2500.5, "Website": "a\\b"})
    people = (
        ("Ada", "Lovelace", clinic, "1999-12-31"),
        ("Grace", "Hopper", engines, None),
        ("Alan", "Turing", None, None),
    )
    for first, last, account, born in people:
        store.insert(
            "Contact",
            {
                "FirstName": first,
                "LastName": last,
                "AccountId": account and account["Id"],
                "Birthdate": born,
                "Phone": "(532) 111 22 33" if first == "Ada" else None,
                "DoNotCall": first == "Alan",
                "OwnerId": user["Id"],
            },
        )
    return store


def _names(store: Store, where: str) -> list[str]:
    return [
        record["Name"] for record in run_query(store, parse_soql(f"SELECT Name FROM Contact WHERE {where}"))
    ]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("LastName = 'lovelace'", ["Ada Lovelace"]),
        ("LastName != 'Lovelace'", ["Grace Hopper", "Alan Turing"]),
        ("LastName <> 'Lovelace' AND DoNotCall = true", ["Alan Turing"]),
        ("LastName IN ('Hopper','Turing')", ["Grace Hopper", "Alan Turing"]),
        ("LastName NOT IN ('Hopper','Turing')", ["Ada Lovelace"]),
        ("Name LIKE 'a%'", ["Ada Lovelace", "Alan Turing"]),
        ("Name LIKE '_da%'", ["Ada Lovelace"]),
        ("Account.Name LIKE '100\\%%'", ["Grace Hopper"]),
        ("Account.Name LIKE '%\\_'", ["Grace Hopper"]),
        ("Account.Website = 'a\\\\b'", ["Grace Hopper"]),
        ("Account.AnnualRevenue > 100", ["Grace Hopper"]),
        ("Account.AnnualRevenue >= 100 AND Account.AnnualRevenue < 2500.5", ["Ada Lovelace"]),
        ("AccountId = null", ["Alan Turing"]),
        ("AccountId != null", ["Ada Lovelace", "Grace Hopper"]),
        ("Birthdate <= 1999-12-31", ["Ada Lovelace"]),
        ("Birthdate = 1999-12-31", ["Ada Lovelace"]),
        ("Birthdate > 1999-12-31", []),
        ("CreatedDate = TODAY AND LastName = 'Hopper'", ["Grace Hopper"]),
        ("CreatedDate = LAST_N_DAYS:7 AND LastName = 'Hopper'", ["Grace Hopper"]),
        ("CreatedDate = YESTERDAY", []),
        ("CreatedDate < 2026-03-11T12:00:01+00:00 AND LastName = 'Hopper'", ["Grace Hopper"]),
        ("CreatedDate > 2026-03-11T14:00:00+02:00", []),
        ("NOT LastName = 'Hopper'", ["Ada Lovelace", "Alan Turing"]),
        ("(LastName = 'Hopper' OR LastName = 'Turing') AND DoNotCall = false", ["Grace Hopper"]),
        ("Owner.Name = 'Desk' ORDER BY Name DESC LIMIT 2", ["Grace Hopper", "Alan Turing"]),
        ("Name != null ORDER BY Account.Name NULLS LAST LIMIT 1 OFFSET 1", ["Ada Lovelace"]),
    ],
)
def test_a_condition_means_what_it_says(store: Store, where: str, names: list[str]) -> None:
    assert names == _names(store, where)


@pytest.mark.parametrize(
    "soql",
    [
        "",
        "SELECT",
        "SELECT FROM Contact",
        "SELECT Id",
        "SELECT Id, FROM Contact",
        "SELECT * FROM Contact",
        "SELECT Id FROM Contact WHERE",
        "SELECT Id FROM Contact WHERE Name",
        "SELECT Id FROM Contact WHERE Name =",
        "SELECT Id FROM Contact WHERE Name = x",
        "SELECT Id FROM Contact WHERE Name = 'x",
        "SELECT Id FROM Contact WHERE Name = 'x'y'",
        "SELECT Id FROM Contact WHERE Name = '\\x'",
        "SELECT Id FROM Contact WHERE Name = 'a\nb'",
        'SELECT Id FROM Contact WHERE Name = "x"',
        "SELECT Id FROM Contact WHERE Name LIKE 5",
        "SELECT Id FROM Contact WHERE Name IN ()",
        "SELECT Id FROM Contact WHERE Name IN 'x'",
        "SELECT Id FROM Contact WHERE A = 1 AND B = 2 OR C = 3",
        "SELECT Id FROM Contact WHERE (A = 1",
        "SELECT Id FROM Contact LIMIT x",
        "SELECT Id FROM Contact LIMIT 1 LIMIT 2",
        "SELECT Id FROM Contact; DELETE",
        "SELECT Id FROM Contact -- comment",
        "SELECT Id FROM Contact WHERE CreatedDate = 2026-02-30",
        "DELETE FROM Contact",
    ],
)
def test_a_malformed_query_is_refused(soql: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_soql(soql)

    assert (400, "MALFORMED_QUERY") == (caught.value.status, caught.value.code)


@pytest.mark.parametrize(
    ("soql", "code"),
    [
        ("SELECT Id FROM Nope", "INVALID_TYPE"),
        ("SELECT Nope FROM Contact", "INVALID_FIELD"),
        ("SELECT Nope.Name FROM Contact", "INVALID_FIELD"),
        ("SELECT Account.Nope FROM Contact", "INVALID_FIELD"),
        ("SELECT Owner.Username FROM Case", "INVALID_FIELD"),
        ("SELECT Who.Company FROM Task", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Description = 'x'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE DoNotCall = 'true'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE CreatedDate = '2026-03-11'", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE AnnualRevenue > '1'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Name = 1", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR"),
    ],
)
def test_an_unknown_field_or_comparison_is_refused(store: Store, soql: str, code: str) -> None:
    with pytest.raises(Refusal) as caught:
        run_query(store, parse_soql(soql))

    assert code == caught.value.code


WORDS = "SELECT Id Name FROM Contact WHERE AND OR NOT IN LIKE ( ) , = != 'x' 'a\\\\' 7 null TODAY LIMIT ORDER BY {"


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=20).map(" ".join) | st.text(max_size=60))
def test_any_query_is_answered_or_refused(text: str) -> None:
    store = Store(Journal(), lambda: NOW)

    for soql in (text, f"SELECT Id FROM Contact WHERE {text}"):
        with suppress(Refusal):
            run_query(store, parse_soql(soql))
    for sosl in (text, f"FIND {{{text}}} RETURNING Contact(Id)"):
        with suppress(Refusal):
            run_search(store, parse_sosl(sosl))


def test_endless_parentheses_are_refused() -> None:
    with pytest.raises(Refusal):
        parse_soql(f"SELECT Id FROM Contact WHERE {'(' * 100_000}")


def test_a_reference_to_several_objects_has_their_common_fields(store: Store) -> None:
    queue = store.insert("Group", {"Name": "Front desk"})
    store.insert("Case", {"Subject": "x", "OwnerId": queue["Id"]})

    (case,) = run_query(store, parse_soql("SELECT Owner.Name, Owner.Type FROM Case"))

    assert {"Name": "Front desk", "Type": "Group"}.items() <= case["Owner"].items()


@pytest.mark.parametrize(
    ("sosl", "names"),
    [
        ('FIND {"Ada"} IN NAME FIELDS RETURNING Contact(Name)', ["Ada Lovelace"]),
        ('FIND {"Ada Lovelace"} RETURNING Contact(Name)', ["Ada Lovelace"]),
        ('FIND {"Lovelace Ada"} RETURNING Contact(Name)', []),
        ('FIND {"Ada" OR "Alan"} RETURNING Contact(Name)', ["Ada Lovelace", "Alan Turing"]),
        ('FIND {"x OR Ada"} RETURNING Contact(Name)', []),
        ("FIND {5321112233} IN PHONE FIELDS RETURNING Contact(Name)", ["Ada Lovelace"]),
        ("FIND {1112233} IN PHONE FIELDS RETURNING Contact(Name)", ["Ada Lovelace"]),
        ("FIND {Ada} IN PHONE FIELDS RETURNING Contact(Name)", []),
        ("FIND {Clinic} RETURNING Contact(Name), Account(Name LIMIT 1) LIMIT 5", ["Clinic"]),
    ],
)
def test_a_search_finds_what_it_says(store: Store, sosl: str, names: list[str]) -> None:
    assert names == [record["Name"] for record in run_search(store, parse_sosl(sosl))]


@pytest.mark.parametrize(
    "sosl",
    [
        "",
        "FIND Ada",
        "FIND {}",
        "FIND {a}",
        "FIND {a(b}",
        'FIND {"a"b"}',
        "FIND {Ada} IN NOWHERE FIELDS",
        "FIND {Ada} RETURNING",
        "FIND {Ada} LIMIT 1 x",
        "FIND {Ada} RETURNING Contact(Id",
    ],
)
def test_a_malformed_search_is_refused(sosl: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_sosl(sosl)

    assert "MALFORMED_SEARCH" == caught.value.code
