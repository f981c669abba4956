"""Masking of secrets in what people read: by value, by name, by shape.

By value finds only registered secrets (`Redactor.register`) of at least `MIN_SECRET_LENGTH` characters: a
shorter one would mask half of every line. By name and by shape find secrets that were not registered.
"""

import base64
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus

#: Replaces a secret.
MASK = "***"
#: Characters. Shorter values are not masked by value: they would be found everywhere.
MIN_SECRET_LENGTH = 8

# Each form is looked for by its first four windows, and a text only at every fourth place:
# 4 - 1 + 5 = 8, so a form of MIN_SECRET_LENGTH cannot slip between two places.
_WINDOW = 5
_STRIDE = 4

# Texts known to be clean: names of connectors, tenants, events and codes repeat in most lines.
_REMEMBERED_TEXTS = 4096
_REMEMBERED_LENGTH = 64


class Redactor:
    """Mask registered secrets wherever and however encoded they turn up in a text.

    The cost of `mask` depends on the text alone: 32 µs for 300 letters, with one secret as with 4,096.
    (One regular expression of them all was measured at 3.3 ms, and 0.5 s to rebuild, for 1,000 secrets.)
    Any thread may call any method.

    Args:
        max_secrets: the oldest is forgotten beyond this many; one takes about 3 KB.
    """

    def __init__(self, *, max_secrets: int = 4096) -> None:
        self._max_secrets = max_secrets
        self._lock = threading.Lock()
        self._forms: dict[str, frozenset[str]] = {}  # by secret, the latest registered last
        self._owners: Counter[str] = Counter()  # how many secrets have this form
        self._windows: dict[str, tuple[str, ...]] = {}
        self._clean: set[str] = set()

    def register(self, secret: str) -> None:
        """Mask this value from now on: raw, URL-encoded, base64, inside base64, JSON-escaped."""
        secret = secret.strip()
        if len(secret) < MIN_SECRET_LENGTH:
            return
        with self._lock:
            if secret in self._forms:
                self._forms[secret] = self._forms.pop(secret)
                return
            self._forms[secret] = frozenset(_forms(secret))
            for form in self._forms[secret]:
                self._add(form)
            if len(self._forms) > self._max_secrets:
                for form in self._forms.pop(next(iter(self._forms))):
                    self._remove(form)
            # Replaced, not cleared: a `mask` that began before this secret adds to the old set.
            self._clean = set()

    def mask(self, text: str) -> str:
        """Return the text without registered secrets and without what has the shape of one."""
        clean = self._clean
        if text in clean:
            return text
        masked = self._mask_registered(text) if self._windows and len(text) >= MIN_SECRET_LENGTH else text
        masked = mask_shapes(masked)
        if masked == text and len(text) <= _REMEMBERED_LENGTH:
            if len(clean) >= _REMEMBERED_TEXTS:
                clean.clear()
            clean.add(text)
        return masked

    def __repr__(self) -> str:
        return f"Redactor({len(self._forms)} secrets)"

    def _mask_registered(self, text: str) -> str:
        windows = self._windows
        places = range(0, len(text) - _WINDOW + 1, _STRIDE)
        hits = [seen for place in places if (seen := text[place : place + _WINDOW]) in windows]
        if not hits:
            return text
        forms = {form for hit in hits for form in windows.get(hit, ())}
        # The longest first: where one secret holds another, nothing of the outer one may stay.
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, MASK)
        return text

    def _add(self, form: str) -> None:
        self._owners[form] += 1
        if self._owners[form] == 1:
            for window in _windows(form):
                self._windows[window] = (*self._windows.get(window, ()), form)

    def _remove(self, form: str) -> None:
        self._owners[form] -= 1
        if self._owners[form]:
            return
        del self._owners[form]
        for window in _windows(form):
            rest = tuple(other for other in self._windows[window] if other != form)
            if rest:
                self._windows[window] = rest
            else:
                del self._windows[window]


@lru_cache(maxsize=2048)
def is_secret_name(name: str) -> bool:
    """Return whether a field of this name holds a secret: `client_secret`, `X-Vault-Token`, `privateKey`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name[:128]).replace("-", "_").lower()
    return _SECRET_NAME.search(words) is not None


def mask_shapes(text: str) -> str:
    """Mask what looks like a secret: passwords in URLs, bearer tokens, `token=…`, private keys."""
    if _SUSPECT.search(text) is None:
        return text
    lowered = text.lower()
    for needles, pattern, replacement in _SHAPES:
        for needle in needles:
            # The plain search first: it costs nothing beside the pattern.
            if needle in lowered:
                text = pattern.sub(replacement, text)
                break
    return text


# Anchored at the end: `token` and `access_token` hold one, `token_uri` and `tokens_used` do not.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:password|passwd|pwd|passphrase|secrets?|secret_id|token|authorization|cookie|assertion|jwt"
    r"|signature|session_id|sid|credentials_json|(?:api|private|access|signing|encryption)_?key)$"
)

# Nearly every text of ours has none of these, and every shape below has one.
_SUSPECT = re.compile(r"[=:.]|-----|[eE][aA][rR][eE][rR]")

# Each pattern is linear in the text: every repetition is bounded or stops at a letter it cannot pass.
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (
        ("private key",),
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.S
        ),
        MASK,
    ),
    (("://",), re.compile(r"(://[^\s/:@?#]*:)[^\s/?#]+@"), rf"\g<1>{MASK}@"),
    (
        ("authorization",),
        re.compile(
            r"(authorization[\"']?\s{0,3}[:=]\s{0,3}(?:b?[\"'])?)(?:\w{1,20}\s{1,3})?[^\s\"',;]+",
            re.IGNORECASE,
        ),
        rf"\g<1>{MASK}",
    ),
    (("bearer",), re.compile(r"\b(bearer\s{1,3})[\w.~+/=-]{8,}", re.IGNORECASE), rf"\g<1>{MASK}"),
    (
        ("passw", "passphrase", "secret", "token", "key", "assertion", "signature"),
        re.compile(
            r"((?:password|passwd|passphrase|secret|secret_id|token|(?:api|private|access)[_-]?key|assertion"
            r"|signature)(?:[\"']\s{0,3}:\s{0,3}|=)(?:b?[\"'])?)[^\s\"'&,;)}\]]+",
            re.IGNORECASE,
        ),
        rf"\g<1>{MASK}",
    ),
    (("key=", "sid=", "code="), re.compile(r"([?&](?:key|sid|code)=)[^&\s\"']+"), rf"\g<1>{MASK}"),
    (("hvs.", "hvb.", "hvr."), re.compile(r"\bhv[sbr]\.[\w-]{8,}"), MASK),  # Vault's tokens
    (("ya29.",), re.compile(r"\bya29\.[\w-]{8,}"), MASK),  # Google's
    (("eyj",), re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]+)?"), MASK),  # a JWT
    # pydantic repeats its input: a job's parameters, which no log may hold.
    (("input_value=",), re.compile(r"(input_value=).{0,300}?(?=, input_type=)", re.S), rf"\g<1>{MASK}"),
)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    for encoded in (
        quote(secret, safe="", errors="surrogatepass"),
        quote(secret, errors="surrogatepass"),
        quote_plus(secret, errors="surrogatepass"),
    ):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), encoded)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield from _base64_forms(secret.encode("utf-8", "surrogatepass"))


def _base64_forms(secret: bytes) -> Iterator[str]:
    # A secret inside a longer text (`user:password`) has three looks, by where it starts among the
    # groups of three bytes. Letters that also depend on its neighbours are left off at both ends.
    for offset in range(3):
        padded = b"\0" * offset + secret
        start = (offset * 8 + 5) // 6
        end = len(padded) * 8 // 6
        yield base64.b64encode(padded).decode()[start:end]
        yield base64.urlsafe_b64encode(padded).decode()[start:end]


def _windows(form: str) -> set[str]:
    return {form[place : place + _WINDOW] for place in range(_STRIDE)}
