"""Where a reply may go: never into a queue of ours, and by default only to who asked."""

import re
from typing import Final

from connectors.sdk.runtime.publisher_rights import Publishers
from worker.broker.topology import Topology

DIRECT: Final = "amq.rabbitmq.reply-to."
#: What a direct reply-to address looks like once the broker has filled it in.
_DIRECT_PATTERN: Final = re.compile(r"amq\.rabbitmq\.reply-to\.[A-Za-z0-9+/=_-]{16,}\.[A-Za-z0-9+/=_-]+")
#: What the broker names by itself, and no other publisher can guess.
_SERVER_NAMED: Final = "amq.gen-"


class ReplyAddresses:
    """The rule for `reply_to`.

    1. never a queue of ours, nor a reserved name
    2. the pattern of the publisher's own rights, or that of CONNECTORS_REPLY_TO_PATTERN
    3. without a pattern, where publishers are mapped to rights: a name that the broker gave out, direct reply-to, and
       `<user_id>.…` for the user whom the broker vouches for
    4. without a pattern and without rights: any other queue

    Through another address a publisher would have the worker write into a queue that it may not write to itself.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        reply_exchange: str = "",
        pattern: str | None = None,
        publishers: Publishers | None = None,
        is_strict: bool = False,
    ) -> None:
        self._topology = topology
        self._has_exchange = bool(reply_exchange)
        self._pattern = None if pattern is None else re.compile(pattern)
        self._is_open = publishers is None and not is_strict
        self._own_patterns = {
            user: re.compile(rights.reply_to)
            for user, rights in (publishers or {}).items()
            if rights.reply_to is not None
        }

    def refusal(self, reply_to: str | None, publisher: str | None) -> str | None:
        """Return why nothing may be published to an address; None if it may.

        Args:
            publisher: the broker user that published the job first; None if the broker vouches for none.
        """
        if reply_to is None:
            return None
        return self._never(reply_to) or self._by_pattern(reply_to, publisher)

    def _never(self, reply_to: str) -> str | None:
        """Return why an address is refused however it is asked for."""
        is_direct = _DIRECT_PATTERN.fullmatch(reply_to) is not None
        if self._topology.owns(reply_to):
            return "reply_to names a queue of this service"
        if reply_to.startswith("amq.") and not (is_direct or reply_to.startswith(_SERVER_NAMED)):
            return "reply_to names a reserved queue, or is no address that RabbitMQ gave out"
        if is_direct and self._has_exchange:
            return "direct reply-to works through the default exchange, and CONNECTORS_REPLY_EXCHANGE is set"
        return None

    def _by_pattern(self, reply_to: str, publisher: str | None) -> str | None:
        if (own := self._own_patterns.get(publisher or "")) is not None:
            return None if own.fullmatch(reply_to) else "reply_to does not match the publisher's own pattern"
        if self._pattern is not None:
            fits = self._pattern.fullmatch(reply_to)
            return None if fits else "reply_to does not match CONNECTORS_REPLY_TO_PATTERN"
        is_given_out = reply_to.startswith((DIRECT, _SERVER_NAMED))
        is_own = bool(publisher) and reply_to.startswith(f"{publisher}.")
        if self._is_open or is_given_out or is_own:
            return None
        return (
            "reply_to is no address of the publisher's own: use a queue that the broker named, direct reply-to, or "
            "with user_id set <user_id>.…; another rule is CONNECTORS_REPLY_TO_PATTERN"
        )
