"""Which charset an answer's text is read as."""

import codecs
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


@lru_cache(maxsize=256)
def charset_of(content_type: str) -> str:
    """Choose the charset to read text as: the declared one where it is known, else UTF-8."""
    if "charset" not in content_type.lower():
        return "utf-8"
    header = Message()
    header["content-type"] = content_type[:500].replace("\r", " ").replace("\n", " ")
    try:
        name = codecs.lookup(str(header.get_content_charset())).name
    except (LookupError, ValueError):
        return "utf-8"
    return name if name in _KNOWN else "utf-8"
