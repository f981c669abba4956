"""What a connector's process reports beside its calls: log lines, metrics, secrets to mask, tokens to keep.

The process is not trusted with labels, levels and accounts: only known ones are taken.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from connectors.sdk.errors import ConnectorError, Sent
from connectors.sdk.http.address import Reach
from connectors.sdk.http.policy import OnCall, OnQuota
from connectors.sdk.http.refresh_tokens import Account, Keep, Rotation
from connectors.sdk.isolation.frames import Frame

#: Accounts whose refresh tokens a process may renew: those whose secrets it was handed.
MAX_ACCOUNTS: Final = 10_000

_REACHES: Final = frozenset(each.value for each in Reach)
#: How a request may have ended; see `connectors.sdk.http.policy.OnCall`.
_OUTCOMES: Final = frozenset(
    {
        *(f"{digit}xx" for digit in range(1, 6)),
        *("timeout", "unreachable", "cut", "oversize", "refused", "held_back", "cancelled"),
    }
)
#: Levels of the standard library.
_LEVELS: Final = frozenset({logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL})
_LOG: Final = logging.getLogger("connectors")


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who is told what a process reports; nothing blocks but `keep`, which is awaited."""

    on_call: OnCall
    on_quota: OnQuota
    on_secret: Callable[[str], None]
    keep: Keep


class Reports:
    """Takes the reports of one process.

    Args:
        fields: what each log line of the process carries.
    """

    def __init__(self, callbacks: Callbacks, fields: Callable[[], Mapping[str, Any]]) -> None:
        self._callbacks = callbacks
        self._fields = fields
        self._accounts: dict[Account, None] = {}
        #: Whether the block of its loop was logged; reset when the loop turns again.
        self.is_block_logged = False

    def add_account(self, account: Account) -> None:
        """Take note that the process has the secret of an account now."""
        self._accounts[account] = None
        if len(self._accounts) > MAX_ACCOUNTS:
            del self._accounts[next(iter(self._accounts))]

    def log(self, level: int, event: str, **fields: Any) -> None:
        """Log a line about the process."""
        _LOG.log(level, event, extra={"fields": {**fields, **self._fields()}})

    def take(self, frame: Frame) -> None:
        """Take a report; what is none is dropped."""
        match frame:
            case ["log", int(level), str(name), str(event), dict(fields)] if level in _LEVELS:
                self.log(level, event, **{**fields, "logger": name})
            case ["http", str(reach), str(outcome), float(seconds)]:
                if reach in _REACHES and outcome in _OUTCOMES and seconds >= 0:
                    self._callbacks.on_call(reach, outcome, seconds)
            case ["quota", [str(tenant), str(connector), str(credential)], int(used), int(total)]:
                if (account := (tenant, connector, credential)) in self._accounts:
                    self._callbacks.on_quota(account, used, total)
            case ["secret", str(secret)]:
                self._callbacks.on_secret(secret)
            case ["blocked", float(blocked_s), str(task), str(stack)] if not self.is_block_logged:
                self.is_block_logged = True
                event = "event loop of a connector's process blocked"
                self.log(logging.ERROR, event, blocked_s=round(blocked_s, 1), task=task, stack=stack)

    async def keep(self, fields: Mapping[str, Any]) -> None:
        """Keep a refresh token that was exchanged in the process.

        Raises:
            ConnectorError: the process never had the secret of that account.
        """
        match fields:
            case {
                "account": [str(tenant), str(connector), str(credential)],
                "field": str(name),
                "older": list(older),
                "newest": str(newest),
            } if (account := (tenant, connector, credential)) in self._accounts:
                tokens = tuple(SecretStr(str(token)) for token in older)
                await self._callbacks.keep(Rotation(account, name, tokens, SecretStr(newest)))
            case _:
                raise ConnectorError("this process may not write that secret", sent=Sent.UNCERTAIN)
