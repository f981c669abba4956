"""Personal data: marked values are masked wherever people read them.

    phone: Personal[str]

A parameter, or a field of a model, that is marked is `x-personal` in the JSON schema. It reaches the
action and the provider unchanged; in log lines, traces, listings of dead letters and the test kit it is
replaced by `***`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

T = TypeVar("T")

#: What stands where personal data stood.
MASK: Final = "***"
#: How a JSON schema says it.
KEYWORD: Final = "x-personal"
#: Characters. Shorter values are masked where they are the whole text, not inside of one: a country
#: code would black out parts of innocent words. A shorter number is masked in its own field alone: a 1 is
#: a count or an attempt as often as not.
MIN_PART_CHARS: Final = 4
#: Digits from which on a text of digits and the signs between them is taken for a phone number.
MIN_PHONE_DIGITS: Final = 7
#: Lengths of most countries' numbers without the country's code.
NATIONAL_DIGITS: Final = (10, 9)
_PHONE: Final = re.compile(r"[\d+() ./-]{7,40}")


class _Mark:
    """Puts the mark into the JSON schema."""

    def __get_pydantic_json_schema__(
        self, core_schema: "CoreSchema", handler: "GetJsonSchemaHandler"
    ) -> "JsonSchemaValue":
        """Add the mark to the type's schema."""
        return {**handler(core_schema), KEYWORD: True}

    def __repr__(self) -> str:
        return "Personal"


#: Marks a parameter or a field as personal data: `phone: Personal[str]`.
Personal: TypeAlias = Annotated[T, _Mark()]


@dataclass(frozen=True, slots=True)
class PersonalData:
    """The personal data of one job: the names of the marked fields, and their values."""

    names: frozenset[str] = frozenset()
    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Any, schema: Mapping[str, Any]) -> "PersonalData":
        """Return the personal data in parameters, by their schema."""
        found = list(_marked(params, schema, schema.get("$defs", {}), ""))
        texts = {text for _, value in found for text in _texts(value) if text}
        texts |= {digits for text in texts for digits in _digits_of_phone(text)}
        # The longest first: where one value holds another, nothing of the outer one may stay.
        return cls(
            frozenset(name for name, _ in found if name), tuple(sorted(texts, key=lambda text: -len(text)))
        )

    def mask(self, value: Any, name: str = "") -> Any:
        """Return a copy of a value of any shape, its personal data masked.

        Args:
            name: of the field that holds it; a marked field is masked whatever its value.
        """
        if value is None or not (self.names or self.values):
            return value
        if name in self.names:
            return MASK
        if isinstance(value, str):
            return self._mask_text(value)
        if isinstance(value, Mapping):
            return {key: self.mask(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.mask(item) for item in value]
        text = str(value)
        is_personal = not isinstance(value, bool) and len(text) >= MIN_PART_CHARS and text in self.values
        return MASK if is_personal else value

    def _mask_text(self, text: str) -> str:
        for value in self.values:
            if text == value:
                return MASK
            if len(value) >= MIN_PART_CHARS:
                text = text.replace(value, MASK)
        return text


def is_marked(schema: Any) -> bool:
    """Return whether anything in a schema is personal."""
    if isinstance(schema, Mapping):
        return schema.get(KEYWORD) is True or any(map(is_marked, schema.values()))
    return isinstance(schema, list) and any(map(is_marked, schema))


def _marked(value: Any, schema: Any, definitions: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    """Walk a value beside its schema; yield each marked part with the name of its field."""
    if not isinstance(schema, Mapping) or value is None:
        return
    if schema.get(KEYWORD) is True:
        yield name, value
        return
    if "$ref" in schema:
        yield from _marked(value, definitions.get(schema["$ref"].rpartition("/")[2]), definitions, name)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _marked(value, choice, definitions, name)
    if isinstance(value, Mapping):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if rest is False and key not in properties:
                yield "", item  # a name that is refused may be a marked one, misspelt
            else:
                yield from _marked(item, properties.get(key, rest), definitions, str(key))
    elif isinstance(value, list):
        prefix = schema.get("prefixItems", ())
        for index, item in enumerate(value):
            part = prefix[index] if index < len(prefix) else schema.get("items")
            yield from _marked(item, part, definitions, name)


def _digits_of_phone(text: str) -> Iterator[str]:
    """List the other spellings of a phone number that end up in logs: its digits, and those of its national part."""
    if not _PHONE.fullmatch(text):
        return
    digits = "".join(filter(str.isdecimal, text))
    if len(digits) >= MIN_PHONE_DIGITS:
        yield digits
        yield from (digits[-length:] for length in NATIONAL_DIGITS if len(digits) > length)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
