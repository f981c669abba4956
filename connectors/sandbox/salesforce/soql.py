"""Parse SOQL and SOSL into trees; malformed text is refused as Salesforce refuses it.

Supported SOQL: fields over relationships, `COUNT()`, WHERE with AND, OR (never mixed without parentheses),
NOT, = != <> < <= > >= LIKE IN `NOT IN`, literals of each type, date literals such as `LAST_N_DAYS:7`,
ORDER BY, LIMIT, OFFSET. Not supported: subqueries, aggregates, TYPEOF, GROUP BY.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from connectors.sandbox.salesforce.faults import Refusal

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^'\\\n\r]|\\.)*')
      | (?P<time>\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2}))?(?![\w.]))
      | (?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<name>[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*(?::\d+)?)
      | (?P<sign><=|>=|!=|<>|[=<>(),])
    )""",
    re.VERBOSE,
)
_ESCAPES: Final = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "b": "\b",
    "f": "\f",
    "'": "'",
    '"': '"',
    "\\": "\\",
    "%": "\\%",
    "_": "\\_",
}
_COMPARISONS: Final = frozenset({"=", "!=", "<>", "<", "<=", ">", ">="})
_DATE_LITERAL: Final = re.compile(
    r"(TODAY|YESTERDAY|TOMORROW|THIS_WEEK|THIS_MONTH|THIS_YEAR)|(LAST|NEXT)_N_DAYS:(\d+)", re.IGNORECASE
)
#: A quoted phrase, or words up to the next OR.
_TERM: Final = re.compile(r"""\s*(?:("(?:[^"\\]|\\.)*")|((?:(?!\s+OR\s).)+))(?:\s+OR\s+|\s*$)""", re.DOTALL)
_RESERVED: Final = frozenset({"select", "from", "where", "and", "or", "not", "in", "like", "order", "limit"})


@dataclass(frozen=True, slots=True)
class DateLiteral:
    """A span of days by name, such as LAST_N_DAYS:7."""

    name: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """`path operator value`."""

    path: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class Not:
    """A negated condition."""

    part: "Condition"


@dataclass(frozen=True, slots=True)
class Group:
    """Several conditions, joined by `and` or `or`."""

    joint: str
    parts: tuple["Condition", ...]


Condition = Comparison | Not | Group


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT."""

    object: str
    paths: tuple[str, ...]
    is_count: bool
    where: Condition | None
    #: (path, descending, nulls last)
    order: tuple[tuple[str, bool, bool], ...]
    limit: int | None
    offset: int


@dataclass(frozen=True, slots=True)
class Search:
    """A FIND."""

    #: Each a phrase; one of them must be there.
    terms: tuple[str, ...]
    #: `ALL`, `NAME`, `EMAIL`, `PHONE` or `SIDEBAR`.
    group: str
    #: Object, its fields, its own limit.
    returning: tuple[tuple[str, tuple[str, ...], int | None], ...]
    limit: int | None


class _Tokens:
    """A query, one token at a time."""

    def __init__(self, text: str, code: str) -> None:
        self._code = code
        self._tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.end() == at:
                raise self.fault(f"unexpected token: '{text[at : at + 20].strip()}'")
            kind = found.lastgroup or ""
            self._tokens.append((kind, found[kind]))
            at = found.end()
        self._at = 0

    def fault(self, what: str) -> Refusal:
        return Refusal(400, self._code, f"{what}")

    @property
    def next(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "<EOF>")

    def take(self) -> tuple[str, str]:
        token = self.next
        self._at += 1
        return token

    def word(self, *words: str) -> bool:
        """Consume these words if they come next."""
        ahead = self._tokens[self._at : self._at + len(words)]
        if len(ahead) < len(words) or any(
            kind not in {"name", "sign"} or text.lower() != word
            for (kind, text), word in zip(ahead, words, strict=True)
        ):
            return False
        self._at += len(words)
        return True

    def expect(self, word: str) -> None:
        if not self.word(word):
            raise self.fault(f"expecting '{word}', found '{self.next[1][:40]}'")

    def name(self) -> str:
        kind, text = self.take()
        if kind != "name" or text.lower() in _RESERVED:
            raise self.fault(f"unexpected token: '{text[:40]}'")
        return text

    def count(self) -> int:
        kind, text = self.take()
        if kind != "number" or not text.isdigit():
            raise self.fault(f"expecting a number, found '{text[:40]}'")
        return int(text)


def parse_soql(text: str) -> Query:
    """Parse a query.

    Raises:
        Refusal: MALFORMED_QUERY.
    """
    tokens = _Tokens(text, "MALFORMED_QUERY")
    tokens.expect("select")
    is_count = tokens.word("count", "(", ")")
    paths = () if is_count else tuple(_names(tokens))
    tokens.expect("from")
    name = tokens.name()
    try:
        where = _condition(tokens) if tokens.word("where") else None
    except RecursionError:
        raise tokens.fault("too many parentheses") from None
    order = _order(tokens) if tokens.word("order", "by") else ()
    limit = tokens.count() if tokens.word("limit") else None
    offset = tokens.count() if tokens.word("offset") else 0
    if tokens.next[0] != "end":
        raise tokens.fault(f"unexpected token: '{tokens.next[1][:40]}'")
    return Query(name, paths, is_count, where, order, limit, offset)


def parse_sosl(text: str) -> Search:
    """Parse a search.

    Raises:
        Refusal: MALFORMED_SEARCH.
    """
    found = re.match(r"\s*FIND\s*\{((?:[^{}\\]|\\.)*)\}\s*", text, re.IGNORECASE)
    if found is None:
        raise Refusal(
            400, "MALFORMED_SEARCH", "No search term found. The search term must be enclosed in braces."
        )
    terms = _terms(found[1])
    tokens = _Tokens(text[found.end() :], "MALFORMED_SEARCH")
    group = "ALL"
    if tokens.word("in"):
        group = tokens.name().upper()
        if group not in {"ALL", "NAME", "EMAIL", "PHONE", "SIDEBAR"}:
            raise tokens.fault(f"unexpected token: '{group}'")
        tokens.expect("fields")
    returning = []
    if tokens.word("returning"):
        returning.append(_returned(tokens))
        while tokens.word(","):
            returning.append(_returned(tokens))
    limit = tokens.count() if tokens.word("limit") else None
    if tokens.next[0] != "end":
        raise tokens.fault(f"unexpected token: '{tokens.next[1][:40]}'")
    return Search(terms, group, tuple(returning), limit)


def _names(tokens: _Tokens) -> Sequence[str]:
    names = [tokens.name()]
    while tokens.word(","):
        names.append(tokens.name())
    return names


def _order(tokens: _Tokens) -> tuple[tuple[str, bool, bool], ...]:
    order = []
    while True:
        path = tokens.name()
        descending = tokens.word("desc") or (tokens.word("asc") and False)
        last = tokens.word("nulls", "last") or (tokens.word("nulls", "first") and False)
        order.append((path, descending, last))
        if not tokens.word(","):
            return tuple(order)


def _condition(tokens: _Tokens) -> Condition:
    first = _part(tokens)
    for joint in ("and", "or"):
        parts = [first]
        while tokens.word(joint):
            parts.append(_part(tokens))
        if len(parts) > 1:
            if tokens.next[1].lower() in {"and", "or"}:
                raise tokens.fault("unexpected token: AND and OR are not mixed without parentheses")
            return Group(joint, tuple(parts))
    return first


def _part(tokens: _Tokens) -> Condition:
    if tokens.word("not"):
        return Not(_part(tokens))
    if tokens.word("("):
        inside = _condition(tokens)
        tokens.expect(")")
        return inside
    path = tokens.name()
    if tokens.word("like"):
        kind, text = tokens.take()
        if kind != "text":
            raise tokens.fault("LIKE needs text")
        return Comparison(path, "like", _text(tokens, text))
    negated = tokens.word("not")
    if tokens.word("in"):
        return Comparison(path, "not in" if negated else "in", _list(tokens))
    kind, sign = tokens.take()
    if negated or kind != "sign" or sign not in _COMPARISONS:
        raise tokens.fault(f"unexpected token: '{sign[:40]}'")
    return Comparison(path, "!=" if sign == "<>" else sign, _value(tokens))


def _list(tokens: _Tokens) -> tuple[Any, ...]:
    tokens.expect("(")
    values = [_value(tokens)]
    while tokens.word(","):
        values.append(_value(tokens))
    tokens.expect(")")
    return tuple(values)


def _value(tokens: _Tokens) -> Any:  # one return a kind of literal
    kind, text = tokens.take()
    if kind == "text":
        return _unescape(_text(tokens, text))
    if kind == "number":
        return float(text) if set(text) & set(".eE") else int(text)
    if kind == "time":
        return _time(tokens, text)
    if kind == "name":
        if (word := text.lower()) in {"true", "false"}:
            return word == "true"
        if word == "null":
            return None
        if _DATE_LITERAL.fullmatch(text):
            return DateLiteral(text.upper())
    raise tokens.fault(f"unexpected token: '{text[:40]}'")


def _text(tokens: _Tokens, quoted: str) -> str:
    """Resolve a literal's escapes, except those of LIKE's wildcards."""
    plain = []
    characters = iter(quoted[1:-1])
    for char in characters:
        if char != "\\":
            plain.append(char)
            continue
        escaped = next(characters)
        if escaped not in _ESCAPES:
            raise tokens.fault(f"Illegal string literal: Invalid escape sequence '\\{escaped}'")
        # A backslash of the value must not be taken for one before a wildcard.
        plain.append("\\\\" if escaped == "\\" else _ESCAPES[escaped])
    return "".join(plain)


def _unescape(text: str) -> str:
    return re.sub(r"\\([\\%_])", r"\1", text)


def _time(tokens: _Tokens, text: str) -> date | datetime:
    try:
        if "T" not in text:
            return date.fromisoformat(text)
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise tokens.fault(f"line 1: invalid date: '{text}'") from None


def _returned(tokens: _Tokens) -> tuple[str, tuple[str, ...], int | None]:
    name = tokens.name()
    paths: Sequence[str] = ("Id",)
    limit = None
    if tokens.word("("):
        paths = _names(tokens)
        limit = tokens.count() if tokens.word("limit") else None
        tokens.expect(")")
    return name, tuple(paths), limit


def _terms(text: str) -> tuple[str, ...]:
    """Parse phrases or words joined by OR; an unescaped operator is refused."""
    terms = []
    for phrase, words in _TERM.findall(text):
        inside = phrase[1:-1] if phrase else words.strip()
        if re.search(r'(?<!\\)(?:\\\\)*["{}()\[\]&|!^~:]', inside):
            message = "The search term has a reserved character that is not escaped"
            raise Refusal(400, "MALFORMED_SEARCH", message)
        terms.append(re.sub(r"\\(.)", r"\1", inside))
    if not any(len(term) > 1 for term in terms):
        raise Refusal(400, "MALFORMED_SEARCH", "search term must be longer than one character")
    return tuple(terms)
