"""Refresh tokens that a provider exchanges for newer ones: known by any of their line, kept for a restart."""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

#: Tenant, connector, credential.
Account = tuple[str, str, str]

#: Tokens remembered; the one unused for longest is forgotten first.
MAX_TOKENS: Final = 10_000
#: Older tokens of one line that a stored secret may still hold: it is written after each exchange, so
#: more than one are there only if the vault was unavailable.
MAX_OLDER: Final = 16


@dataclass(frozen=True, slots=True)
class Rotation:
    """One exchange: what is stored is to become the newest, if it still is one of the older."""

    account: Account
    #: The secret's field.
    field: str
    older: tuple[SecretStr, ...]
    newest: SecretStr


#: Stores a rotation for the next start; never raises, and ends in a few seconds.
Keep = Callable[[Rotation], Awaitable[None]]


async def forget_at_exit(rotation: Rotation) -> None:
    """Keep nothing: there is no vault."""


class Rotations:
    """The lines of refresh tokens of this process.

    A secret that was read before an exchange holds an older token of its line, one read afterwards
    the newest: both are the same account, use the newest, and share one access token.
    """

    def __init__(
        self,
        keep: Keep = forget_at_exit,
        *,
        max_tokens: int = MAX_TOKENS,
        on_secret: Callable[[str], None] | None = None,
    ) -> None:
        self._keep = keep
        self._on_secret = on_secret
        self._max_tokens = max_tokens
        #: By account and a token's digest: its line, the oldest first.
        self._lines: OrderedDict[tuple[Account, str], list[SecretStr]] = OrderedDict()

    def newest(self, account: Account, token: SecretStr) -> SecretStr:
        """Return the token that this one was exchanged for in the end; itself if it never was."""
        line = self._lines.get((account, digest_of(token)))
        return token if line is None else line[-1]

    def line_of(self, account: Account, token: SecretStr) -> str:
        """Return the name of a token's line: the same for all that followed one another."""
        line = self._lines.get((account, digest_of(token)))
        return digest_of(token if line is None else line[0])

    async def rotate(self, account: Account, field: str, used: SecretStr, newest: SecretStr) -> None:
        """Use what a provider gave for a token from now on, and have it kept."""
        if self._on_secret is not None:
            self._on_secret(newest.get_secret_value())
        line = self._lines.get((account, digest_of(used))) or [used]
        line.append(newest)
        if len(line) > MAX_OLDER:
            # The first names the line; it stays.
            self._lines.pop((account, digest_of(line.pop(1))), None)
        for token in line:
            self._lines[account, digest_of(token)] = line
            self._lines.move_to_end((account, digest_of(token)))
        while len(self._lines) > self._max_tokens:
            self._lines.popitem(last=False)
        await self._keep(Rotation(account, field, tuple(line[:-1]), newest))

    def forget(self, account: Account, token: SecretStr) -> None:
        """Forget a line whose newest token the provider refuses: what is stored is believed again."""
        for each in self._lines.get((account, digest_of(token)), [])[:]:
            self._lines.pop((account, digest_of(each)), None)


def digest_of(token: SecretStr) -> str:
    """Return a key made of a secret."""
    return hashlib.sha256(token.get_secret_value().encode("utf-8", "surrogatepass")).hexdigest()
