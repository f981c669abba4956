"""Settings that a start must refuse, each in one line that names it."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker.broker.topology import DEAD_TTL_MS
from worker.settings import DEAD_LETTER_TTL_HOURS, SettingError, load_settings


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `.env` of this machine counts."""
    monkeypatch.chdir(tmp_path)


def test_a_ledger_that_forgets_before_its_dead_letters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTORS_LEDGER_TTL_HOURS", "335")

    with pytest.raises(SettingError, match="CONNECTORS_LEDGER_TTL_HOURS='335': must be 336 at least"):
        load_settings()

    monkeypatch.setenv("CONNECTORS_LEDGER_TTL_HOURS", "336")
    assert 336 == load_settings().ledger_ttl_hours
    assert DEAD_TTL_MS == DEAD_LETTER_TTL_HOURS * 3_600_000


def test_a_user_without_a_home_is_asked_for_a_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_home(monkeypatch)

    with pytest.raises(SettingError, match="CONNECTORS_DATA_DIR"):
        _ = load_settings().ledger_url

    monkeypatch.setenv("CONNECTORS_DATABASE_URL", "sqlite:////srv/ledger.db")
    assert "sqlite:////srv/ledger.db" == load_settings().ledger_url


def test_a_tilde_without_a_home_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_home(monkeypatch)
    monkeypatch.setenv("CONNECTORS_DATABASE_URL", "sqlite:///~/ledger.db")

    with pytest.raises(SettingError, match="CONNECTORS_DATABASE_URL: there is no home directory"):
        load_settings()


def _forget_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a container's user whom its passwd does not know."""
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", str)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hun/ter2@localhost/db", "percent-encoded"),
        ("postgresql://u:hun#ter2@localhost/db", "percent-encoded"),
        ("postgresql://u:p@localhost/db?sslcert=x", "sslcert"),
        ("sqlite:///:memory:", "name a file"),
    ],
)
def test_a_worker_ends_with_78_and_one_line(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTORS_DATABASE_URL", url)

    ended = subprocess.run(
        [sys.executable, "-m", "worker", "worker"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (78, 1) == (ended.returncode, len(ended.stderr.splitlines())), ended.stderr
    assert said in ended.stderr
    assert "ter2" not in ended.stderr
