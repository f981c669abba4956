"""What every contestant is put through. It runs in the peers' environment, too: the standard library alone."""

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True)
class Plan:
    """The bookings, the provider's faults and the callers' patience. Times in seconds."""

    seed: int
    bookings: int = 300
    per_s: float = 15.0
    #: Of the requests that book, how many lose their answer, are slow, and are slower than a caller waits.
    loses: float = 0.3
    slow: float = 0.1
    slower: float = 0.03
    #: When a slow answer comes; the booking is made half-way.
    slow_s: float = 3.0
    slower_s: float = 8.0
    #: For how long a caller holds the line.
    line_s: float = 5.0
    #: The timeout of a request to the provider, for every contestant.
    timeout_s: float = 10.0
    #: Whether a caller of ours that heard `unknown` sends the same job once more.
    asks_again: bool = True
    #: How long the provider must have heard nothing before the bookings are counted.
    quiet_s: float = 8.0

    @property
    def references(self) -> list[str]:
        """The bookings' references, which callers and provider share."""
        return [f"booking-{number:03}" for number in range(self.bookings)]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))
