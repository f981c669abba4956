"""Sealed bytes: they open with their key, at their place, unchanged, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.credentials.sealing import SealBroken, new_key, open_sealed, seal

KEY = new_key()


@given(st.binary(max_size=200), st.lists(st.text(max_size=10), max_size=4))
def test_what_was_sealed_opens_again(plain: bytes, place: list[str]) -> None:
    assert plain == open_sealed(KEY, seal(KEY, plain, *place), *place)


def test_every_flipped_byte_is_refused() -> None:
    sealed = seal(KEY, b"document", "place")

    for index in range(len(sealed)):
        changed = sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :]
        with pytest.raises(SealBroken):
            open_sealed(KEY, changed, "place")


@given(st.integers(0, 200))
def test_what_is_cut_off_is_refused(length: int) -> None:
    sealed = seal(KEY, b"document", "place")

    with pytest.raises(SealBroken):
        open_sealed(KEY, sealed[: min(length, len(sealed) - 1)], "place")


@given(
    st.lists(st.text("ab/", max_size=4), min_size=1, max_size=4),
    st.lists(st.text("ab/", max_size=4), max_size=4),
)
def test_another_place_is_refused_however_alike(place: list[str], other: list[str]) -> None:
    sealed = seal(KEY, b"document", *place)

    if place != other:
        with pytest.raises(SealBroken):
            open_sealed(KEY, sealed, *other)


def test_another_key_is_refused_and_no_two_seals_are_alike() -> None:
    assert seal(KEY, b"document", "place") != seal(KEY, b"document", "place")
    with pytest.raises(SealBroken):
        open_sealed(new_key(), seal(KEY, b"document", "place"), "place")
