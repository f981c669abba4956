"""Telephone numbers as people write them."""

import time

import pytest

from connectors.salesforce.phone import check_phone, digits_of, is_same, terms_of


@pytest.mark.parametrize(
    ("written", "held"),
    [
        ("+90 532 111 22 33", "(532) 111 22 33"),
        ("0532 111 22 33", "+90 532 111 22 33"),
        ("0090-532-111-22-33", "5321112233"),
        ("532.111.2233", "0532 1112233"),
        ("(415) 555-1234 ext. 7", "+1 415 555 1234"),
        ("5551234", "555-1234"),
    ],
)
def test_one_number_is_known_however_it_is_written(written: str, held: str) -> None:
    assert is_same(written, held)
    assert any(digits_of(held).endswith(term) or term == digits_of(held) for term in terms_of(written))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+90 532 111 22 33", "+90 532 111 22 34"),
        ("1112233", "532 111 22 33"),
        ("5321112233", ""),
        ("+1 415 555 1234", "+44 555 1234"),
    ],
)
def test_other_numbers_are_told_apart(one: str, other: str) -> None:
    assert not is_same(one, other)


@pytest.mark.parametrize(
    "text", ["", "call me", "12345", "() -", "1" * 50, "0" * 40_000 + "!", "555 1234; DROP"]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    began = time.perf_counter()

    with pytest.raises(ValueError, match="telephone"):
        check_phone(text)

    assert 0.05 > time.perf_counter() - began
