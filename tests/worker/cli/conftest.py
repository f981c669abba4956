"""Commands that are run in this process."""

import logging
from collections.abc import Iterator

import pytest

from tests.conftest import PLUGIN


@pytest.fixture(autouse=True)
def asyncio_log() -> Iterator[None]:
    """A command silences asyncio's log for the rest of its process, which here goes on."""
    log = logging.getLogger("asyncio")
    before = log.level
    yield
    log.setLevel(before)


@pytest.fixture(autouse=True)
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTORS_ENABLED", "dummy,http,effects")
    monkeypatch.syspath_prepend(str(PLUGIN))
