"""A clock that tests set: Debian's libfaketime before a program of theirs."""

from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from worker.dev import debian


@dataclass(frozen=True)
class FakeClock:
    """The wall clock of the programs that run with `environment`; their monotonic clock is the machine's."""

    library: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: int) -> None:
        """Set the clock this far from the machine's."""
        self.file.write_text(f"{seconds:+d}\n")
        self.file.chmod(0o644)


async def fake_clock(directory: Path) -> FakeClock:
    """Make a clock that is right so far."""
    tree = await debian.unpacked(
        "faketime", follow="^libfaketime$", cache=user_data_path("connectors-service")
    )
    (library,) = tree.glob("usr/lib/*/faketime/libfaketimeMT.so.1")
    clock = FakeClock(library, directory / "clock")
    clock.step(0)
    return clock
