"""What the requests of one run may have changed: a fact that only a proof clears.

A request that can have an effect counts from the moment its headers are about to be written. It stops
counting only if the provider proves that it did nothing: a 4xx other than 408, or a status that the call
declares as unprocessed. A 5xx, a cut, a timeout, a redirect that is not followed to its end and a success
prove nothing of the kind, and neither does anything that happens later.
"""

from collections.abc import Callable, Collection
from typing import Final

from connectors.sdk.errors import ConnectorError, Sent, Timeout
from connectors.sdk.steps import CURRENT_STEP, Step

#: Methods that change nothing at the provider (RFC 9110 9.2.1: safe).
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class JobEffects:
    """What one run may have changed so far; every client of the run shares it.

    Belongs to one event loop; the requests of a run may overlap.
    """

    __slots__ = ("_unproven", "has_asked", "has_sent", "may_leave")

    def __init__(self) -> None:
        #: Whether a request that can have an effect may still leave: not once another worker may have looked
        #: whether it happened. Asked right before the first byte.
        self.may_leave: Callable[[], bool] = lambda: True
        #: Whether a request that can have an effect may have left.
        self.has_sent = False
        #: Whether a request was made that changes nothing: its refusal says nothing of an earlier run's effect.
        self.has_asked = False
        self._unproven: set[RequestEffect] = set()

    @property
    def may_have_effect(self) -> bool:
        """Return whether some request may have been processed that no record tells of."""
        return bool(self._unproven)

    def record_step(self, step: Step) -> None:
        """Stop counting what one part sent: a record tells that it happened. Others may run at once."""
        self._unproven = {effect for effect in self._unproven if effect.step is not step}

    def adopt(self, *, has_sent: bool, has_asked: bool, may_have_effect: bool) -> None:
        """Take over what the run did in another process."""
        self.has_sent = self.has_sent or has_sent
        self.has_asked = self.has_asked or has_asked
        if may_have_effect:
            self._unproven.add(RequestEffect(self))

    def track(self) -> "RequestEffect":
        """Return the record of one request that can have an effect."""
        return RequestEffect(self)

    def cover(self, error: ConnectorError, *, is_safe: bool) -> None:
        """Extend `sent` of an error to the whole run rather than one request."""
        if is_safe and error.sent is Sent.UNCERTAIN:
            error.sent = Sent.NO
        if self.may_have_effect and error.sent is Sent.NO:
            error.sent = Sent.UNCERTAIN


class RequestEffect:
    """One request that can have an effect, its redirects included."""

    __slots__ = ("_effects", "step")

    def __init__(self, effects: JobEffects) -> None:
        self._effects = effects
        #: The part of the action that sent it.
        self.step = CURRENT_STEP.get()

    def record_sent(self) -> None:
        """Count the request: its first byte is about to leave.

        Raises:
            Timeout: it comes too late to leave; it was not counted.
        """
        if not self._effects.may_leave():
            raise Timeout("its time was over before it could leave", sent=Sent.NO)
        self._effects.has_sent = True
        self._effects._unproven.add(self)

    def prove_unprocessed(self) -> None:
        """Stop counting the request: the provider did nothing."""
        self._effects._unproven.discard(self)


def is_unprocessed(status: int, unprocessed_statuses: Collection[int] = ()) -> bool:
    """Return whether a status proves that the provider did nothing."""
    return status in unprocessed_statuses or (400 <= status < 500 and status != 408)


def sent_of(status: int, method: str = "POST", unprocessed_statuses: Collection[int] = ()) -> Sent:
    """Return how far a request came that was answered with this error status (400 or more).

    Args:
        method: of the request; a safe one changes nothing, so that its failure leaves nothing open.
        unprocessed_statuses: statuses by which this provider vows that it did nothing.
    """
    if is_unprocessed(status, unprocessed_statuses):
        return Sent.ANSWERED
    return Sent.NO if method in SAFE_METHODS else Sent.UNCERTAIN
