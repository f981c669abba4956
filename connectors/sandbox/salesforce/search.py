"""Run queries and searches on the store's records."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from connectors.sandbox.salesforce.faults import Refusal
from connectors.sandbox.salesforce.schema import NAME_FIELDS, Field, ObjectType
from connectors.sandbox.salesforce.soql import Comparison, Condition, DateLiteral, Group, Not, Query, Search
from connectors.sandbox.salesforce.store import Record, Store

#: The version that answers name, whichever was asked for.
ROOT: Final = "/services/data/v62.0"
_NUMBERS: Final = frozenset({"int", "double", "currency"})
#: Types of fields that a query cannot filter by.
_UNFILTERABLE: Final = frozenset({"textarea"})
_GROUPS: Final = {"EMAIL": {"email"}, "PHONE": {"phone"}}


def run_query(store: Store, query: Query) -> list[Record]:
    """Return the records of a query.

    Raises:
        Refusal: it names an unknown field, or compares values that cannot be compared.
    """
    kind = _object(store, query.object)
    for path in query.paths:
        _resolve(store, kind, path)
    if query.where is not None:
        _check(store, kind, query.where)
    found = [
        record
        for record in store.records(kind.name)
        if query.where is None or _holds(store, kind, record, query.where)
    ]
    for path, descending, last in reversed(query.order):
        _resolve(store, kind, path)
        found.sort(key=lambda record: _sort_key(_read(store, kind, record, path)), reverse=descending)
        found.sort(key=lambda record: (_read(store, kind, record, path) is None) == last)
    end = None if query.limit is None else query.offset + query.limit
    found = found[query.offset : end]
    return found if query.is_count else [render(store, kind, record, query.paths) for record in found]


def run_search(store: Store, search: Search) -> list[Record]:
    """Return the records of a search."""
    found: list[Record] = []
    for name, paths, limit in search.returning:
        kind = _object(store, name)
        for path in paths:
            _resolve(store, kind, path)
        hits = [
            render(store, kind, record, paths)
            for record in store.records(kind.name)
            if any(_mentions(store, kind, record, term, search.group) for term in search.terms)
        ]
        found += hits[:limit]
    return found[: search.limit]


def render(store: Store, kind: ObjectType, record: Record, paths: tuple[str, ...]) -> Record:
    """Return a record with these fields, related records nested."""
    answer: Record = {"attributes": attributes(kind, record)}
    for path in paths:
        first, _, rest = path.partition(".")
        if not rest:
            found = kind.find(first)
            assert found is not None
            answer[found.name] = record.get(found.name)
            continue
        reference = kind.relationship(first)
        assert reference is not None and reference.relationship is not None
        related = _related(store, reference, record)
        if related is None:
            answer[reference.relationship] = None
            continue
        target, other = related
        nested: Record = {"Type": target.name} if rest == "Type" else render(store, target, other, (rest,))
        nested["attributes"] = attributes(target, other)
        answer[reference.relationship] = {**(answer.get(reference.relationship) or {}), **nested}
    return answer


def attributes(kind: ObjectType, record: Record) -> dict[str, str]:
    """Return the attributes of a record."""
    return {"type": kind.name, "url": f"{ROOT}/sobjects/{kind.name}/{record['Id']}"}


def _object(store: Store, name: str) -> ObjectType:
    try:
        return store.object(name)
    except Refusal:
        message = f"sObject type '{name}' is not supported."
        raise Refusal(400, "INVALID_TYPE", message) from None


def _resolve(store: Store, kind: ObjectType, path: str) -> Field:
    """Return the field that a path leads to.

    Raises:
        Refusal: INVALID_FIELD.
    """
    first, _, rest = path.partition(".")
    if not rest:
        found = kind.find(first)
        if found is None:
            raise _no_column(kind, first)
        return found
    reference = kind.relationship(first)
    if reference is None:
        raise Refusal(400, "INVALID_FIELD", f"Didn't understand relationship '{first}' in field path.")
    targets = [store.object(target) for target in reference.reference_to]
    if len(targets) == 1:
        return _resolve(store, targets[0], rest)
    if rest not in NAME_FIELDS:
        message = f"No such column '{rest}' on entity 'Name'."
        raise Refusal(400, "INVALID_FIELD", message)
    named = [found for target in targets if (found := target.find(rest)) is not None]
    return named[0] if named else Field(rest)


def _no_column(kind: ObjectType, name: str) -> Refusal:
    message = (
        f"No such column '{name}' on entity '{kind.name}'. If you are attempting to use a custom field, be "
    )
    return Refusal(400, "INVALID_FIELD", message + "sure to append the '__c' after the custom field name.")


def _related(store: Store, reference: Field, record: Record) -> tuple[ObjectType, Record] | None:
    for target in reference.reference_to:
        try:
            return store.object(target), store.find(target, str(record.get(reference.name)))
        except Refusal:
            continue
    return None


def _read(store: Store, kind: ObjectType, record: Record, path: str) -> Any:
    first, _, rest = path.partition(".")
    if not rest:
        found = kind.find(first)
        return record.get(found.name) if found is not None else None
    reference = kind.relationship(first)
    related = _related(store, reference, record) if reference is not None else None
    if related is None:
        return None
    return related[0].name if rest == "Type" else _read(store, *related, rest)


def _check(store: Store, kind: ObjectType, condition: Condition) -> None:
    match condition:
        case Group(parts=parts):
            for part in parts:
                _check(store, kind, part)
        case Not(part):
            _check(store, kind, part)
        case Comparison(path, operator, value):
            found = _resolve(store, kind, path)
            if found.type in _UNFILTERABLE:
                message = f"{path} can not be filtered in a query call"
                raise Refusal(400, "INVALID_FIELD", message)
            for each in value if isinstance(value, tuple) else (value,):
                _check_value(found, path, operator, each)


def _check_value(found: Field, path: str, operator: str, value: Any) -> None:
    if value is None:
        return
    is_fine = isinstance(value, str)
    if found.type == "boolean":
        is_fine = isinstance(value, bool)
    elif found.type in _NUMBERS:
        is_fine = isinstance(value, int | float) and not isinstance(value, bool)
    elif found.type in {"date", "datetime"}:
        is_fine = isinstance(value, date | DateLiteral)
    if found.type in {"id", "reference"} and operator != "like" and isinstance(value, str):
        is_fine = re.fullmatch(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?|", value) is not None
        if not is_fine:
            raise Refusal(400, "INVALID_QUERY_FILTER_OPERATOR", f"invalid ID field: {value[:40]}")
    if not is_fine:
        message = f"filter criteria must be of type {found.type}: value of field '{path}' is of another type"
        raise Refusal(400, "INVALID_FIELD", message)


def _holds(store: Store, kind: ObjectType, record: Record, condition: Condition) -> bool:
    match condition:
        case Group(joint, parts):
            outcomes = (_holds(store, kind, record, part) for part in parts)
            return all(outcomes) if joint == "and" else any(outcomes)
        case Not(part):
            return not _holds(store, kind, record, part)
        case Comparison(path, operator, value):
            found = _resolve(store, kind, path)
            return _compares(store, found, _read(store, kind, record, path), operator, value)


def _compares(store: Store, found: Field, held: Any, operator: str, value: Any) -> bool:
    if operator in {"in", "not in"}:
        return any(_equal(store, found, held, each) for each in value) == (operator == "in")
    if operator == "like":
        return held is not None and _pattern(value).fullmatch(str(held)) is not None
    if operator in {"=", "!="}:
        return _equal(store, found, held, value) == (operator == "=")
    if held is None or value is None:
        return False
    here, low, high = _comparable(store, found, held, value)
    return bool({"<": here < low, "<=": here <= high, ">": here > high, ">=": here >= low}[operator])


def _equal(store: Store, found: Field, held: Any, value: Any) -> bool:
    if held is None or value is None:
        return held is None and value is None
    if found.type in {"id", "reference"}:
        return str(held)[:15] == str(value)[:15]
    if isinstance(value, date | DateLiteral):
        here, low, high = _comparable(store, found, held, value)
        return bool(low <= here <= high)
    if isinstance(value, str):
        return str(held).casefold() == value.casefold()
    return bool(held == value)


def _comparable(store: Store, found: Field, held: Any, value: Any) -> tuple[Any, Any, Any]:
    """Return the record's value, and the span that the literal means."""
    if not isinstance(value, date | DateLiteral):
        here, wanted = (each.casefold() if isinstance(each, str) else each for each in (held, value))
        return here, wanted, wanted
    if isinstance(value, DateLiteral):
        first, last = _days(value.name, store.now().date())
    elif isinstance(value, datetime):
        here = datetime.fromisoformat(held).astimezone(UTC) if found.type == "datetime" else None
        return (here or datetime.combine(date.fromisoformat(held), datetime.min.time(), UTC)), value, value
    else:
        first = last = value
    return date.fromisoformat(str(held)[:10]), first, last


def _days(name: str, today: date) -> tuple[date, date]:
    """Return the first and the last day of a date literal."""
    word, _, count = name.partition(":")
    days = timedelta(int(count or 0))
    sunday = today - timedelta((today.weekday() + 1) % 7)
    month = today.replace(day=1)
    spans = {
        "TODAY": (today, today),
        "YESTERDAY": (today - timedelta(1), today - timedelta(1)),
        "TOMORROW": (today + timedelta(1), today + timedelta(1)),
        "LAST_N_DAYS": (today - days, today),
        "NEXT_N_DAYS": (today + timedelta(1), today + days),
        "THIS_WEEK": (sunday, sunday + timedelta(6)),
        "THIS_MONTH": (month, (month + timedelta(31)).replace(day=1) - timedelta(1)),
        "THIS_YEAR": (today.replace(month=1, day=1), today.replace(month=12, day=31)),
    }
    return spans[word]


def _pattern(like: str) -> re.Pattern[str]:
    parts = re.split(r"(\\\\|\\%|\\_|%|_)", like)
    known = {"%": ".*", "_": ".", "\\%": "%", "\\_": "_", "\\\\": r"\\"}
    return re.compile("".join(known.get(part, re.escape(part)) for part in parts), re.IGNORECASE | re.DOTALL)


def _sort_key(value: Any) -> Any:
    if value is None:
        return (0, "")
    return (1, f"{value:030.6f}") if isinstance(value, int | float) else (2, str(value).casefold())


def _mentions(store: Store, kind: ObjectType, record: Record, term: str, group: str) -> bool:
    texts = [(found, str(record.get(found.name) or "")) for found in _looked_through(kind, group)]
    if group == "NAME" and kind.name == "Contact":
        # The name fields of a contact include its account's and its assistant's.
        account = _read(store, kind, record, "Account.Name") if kind.relationship("Account") else None
        texts += [(Field("Name"), str(name or "")) for name in (record.get("AssistantName"), account)]
    return any(_found_in(found, text, term) for found, text in texts)


def _looked_through(kind: ObjectType, group: str) -> Iterator[Field]:
    for found in kind.searched:
        if group == "NAME" and not (found.is_name or found.name in {"FirstName", "LastName"}):
            continue
        if group in _GROUPS and found.type not in _GROUPS[group]:
            continue
        yield found


def _found_in(found: Field, held: str, term: str) -> bool:
    if found.type == "phone":
        digits = re.sub(r"\D", "", held)
        wanted = re.sub(r"\D", "", term)
        return len(wanted) >= 4 and (
            digits.endswith(wanted) or (term.endswith("*") and digits.startswith(wanted))
        )
    words, wanted_words = (re.findall(r"[\w@.]+", each.casefold()) for each in (held, term))
    size = len(wanted_words)
    return size > 0 and any(words[at : at + size] == wanted_words for at in range(len(words) - size + 1))
