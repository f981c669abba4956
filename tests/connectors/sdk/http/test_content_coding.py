"""Bodies are decoded whole, in whatever pieces they come, or not at all."""

import gzip
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.sdk.http.content_coding import PIECE_BYTES, BadContent, BodyDecoder, ContentTooLarge


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


def _raw(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": zlib.compress,
}
CODINGS = st.lists(st.sampled_from(sorted(PACKERS)), min_size=1, max_size=3)
CUTS = st.lists(st.integers(0, 2000), max_size=4).map(sorted)


def pack(body: bytes, codings: list[str]) -> bytes:
    for name in codings:
        body = PACKERS[name](body)
    return body


def decode(packed: bytes, coding: str, cuts: list[int], max_bytes: int = 10**6) -> bytes:
    decoder = BodyDecoder(coding, max_bytes)
    ends = [0, *(min(cut, len(packed)) for cut in cuts), len(packed)]
    pieces = [packed[start:end] for start, end in pairwise(ends)]
    body = b"".join(piece for part in pieces for piece in decoder.feed(part))
    decoder.finish()
    return body


@given(body=st.binary(max_size=500), codings=CODINGS, cuts=CUTS)
@settings(max_examples=60, deadline=None)
def test_any_stack_of_codings_is_decoded_in_any_pieces(
    body: bytes, codings: list[str], cuts: list[int]
) -> None:
    assert body == decode(pack(body, codings), ", ".join(codings), cuts)


@given(body=st.binary(max_size=500), codings=CODINGS, cuts=CUTS, at=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_body_that_breaks_off_anywhere_is_no_body(
    body: bytes, codings: list[str], cuts: list[int], at: float
) -> None:
    packed = pack(body, codings)
    half = packed[: max(1, min(int(len(packed) * at), len(packed) - 1))]

    with pytest.raises(BadContent):
        decode(half, ", ".join(codings), cuts)


@pytest.mark.parametrize(
    ("packed", "coding"),
    [
        (_raw(b"text"), "deflate"),
        (_gzip(b"te") + _gzip(b"xt"), "gzip"),
        (_gzip(b"text") + bytes(512), "gzip"),
        (b"text", "identity"),
        (b"text", "utf-8"),
        (b"text", ""),
    ],
)
def test_forms_that_servers_send_are_understood(packed: bytes, coding: str) -> None:
    assert b"text" == decode(packed, coding, [1, 2, 3])


def test_an_empty_body_is_encoded_by_no_one() -> None:
    assert b"" == decode(b"", "gzip", [])


@pytest.mark.parametrize(
    ("packed", "coding"),
    [
        (b"plain", "gzip"),
        (b"plain", "deflate"),
        (_gzip(b"a") + b"rest", "gzip"),
        (zlib.compress(b"a") + b"rest", "deflate"),
        (_gzip(b"a")[:-4] + bytes(4), "gzip"),
    ],
)
def test_what_is_encoded_wrongly_is_refused(packed: bytes, coding: str) -> None:
    with pytest.raises(BadContent):
        decode(packed, coding, [])


@pytest.mark.parametrize("codings", [["gzip"], ["gzip", "gzip"]])
def test_a_bomb_is_decoded_no_further_than_its_cap(codings: list[str]) -> None:
    decoder, size_bytes = BodyDecoder(", ".join(codings), 10**6), 0

    with pytest.raises(ContentTooLarge):
        for piece in decoder.feed(pack(bytes(20 * 2**20), codings)):
            size_bytes += len(piece)

    assert size_bytes <= 10**6 + PIECE_BYTES
