"""Read an answer's text by its byte order mark, its header's charset or its XML declaration; never guess."""

import codecs
import re
from email.message import Message
from functools import lru_cache
from typing import Final

#: Any codec of Python's could be named, some of them quadratic (idna, punycode) and some that are no
#: charset at all; these are charsets.
_KNOWN: Final = frozenset(
    {"ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"}
    | {"gb2312", "gbk", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "iso2022_jp", "tis-620"}
    | {"koi8-r", "koi8-u", *(f"iso8859-{number}" for number in range(1, 17))}
    | {f"cp{number}" for number in (437, 850, 866, 874, 932, 949, 950, *range(1250, 1259))}
)
#: A mark wins over what the header says. UTF-32's little-endian one begins with UTF-16's.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_XML_TYPE: Final = re.compile(r"(text|application)/([a-z0-9.+-]+\+)?xml")
_XML_ENCODING: Final = re.compile(
    rb"""<\?xml\s+version\s*=\s*["'][0-9.]+["']\s+encoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]*)["']"""
)
#: How XML begins in UTF-16 without a mark (XML 1.0, appendix F).
_XML_STARTS: Final = ((b"<\0?\0", "utf-16-le"), (b"\0<\0?", "utf-16-be"))


def charset_of(content_type: str) -> str:
    """Return the charset that a header declares if it is a known one, else UTF-8."""
    return _declared(content_type) or "utf-8"


def decode_text(content: bytes, content_type: str) -> str | None:
    """Return a body as text, without its byte order mark; None if it is no text in its charset.

    Args:
        content_type: the header's value. UTF-8 is taken if neither a mark, nor it, nor an XML declaration
            names a charset.
    """
    try:
        return content.decode(_encoding_of(content, content_type.lower()))
    except (UnicodeError, LookupError):
        return None


def _encoding_of(content: bytes, content_type: str) -> str:
    for mark, name in _MARKS:
        if content.startswith(mark):
            return name
    if (declared := _declared(content_type)) is not None:
        return declared
    media_type = content_type.partition(";")[0].strip()
    return (_XML_TYPE.fullmatch(media_type) and _xml_encoding(content)) or "utf-8"


def _xml_encoding(content: bytes) -> str | None:
    for start, name in _XML_STARTS:
        if content.startswith(start):
            return name
    found = _XML_ENCODING.match(content[:256])
    return None if found is None else _known(found[1].decode())


@lru_cache(maxsize=256)
def _declared(content_type: str) -> str | None:
    if "charset" not in content_type.lower():
        return None
    header = Message()
    header["content-type"] = content_type[:500].replace("\r", " ").replace("\n", " ")
    return _known(str(header.get_content_charset()))


def _known(charset: str) -> str | None:
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return None
    return name if name in _KNOWN else None
