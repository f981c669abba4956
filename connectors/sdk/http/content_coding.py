"""Decode a body by its Content-Encoding, and find out whether it is whole.

Decoded here rather than by aiohttp, which takes a gzip body that ends in its middle for a whole one, and
leaves x-gzip and stacked codings undecoded.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import httpx

#: What we ask for, and all that we decode.
ACCEPT_ENCODING: Final = "gzip, deflate"
#: Codings on top of one another; more is an attack.
MAX_CODINGS: Final = 3
#: Bytes decoded at a time: how far a cap can be overrun.
PIECE_BYTES: Final = 65_536

#: Registered codings that we did not ask for. Any other word is a server's mistake (`utf-8`, `none`): its body
#: is not encoded.
_FOREIGN: Final = frozenset(
    {"aes128gcm", "br", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip", "zstd"}
)


#: Set in the extensions of an answer whose body is not whole.
_CUT: Final = "connectors_cut"


def mark_cut(response: "httpx.Response") -> None:
    """Mark an answer whose body is not whole."""
    response.extensions[_CUT] = True


def is_cut(response: "httpx.Response") -> bool:
    """Return whether the body of an answer is not whole: too large, or broken off in a refusal."""
    return bool(response.extensions.get(_CUT))


class BadContent(ValueError):
    """The body cannot be decoded, or is not whole."""


class ContentTooLarge(ValueError):
    """More decoded bytes than the cap."""


class _Decoder(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...

    def finish(self) -> None: ...


class BodyDecoder:
    """Decode a body piece by piece.

    Args:
        content_encoding: the header's value; the coding that was applied last stands last.
        max_bytes: of each coding's output.

    Raises:
        BadContent: there are too many codings, or one that was not asked for.
    """

    def __init__(self, content_encoding: str, max_bytes: int) -> None:
        names = [name.strip().lower() for name in content_encoding.split(",")] if content_encoding else []
        if not _FOREIGN.isdisjoint(names) or len(names) > MAX_CODINGS:
            raise BadContent
        self._decoders = [_DECODERS[name]() for name in reversed(names) if name in _DECODERS]
        self._sizes = [0] * (len(self._decoders) + 1)
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode what came.

        Raises:
            BadContent: it is not what the header says.
            ContentTooLarge: it is more than the cap.
        """
        return self._decode(0, data)

    def finish(self) -> None:
        """Check that the body has come to its end.

        Raises:
            BadContent: it breaks off.
        """
        for decoder, size in zip(self._decoders, self._sizes, strict=False):
            if size:  # an empty body is encoded by no one
                decoder.finish()

    def _decode(self, stage: int, data: bytes) -> Iterator[bytes]:
        self._sizes[stage] += len(data)
        excess = self._sizes[stage] - self._max_bytes
        if stage == len(self._decoders):
            yield data[:-excess] if excess > 0 else data
        if excess > 0:
            raise ContentTooLarge
        if stage == len(self._decoders):
            return
        try:
            for piece in self._decoders[stage].feed(data):
                yield from self._decode(stage + 1, piece)
        except zlib.error:
            raise BadContent from None


class _Gzip:
    """RFC 1952: one member or several, each with a checksum and a length that zlib checks."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                # Tape drives pad with zeros; some servers do.
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._member = zlib.decompressobj(wbits=31)
            if piece := self._member.decompress(data, PIECE_BYTES):
                yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def finish(self) -> None:
        if not self._member.eof:
            raise BadContent


class _Deflate:
    """RFC 1950 as the standard says, or raw RFC 1951 as some servers send."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream is None:
                is_wrapped = data[0] & 0x0F == 8  # CM = 8: deflate
                self._stream = zlib.decompressobj(wbits=15 if is_wrapped else -15)
            if self._stream.eof:
                raise BadContent
            if piece := self._stream.decompress(data, PIECE_BYTES):
                yield piece
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail

    def finish(self) -> None:
        if self._stream is None or not self._stream.eof:
            raise BadContent


_DECODERS: Final[Mapping[str, Callable[[], _Decoder]]] = {"gzip": _Gzip, "x-gzip": _Gzip, "deflate": _Deflate}
