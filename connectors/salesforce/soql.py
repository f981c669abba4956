"""Queries and searches: values come in through quoting alone."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from simple_salesforce.format import format_soql

from connectors.sdk.http.request import invalid

#: A query as a GET carries it.
MAX_SOQL_CHARS: Final = 10_000

_BEGIN: Final = re.compile(r"\s*SELECT\s", re.IGNORECASE)
#: Clauses that lock records or write down that they were seen: reading leaves no trace.
_NOT_READING: Final = re.compile(
    r"\bFOR\s+(UPDATE|VIEW|REFERENCE)\b|\bUPDATE\s+(TRACKING|VIEWSTAT)\b", re.IGNORECASE
)
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")
_SOSL_RESERVED: Final = frozenset("?&|!{}[]()^~*:\\\"'+-")


def bind(soql: str, bindings: Mapping[str, Any]) -> str:
    """Put quoted values where the placeholders `{name}` stand.

    Text in quotation marks is refused: whoever puts a query together from pieces would let a value
    become part of it.

    Raises:
        InvalidParams: it is no reading query, or placeholders and bindings do not fit.
    """
    if not _BEGIN.match(soql):
        raise invalid("soql", "must begin with SELECT")
    if len(soql) > MAX_SOQL_CHARS:
        raise invalid("soql", f"has more than {MAX_SOQL_CHARS} characters")
    if any(quote in soql for quote in "'\"\\"):
        raise invalid("soql", "has text in it; write {name} there, and give the text in bindings")
    if any(not char.isprintable() and char not in "\n\r\t" for char in soql):
        raise invalid("soql", "has characters that no query has")
    if _NOT_READING.search(soql):
        raise invalid("soql", "must only read: FOR UPDATE, FOR VIEW and their like are refused")
    wanted = set(_PLACEHOLDER.findall(soql))
    if "{" in (rest := _PLACEHOLDER.sub("", soql)) or "}" in rest:
        raise invalid("soql", "has a brace that is no placeholder such as {name}")
    if missing := sorted(wanted - bindings.keys()):
        raise invalid("bindings", f"lacks {', '.join(missing)}")
    if surplus := sorted(bindings.keys() - wanted):
        raise invalid("bindings", f"has {', '.join(surplus)}, which the query does not name")
    return _PLACEHOLDER.sub(lambda found: quote(bindings[found[1]]), soql)


def quote(value: Any) -> str:
    """Write a value, or a list of them, as SOQL writes it."""
    if isinstance(value, list | tuple):
        if not value:
            raise invalid("bindings", "has an empty list, which SOQL cannot write")
        return "(" + ",".join(map(quote, value)) + ")"
    return str(format_soql("{}", value))


def select(object_name: str, paths: Sequence[str], where: str, *, limit: int, **values: Any) -> str:
    """Write a query; names are checked already, values are quoted here."""
    template = f"SELECT {', '.join(paths)} FROM {object_name} WHERE {where} LIMIT {limit:d}"  # noqa: S608
    return str(format_soql(template, **values))


def find(
    terms: Sequence[str],
    group: str,
    returning: Mapping[str, Sequence[str]],
    *,
    limit: int,
    longer: bool = False,
) -> str:
    """Return a search for any of the terms, each as one phrase.

    Args:
        longer: search for words that begin with a term, too; each term is then one word.
    """
    phrases = [f'"{escape(term)}"' for term in terms]
    if longer:
        phrases += [f"{escape(term)}*" for term in terms]
    phrase = " OR ".join(phrases)
    objects = ", ".join(f"{name}({', '.join(paths)})" for name, paths in returning.items())
    return f"FIND {{{phrase}}} IN {group} FIELDS RETURNING {objects} LIMIT {limit:d}"


def escape(text: str) -> str:
    """Escape what SOSL would take for an operator; line breaks become blanks."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return "".join(f"\\{char}" if char in _SOSL_RESERVED else char for char in plain)
