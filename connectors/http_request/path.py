"""A path as a job names it: encoded once, and never a way up or to another host."""

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
#: Unescaped characters of a path, `%` of a valid escape included.
PATH_SAFE: Final = "/:@!$&'()*+,;=-._~%"


def encode_path(path: str) -> str:
    """Percent-encode a path, leaving escapes that are there as they are."""
    if path and not path.startswith("/"):
        raise ValueError("must begin with /; the host is the credential's")
    if path.startswith("//"):
        raise ValueError("must begin with one /; the host is the credential's")
    if "?" in path or "#" in path:
        raise ValueError("has a ? or #; give the query as `query`, or write %3F and %23")
    if path.count("%") != len(_ESCAPE.findall(path)):
        raise ValueError("has a % that begins no escape; write %25")
    encoded = quote(path, safe=PATH_SAFE)
    check_path(encoded)
    return encoded


def check_path(path: str) -> None:
    """Refuse what a server might read as another path, however often it decodes."""
    decoded = path.encode()
    for _ in range(8):
        if any(byte < 0x20 or byte == 0x7F for byte in decoded) or b"\\" in decoded:
            raise ValueError("has a control character or a backslash")
        # Some servers drop what follows a semicolon: `..;` is `..` to them.
        if any(segment.partition(b";")[0] in {b".", b".."} for segment in decoded.split(b"/")):
            raise ValueError("has a . or .. segment")
        decoded, before = unquote_to_bytes(decoded), decoded
        if decoded == before:
            return
    raise ValueError("is encoded too many times over")
