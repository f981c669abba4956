"""Build SOQL queries and SOSL searches; values are inserted only through quoting."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from simple_salesforce.format import format_soql

from connectors.sdk.errors import InvalidParams

#: Characters of a query before its values are inserted.
MAX_SOQL_CHARS: Final = 10_000
#: Bytes of a query in the URL: Salesforce takes 16,384 of the whole URL, 431 and 414 beyond.
MAX_ENCODED_BYTES: Final = 16_000

_BEGIN: Final = re.compile(r"\s*SELECT\s", re.IGNORECASE)
#: Clauses that lock records or record that they were seen.
_NOT_READING: Final = re.compile(
    r"\bFOR\s+(UPDATE|VIEW|REFERENCE)\b|\bUPDATE\s+(TRACKING|VIEWSTAT)\b", re.IGNORECASE
)
_PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,62})\}")
_SOSL_RESERVED: Final = frozenset("?&|!{}[]()^~*:\\\"'+-")


def bind(soql: str, bindings: Mapping[str, Any]) -> str:
    """Return the query with quoted values instead of its placeholders `{name}`.

    Text in quotation marks is refused, because in a query put together from pieces a value may become
    part of the query.

    Raises:
        InvalidParams: it does not only read, or placeholders and bindings do not match.
    """
    if not _BEGIN.match(soql):
        raise InvalidParams.field("soql", "must begin with SELECT")
    if len(soql) > MAX_SOQL_CHARS:
        raise InvalidParams.field("soql", f"has more than {MAX_SOQL_CHARS} characters")
    if any(mark in soql for mark in "'\"\\"):
        raise InvalidParams.field(
            "soql", "contains quoted text; write {name} there, and pass the text in bindings"
        )
    if any(not char.isprintable() and char not in "\n\r\t" for char in soql):
        raise InvalidParams.field("soql", "contains control characters")
    if _NOT_READING.search(soql):
        raise InvalidParams.field(
            "soql", "must only read: FOR UPDATE, FOR VIEW, FOR REFERENCE and UPDATE are not allowed"
        )
    wanted = set(_PLACEHOLDER.findall(soql))
    if "{" in (rest := _PLACEHOLDER.sub("", soql)) or "}" in rest:
        raise InvalidParams.field("soql", "contains a brace outside a placeholder such as {name}")
    if missing := sorted(wanted - bindings.keys()):
        raise InvalidParams.field("bindings", f"must have {', '.join(missing)}, which the query names")
    if surplus := sorted(bindings.keys() - wanted):
        raise InvalidParams.field(
            "bindings", f"must not have {', '.join(surplus)}, which the query does not name"
        )
    bound = _PLACEHOLDER.sub(lambda found: quote(bindings[found[1]]), soql)
    return _checked_size(bound, "bindings" if bindings else "soql")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text for LIKE whose own _ and % are no wildcards."""

    text: str
    is_anywhere: bool


def quote(value: Any) -> str:
    """Return a value, or a list of values, as a SOQL literal."""
    if isinstance(value, Pattern):
        return str(format_soql("'%{:like}%'" if value.is_anywhere else "'{:like}%'", value.text))
    if isinstance(value, list | tuple):
        if not value:
            raise InvalidParams.field("bindings", "must not contain an empty list, which SOQL cannot express")
        return "(" + ",".join(map(quote, value)) + ")"
    return str(format_soql("{}", value))


def select(object_name: str, paths: Sequence[str], where: str, *, limit: int, **values: Any) -> str:
    """Return a query; the names must be checked already, the values are quoted here."""
    template = f"SELECT {', '.join(paths)} FROM {object_name} WHERE {where} LIMIT {limit:d}"  # noqa: S608
    return _checked_size(str(format_soql(template, **values)), "fields")


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
    return _checked_size(f"FIND {{{phrase}}} IN {group} FIELDS RETURNING {objects} LIMIT {limit:d}", "fields")


def escape(text: str) -> str:
    """Escape SOSL's operators, and replace line breaks by spaces."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return "".join(f"\\{char}" if char in _SOSL_RESERVED else char for char in plain)


def _checked_size(query: str, parameter: str) -> str:
    """Return a query that fits into a URL.

    Raises:
        InvalidParams: it does not; names the parameter that makes it long.
    """
    if (size := len(percent_encoded(query, safe=""))) > MAX_ENCODED_BYTES:
        issue = f"make the query {size} bytes long; Salesforce takes {MAX_ENCODED_BYTES}, so ask for fewer"
        raise InvalidParams.field(parameter, issue)
    return query
