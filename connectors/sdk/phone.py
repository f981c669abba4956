"""Phone numbers of every country, compared as numbers, however they are written.

    same_number("+33612345678", "06 12 34 56 78")        # True: the first number names the country of the second
    same_number("0532 111 22 33", "532-111-2233")        # True: neither has a country, the digits are the same
    search_terms("+33612345678")                          # ["612345678", "0612345678", "33612345678", …]

A provider's search finds parts of numbers: search for any of `search_terms`, then keep what `same_number`
confirms. Needs the package phonenumbers, which the extra [worker] brings.
"""

import re
from collections.abc import Iterator
from typing import Final

from phonenumbers import (
    NumberParseException,
    PhoneNumber,
    PhoneNumberFormat,
    format_number,
    is_valid_number,
    national_significant_number,
    normalize_digits_only,
    parse,
    region_code_for_country_code,
)

__all__ = ["is_phone_number", "same_number", "search_terms"]

#: Fewer digits cannot tell one number from another.
MIN_DIGITS: Final = 6
#: Most digits of one number, its international prefix included; more are several numbers in one field.
MAX_DIGITS: Final = 19
#: Most digits of an extension.
MAX_EXTENSION_DIGITS: Final = 7
#: Longest text that is read as a number; a longer one is prose.
MAX_CHARS: Final = 64

#: What people dial before the country's code, instead of a plus.
_INTERNATIONAL_PREFIXES: Final = ("00", "011")
#: What people dial before the national number: most countries 0, Hungary 06, Mexico 01, NANP 1, Russia 8.
_TRUNK_PREFIXES: Final = ("0", "06", "01", "1", "8")
_SEPARATORS: Final = re.compile(r"[/;|]")
_WRITTEN: Final = re.compile(
    rf"(tel:)?[\s\d().,/+\-\u2010-\u2015\uff0b]+((;ext=|ext|extension|dahili|x|#)[.:]?\s?\d{{1,{MAX_EXTENSION_DIGITS}}})?",
    re.IGNORECASE,
)
_LOCAL_EXTENSION: Final = re.compile(r"(dahili)[.:]?\s?", re.IGNORECASE)


def is_phone_number(text: str) -> bool:
    """Return whether a text is a phone number, in any country's way of writing it."""
    text = text.strip()
    if len(text) > MAX_CHARS or not _WRITTEN.fullmatch(text):
        return False
    return MIN_DIGITS <= len(_digits(text)) <= MAX_DIGITS + MAX_EXTENSION_DIGITS


def same_number(a: str, b: str, *, region: str | None = None) -> bool:
    """Return whether two texts are the same phone number.

    A number without a country's code is read in the country of the other one, and in `region`. A number with an
    extension is the same as without one; two different extensions are two numbers.

    Args:
        region: the country of numbers without a code, as ISO 3166 has it (`FR`).
    """
    # Only numbers with the same ending are read in each country, which takes half a millisecond.
    pairs = [
        (one, other)
        for one in _pieces(a)
        for other in _pieces(b)
        if _ending(one) is not None and _ending(one) == _ending(other)
    ]
    regions = {found for pair in pairs for piece in pair for found in _regions(piece)}
    if region is not None:
        regions.add(region.upper())
    return any(_match(one, other, regions) for one, other in pairs)


def search_terms(text: str, *, region: str | None = None) -> list[str]:
    """Return the runs of digits as which a provider may hold this number, the national number first.

    Args:
        region: the country of a number without a code, as ISO 3166 has it (`FR`).
    """
    regions = _regions(text) or ({region.upper()} if region else set())
    terms: list[str] = []
    for number in _parsed(text, regions):
        national, local = _national(number), _digits(_format_national(number))
        terms += [national, local, f"{number.country_code}{national}", f"00{number.country_code}{national}"]
    digits = _digits(_without_extension(text))
    if not terms:
        stripped = (
            digits[len(prefix) :].lstrip("0") for prefix in _TRUNK_PREFIXES if digits.startswith(prefix)
        )
        terms += [*(each for each in stripped if len(each) > MIN_DIGITS), f"0{digits.lstrip('0')}"]
    terms.append(digits)
    return [term for term in dict.fromkeys(terms) if len(term) >= MIN_DIGITS]


def _match(a: str, b: str, regions: set[str]) -> bool:
    extensions = {_extension(a), _extension(b)} - {None}
    return len(extensions) < 2 and not _readings(a, regions).isdisjoint(_readings(b, regions))


def _ending(text: str) -> str | None:
    """Return the last digits of a number, which no prefix changes; None if it has too few."""
    ending = _digits(_without_extension(text))[-MIN_DIGITS:]
    return ending if len(ending) == MIN_DIGITS else None


def _readings(text: str, regions: set[str]) -> set[str]:
    """Return the international numbers that a text may mean; without a code, its digits too."""
    readings = {f"+{number.country_code}{_national(number)}" for number in _parsed(text, regions)}
    if not _is_international(text):
        readings.add(_digits(_without_extension(text)).lstrip("0"))
    return readings


def _regions(text: str) -> set[str]:
    """Return the country that a text names by its code."""
    return {
        region
        for number in _with_code(text)
        if len(region := region_code_for_country_code(number.country_code or 0)) == 2
    } - {"ZZ"}


def _parsed(text: str, regions: set[str]) -> Iterator[PhoneNumber]:
    yield from _with_code(text)
    if not _is_international(text):
        for region in sorted(regions):
            if (number := _parse(text, region)) is not None:
                yield number


def _with_code(text: str) -> Iterator[PhoneNumber]:
    """Read a text as a number with its country's code, with or without the plus."""
    if _is_international(text):
        if (number := _parse(text, None)) is not None:
            yield number
        return
    digits = _digits(_without_extension(text))
    prefix = next((each for each in _INTERNATIONAL_PREFIXES if digits.startswith(each)), "")
    # Without a plus it is a guess: believed only if such a number can exist.
    number = _parse(f"+{digits.removeprefix(prefix)}", None)
    if number is not None and len(digits) > 10 and is_valid_number(number):
        yield number


def _parse(text: str, region: str | None) -> PhoneNumber | None:
    try:
        return parse(_LOCAL_EXTENSION.sub("ext. ", text), region)
    except NumberParseException:
        return None


def _national(number: PhoneNumber) -> str:
    national = national_significant_number(number)
    # Mexico had a 1 before mobile numbers until 2019, which many records and WhatsApp still write.
    if number.country_code == 52 and len(national) == 11:
        return national.removeprefix("1")
    return national


def _format_national(number: PhoneNumber) -> str:
    bare = PhoneNumber()
    bare.merge_from(number)
    bare.extension = None
    return format_number(bare, PhoneNumberFormat.NATIONAL)


def _extension(text: str) -> str | None:
    # Any country will do: the extension is read before the country matters.
    number = _parse(text, None if _is_international(text) else "US")
    return None if number is None or not number.extension else number.extension.lstrip("0")


def _without_extension(text: str) -> str:
    return re.split(r"ext|dahili|x|[#,;]", text, maxsplit=1, flags=re.IGNORECASE)[0]


def _pieces(text: str) -> list[str]:
    """Split a field that holds several numbers; a slash may also be part of one number, as in Germany."""
    text = text[: 4 * MAX_CHARS]
    if len(_digits(_without_extension(text))) <= MAX_DIGITS:
        return [text]
    return _SEPARATORS.split(text)


def _is_international(text: str) -> bool:
    return text.strip().removeprefix("tel:").lstrip(" (").startswith(("+", "\uff0b"))


def _digits(text: str) -> str:
    return normalize_digits_only(text)
