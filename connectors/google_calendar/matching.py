"""Whether an event is the appointment of the person who is looked for; a search's results are no proof."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any, Final

from connectors.google_calendar.fields import OWN_PREFIX
from connectors.google_calendar.occupancy import private_of
from connectors.google_calendar.params import FindAppointments
from connectors.sdk.phone import same_number

#: Longest run of digits and what people write between them that is read as a phone number.
_NUMBER: Final = re.compile(r"\+?\(?\d[\d ()./\u2010-\u2015-]{4,40}\d(?:\s?(?:ext\.?|x|#|dahili)\s?\d{1,7})?")
_WORD: Final = re.compile(r"\w+")
#: What separates words that belong to no one together; an address is no name.
_BREAK: Final = re.compile(r"[;|\n()]|\S+@\S+")
#: Most words of a name whose order does not matter.
MAX_FREE_WORDS: Final = 4
#: Characters of one text that are looked at; Google takes 8192.
MAX_CHARS: Final = 8192


def is_about(event: Mapping[str, Any], asked: FindAppointments) -> bool:
    """Return whether an event matches all that was asked."""
    return (
        (asked.phone is None or has_phone(event, asked.phone))
        and (asked.email is None or has_address(event, asked.email))
        and (asked.name is None or has_name(event, asked.name))
        and asked.private_properties.items() <= private_of(event).items()
    )


def has_phone(event: Mapping[str, Any], phone: str) -> bool:
    """Return whether a text of an event holds a phone number, however it is written."""
    numbers = (found[0] for text in _texts(event) for found in _NUMBER.finditer(text))
    return any(same_number(number, phone) for number in numbers)


def has_address(event: Mapping[str, Any], email: str) -> bool:
    """Return whether somebody is a guest of an event, or a text of it holds the address."""
    wanted = email.lower()
    whole = re.compile(rf"(?<![\w.+-]){re.escape(wanted)}(?![\w-]|\.\w)")
    guests = (str(guest.get("email")).lower() for guest in event.get("attendees") or ())
    return wanted in guests or any(whole.search(text.lower()) for text in _texts(event))


def has_name(event: Mapping[str, Any], name: str) -> bool:
    """Return whether a text of an event, or a guest's name, holds the words of a name side by side."""
    wanted = _words(name)
    orders = {tuple(wanted)}
    if len(wanted) <= MAX_FREE_WORDS:
        orders = set(permutations(wanted))
    names = (str(guest.get("displayName") or "") for guest in event.get("attendees") or ())
    phrases = (phrase for text in (*_texts(event), *names) for phrase in _BREAK.split(text))
    return bool(wanted) and any(_holds(_words(phrase), orders) for phrase in phrases)


def _holds(words: list[str], orders: set[tuple[str, ...]]) -> bool:
    length = len(next(iter(orders)))
    return any(tuple(words[at : at + length]) in orders for at in range(len(words) - length + 1))


def _words(text: str) -> list[str]:
    """Return the words of a text without case and accents: an agent hears no accents."""
    plain = unicodedata.normalize("NFKD", text.replace("ı", "i")).casefold()
    return _WORD.findall("".join(each for each in plain if not unicodedata.combining(each)))


def _texts(event: Mapping[str, Any]) -> Iterator[str]:
    for name in ("summary", "description", "location"):
        if isinstance(text := event.get(name), str):
            yield text[:MAX_CHARS]
    for name, value in private_of(event).items():
        if not name.startswith(OWN_PREFIX):
            yield value
