"""Phone numbers of every country, compared as numbers."""

import re
import time

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sdk.phone import is_phone_number, same_number, search_terms

#: Country, the number as the network reports it, the number as a person wrote it into a record.
WRITTEN = [
    ("US", "+14155552671", "(415) 555-2671"),
    ("US", "+14155552671", "1-415-555-2671"),
    ("TR", "+905321112233", "0532 111 22 33"),
    ("GB", "+442079460018", "+44 (0)20 7946 0018"),
    ("GB", "+442079460018", "020 7946 0018"),
    ("DE", "+497111234567", "+49 (0711) 1234567"),
    ("DE", "+4930123456", "030/123456"),
    ("FR", "+33612345678", "06 12 34 56 78"),
    ("ES", "+34612345678", "612 34 56 78"),
    ("NL", "+31612345678", "06-12345678"),
    ("BE", "+32470123456", "0470 12 34 56"),
    ("CH", "+41791234567", "079 123 45 67"),
    ("PL", "+48601234567", "601 234 567"),
    ("AU", "+61412345678", "0412 345 678"),
    ("AE", "+971501234567", "050 123 4567"),
    ("IL", "+972501234567", "050-123-4567"),
    ("SA", "+966501234567", "0501234567"),
    ("SA", "+966501234567", "٠٥٠١٢٣٤٥٦٧"),
    ("SE", "+46701234567", "070-123 45 67"),
    ("DK", "+4533123456", "33 12 34 56"),
    ("NO", "+4722123456", "22 12 34 56"),
    ("SG", "+6591234567", "9123 4567"),
    ("HK", "+85223456789", "2345 6789"),
    ("RU", "+79123456789", "8 (912) 345-67-89"),
    ("IT", "+390612345678", "06 1234 5678"),
    ("BR", "+5511912345678", "(11) 91234-5678"),
    ("HU", "+3612345678", "06 1 234 5678"),
    ("MX", "+525512345678", "+52 1 55 1234 5678"),
    ("US", "+14155552671", "(415) 555-2671 Ext: 99"),
    ("US", "+14155550100", "+1 415 555 0100 #12"),
    ("US", "+14155552671", "tel:+1-415-555-2671"),
    ("TR", "+902121112233", "0212 111 22 33 dahili 12"),
    ("US", "+14155552671", "4155550000 / 415-555-2671"),
    ("US", "+14155552671", "415-555-2671, 12"),
]


@pytest.mark.parametrize(("region", "caller", "record"), WRITTEN)
def test_a_number_is_the_same_however_a_person_wrote_it(region: str, caller: str, record: str) -> None:
    assert same_number(caller, record)
    assert same_number(record, caller)
    assert same_number(caller, record, region="US")
    assert same_number(record, record, region=region)
    assert is_phone_number(caller)


@pytest.mark.parametrize("written", ["905321112233", "00905321112233", "01190 532 111 2233"])
def test_a_code_without_a_plus_is_read(written: str) -> None:
    assert same_number(written, "0532 111 22 33")
    assert same_number("+905321112233", written)


def test_ten_digits_without_a_plus_are_not_taken_for_a_code() -> None:
    assert not same_number("6591234567", "9123 4567")


@pytest.mark.parametrize(("region", "caller", "record"), WRITTEN)
def test_a_record_ends_with_one_of_the_terms_searched_for(region: str, caller: str, record: str) -> None:
    terms = search_terms(caller)
    held = phonenumbers.normalize_digits_only(re.split(r"ext|#|,|dahili", record.lower())[0])

    assert any(held.endswith(term) for term in terms), terms


@pytest.mark.parametrize(
    ("bare", "record"),
    [
        ("0532 111 22 33", "+90 532 111 22 33"),
        ("8 912 345 67 89", "+7 912 345-67-89"),
        ("06 1 234 5678", "+36 1 234 5678"),
        ("1 415 555 2671", "415-555-2671"),
        ("532 111 22 33", "0532 1112233"),
        ("5551234", "555-1234"),
    ],
)
def test_a_number_without_a_country_is_searched_for_and_compared(bare: str, record: str) -> None:
    held = phonenumbers.normalize_digits_only(record)

    assert same_number(bare, record, region="US" if "415" in bare else None)
    assert any(held.endswith(term) for term in search_terms(bare))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+90 532 111 22 33", "+90 532 111 22 34"),
        ("1112233", "532 111 22 33"),
        ("5321112233", ""),
        ("+1 415 555 1234", "+44 555 1234"),
        ("+1 415 555 1234", "555-1234"),
        ("+33612345678", "+34 612345678"),
        ("+1 415 555 0100 ext 1", "+1 415 555 0100 ext 2"),
        ("+39 06 1234 5678", "+39 6 1234 5678"),
        ("", ""),
        ("+", "+"),
        ("call me", "call me"),
    ],
)
def test_different_numbers_are_told_apart(one: str, other: str) -> None:
    assert not same_number(one, other)
    assert not same_number(other, one)


@pytest.mark.parametrize("country", ["FR", "DE", "GB", "US", "TR", "IT", "RU", "JP", "IN", "AR"])
@settings(max_examples=15, deadline=None)
@given(last=st.integers(0, 999))
def test_a_national_number_is_the_international_one(country: str, last: int) -> None:
    example = phonenumbers.example_number(country)
    assert example is not None
    number = phonenumbers.parse(
        f"+{example.country_code}{phonenumbers.national_significant_number(example)[:-3]}{last:03}"
    )
    national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    international = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

    assert same_number(international, national)
    assert same_number(international.removeprefix("+"), national, region=country)
    assert any(phonenumbers.normalize_digits_only(national).endswith(t) for t in search_terms(international))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.text(alphabet="+0123456789 ()-/;x#", max_size=80))
def test_no_text_breaks_the_comparison(text: str, digits: str) -> None:
    for one, other in ((text, digits), (digits, digits), (text, text)):
        assert same_number(one, other) == same_number(other, one)
    assert all(term.isdecimal() for term in search_terms(digits))
    is_phone_number(text)


@pytest.mark.parametrize(
    "text", ["", "call me", "12345", "() -", "1" * 50, "0" * 40_000 + "!", "555 1234; DROP", "+"]
)
def test_a_text_that_is_no_number_is_refused_quickly(text: str) -> None:
    is_phone_number("5551234")
    began = time.process_time()

    assert not is_phone_number(text)

    assert 0.05 > time.process_time() - began


def test_thousands_of_other_numbers_are_told_apart_quickly() -> None:
    same_number("+33612345678", "06 12 34 56 78")
    began = time.process_time()

    assert not any(same_number("+33612345678", f"+1 415 555 {number:04}") for number in range(2000))

    assert 0.5 > time.process_time() - began
