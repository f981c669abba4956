"""Telephone numbers as people write them."""

import re
from typing import Final

#: Fewer digits than this are no number that could be told from another.
MIN_DIGITS: Final = 6
#: Digits of a number without its country: what is left to compare where one side lacks the country.
NATIONAL_DIGITS: Final = 10
_WRITTEN = re.compile(r"[0-9 ()./+\-\u00a0\u2010-\u2015]{1,40}((ext|x)\.? ?[0-9]{1,6})?", re.IGNORECASE)
_EXTENSION = re.compile(r"(ext|x)\.? ?[0-9]+$", re.IGNORECASE)


def check_phone(text: str) -> str:
    """Check that it is a telephone number, however it is written.

    Raises:
        ValueError: it is none.
    """
    if not _WRITTEN.fullmatch(text) or len(digits_of(text)) < MIN_DIGITS:
        raise ValueError("must be a telephone number, such as +90 (532) 111 22 33")
    return text


def digits_of(text: str) -> str:
    """Keep the digits alone: no punctuation, no extension, no 00 in front."""
    digits = "".join(char for char in _EXTENSION.sub("", text.strip()) if char in "0123456789")
    return digits[2:] if digits.startswith("00") else digits


def terms_of(text: str) -> list[str]:
    """Give the ways in which the org may have the number, to search for any of them.

    With or without the country's code, and the 0 before an area's.
    """
    digits = digits_of(text)
    bare = digits.lstrip("0")
    national = bare[-NATIONAL_DIGITS:]
    return list(dict.fromkeys([digits, bare, national, f"0{national}"]))


def is_same(one: str, other: str) -> bool:
    """Whether two written numbers are one, where either may lack the country's code."""
    here, there = (digits_of(each).lstrip("0") for each in (one, other))
    shorter, longer = sorted((here, there), key=len)
    if len(shorter) < MIN_DIGITS:
        return False
    return longer == shorter or (len(shorter) >= NATIONAL_DIGITS - 1 and longer.endswith(shorter))
