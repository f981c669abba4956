"""The settings: read from the environment and `.env`, refused in one line, masked when shown."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.sdk import Connector, UrlSetting
from worker.broker.topology import DEAD_TTL_MS
from worker.provider_http import http_policy
from worker.settings import (
    DEAD_LETTER_TTL_HOURS,
    SettingError,
    Settings,
    data_directory,
    load_settings,
    masked,
    unknown_names,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No `.env` and no variable of this machine is read."""
    monkeypatch.chdir(tmp_path)
    for name in ("RABBITMQ_URL", "VAULT_ADDR", "VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CONNECTORS_CONCURRENCY", "many", "CONNECTORS_CONCURRENCY='many'"),
        ("CONNECTORS_CONCURRENCY", "0", "CONNECTORS_CONCURRENCY"),
        ("CONNECTORS_RABBITMQ_URL", "http://x", "CONNECTORS_RABBITMQ_URL"),
        ("CONNECTORS_RABBITMQ_URL", "amqp://u:hunter2@broker.example/", "CONNECTORS_PLAINTEXT_HOSTS"),
        ("CONNECTORS_RABBITMQ_URL", "amqps://u:hunter2@b.example/?no_verify_ssl=1", "CONNECTORS_CA_FILE"),
        ("CONNECTORS_ENABLED", " , ", "CONNECTORS_ENABLED"),
        ("CONNECTORS_PUBLISHERS", '{"agent": ["../x"]}', "CONNECTORS_PUBLISHERS"),
        ("CONNECTORS_REPLY_TO_PATTERN", "(", "CONNECTORS_REPLY_TO_PATTERN"),
        ("CONNECTORS_VAULT_URL", "https://vault.example", "CONNECTORS_VAULT_ROLE_ID"),
        ("CONNECTORS_CA_FILE", "/nowhere/ca.pem", "cannot be read"),
        ("CONNECTORS_LOG_LEVEL", "loud", "CONNECTORS_LOG_LEVEL"),
        ("CONNECTORS_RABBITMQ_URL", "amqp://u:hunter2@localhost:99999/", "CONNECTORS_RABBITMQ_URL"),
        ("CONNECTORS_VAULT_URL", "ftp://u:hunter2@vault.example", "ftp://u:******@vault.example"),
        ("CONNECTORS_DATABASE_URL", "postgresql://u:hunter2@localhost:99999/x", "CONNECTORS_DATABASE_URL"),
        ("CONNECTORS_DRAIN_SECONDS", "inf", "CONNECTORS_DRAIN_SECONDS"),
        ("CONNECTORS_CA_FILE", __file__, "no certificate"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it_without_secrets(
    environment: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    environment.setenv(name, value)

    with pytest.raises(SettingError) as caught:
        load_settings()

    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert 1 == len(str(caught.value).splitlines())


def test_the_older_variables_and_a_dotenv_are_read(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CONNECTORS_CONCURRENCY=7\n")
    environment.setenv("RABBITMQ_URL", "amqp://a:b@localhost/")
    environment.setenv("VAULT_TOKEN", "ambient")

    read = load_settings()

    assert (7, "a", None) == (read.concurrency, read.broker_user, read.vault_token)


def test_a_connector_gets_its_own_settings_and_nothing_else(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CONNECTORS_GOOGLE_CALENDAR_API_URL", "http://127.0.0.1:8080/calendar/v3/")
    environment.setenv("CONNECTORS_EGRESS_ALLOW", "localhost")
    environment.setenv("CONNECTORS_VAULT_TOKEN", "hunter2")

    read = load_settings()
    calendar = Connector("google_calendar", settings=[UrlSetting("api_url", "https://www.googleapis.com")])
    sly = Connector("vault", settings=[UrlSetting("token", "")])

    assert {"api_url": "http://127.0.0.1:8080/calendar/v3"} == read.of_connector(calendar)
    assert {} == read.of_connector(sly) == read.of_connector(Connector("dummy"))


@pytest.mark.parametrize("value", ["http://calendar.example/v3", "calendar.example"])
def test_a_wrong_setting_of_a_connector_is_named(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("CONNECTORS_CALENDAR_API_URL", value)
    calendar = Connector("calendar", settings=[UrlSetting("api_url", "https://www.googleapis.com")])

    with pytest.raises(SettingError, match=r"^CONNECTORS_CALENDAR_API_URL='"):
        load_settings().of_connector(calendar)


def test_a_misspelt_setting_of_a_connector_is_found() -> None:
    calendar = Connector("calendar", settings=[UrlSetting("api_url", "https://www.googleapis.com")])
    environment = dict.fromkeys(["CONNECTORS_CALENDAR_API_URL", "CONNECTORS_CALENDAR_APIURL"], "x")

    assert ["CONNECTORS_CALENDAR_APIURL"] == unknown_names([calendar], environment=environment)
    assert [] == unknown_names(installed=["calendar"], environment=environment)


def test_secrets_are_masked_where_settings_are_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CONNECTORS_RABBITMQ_URL", "amqp://u:hunter2@localhost/")
    environment.setenv("CONNECTORS_DATABASE_URL", "postgresql://u:hun@ter3@localhost/x?sslmode=require")
    environment.setenv("CONNECTORS_VAULT_TOKEN", "hunter4")
    environment.setenv("CONNECTORS_VAULT_URL", "https://u:hunter6@vault.example")

    shown = str(masked(load_settings()))

    assert not [n for n in (2, 3, 4, 6) if f"hunter{n}" in shown or f"ter{n}" in shown]
    assert "postgresql://u:******@localhost/x?sslmode=require" in shown


def test_a_misspelt_setting_is_found() -> None:
    assert ["CONNECTORS_CONCURENCY"] == unknown_names(environment={"CONNECTORS_CONCURENCY": "1", "PATH": ""})
    assert not unknown_names(environment={f"CONNECTORS_{name.upper()}": "" for name in Settings.model_fields})


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
    with pytest.raises(SettingError, match="set HOME"):
        data_directory()

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


def test_the_way_out_is_never_shown_with_its_password(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CONNECTORS_PROXY_URL", "http://u:hunter2@proxy.example:3128")

    read = load_settings()

    assert "http://u:hunter2@proxy.example:3128" == http_policy(read).proxy_url
    assert "http://u:******@proxy.example:3128" == masked(read)["CONNECTORS_PROXY_URL"]


@pytest.mark.parametrize("entry", ["10.0.0.1/8", "999.1.1.1", "http://crm", "a b", "*"])
def test_an_entry_of_the_egress_list_that_is_neither_is_named(
    environment: pytest.MonkeyPatch, entry: str
) -> None:
    environment.setenv("CONNECTORS_EGRESS_ALLOW", entry)

    with pytest.raises(SettingError, match=r"^CONNECTORS_EGRESS_ALLOW=.*" + re.escape(repr(entry))):
        load_settings()


def test_a_provider_inside_takes_plain_http_where_the_operator_allows_it(
    environment: pytest.MonkeyPatch,
) -> None:
    calendar = Connector("calendar", settings=[UrlSetting("api_url", "https://www.googleapis.com")])
    environment.setenv("CONNECTORS_CALENDAR_API_URL", "http://127.0.0.1:9/v3")
    with pytest.raises(SettingError, match="CONNECTORS_EGRESS_ALLOW"):
        load_settings().of_connector(calendar)

    environment.setenv("CONNECTORS_EGRESS_ALLOW", "127.0.0.0/8, crm.internal")

    assert {"api_url": "http://127.0.0.1:9/v3"} == load_settings().of_connector(calendar)


AGENT = '{"agent": ["acme"], "desk": {"tenants": ["acme"], "modes": ["run"], "reply_to": "desk-.*"}}'


def test_rights_are_a_list_of_tenants_or_an_object(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CONNECTORS_PUBLISHERS", AGENT)

    read = load_settings().publishers or {}

    assert (("acme",), ("*",), ("run",)) == (
        read["agent"].tenants, read["agent"].connectors, read["desk"].modes,
    )  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        '{"agent": ["ACME"]}',
        '{"agent": {"tenant": ["acme"]}}',
        '{"agent": {"tenants": ["acme"], "modes": ["fly"]}}',
        '{"agent": {"tenants": ["acme"], "reply_to": "("}}',
        "agent",
    ],
)
def test_wrong_rights_end_the_start_by_name(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("CONNECTORS_PUBLISHERS", value)

    with pytest.raises(SettingError, match=r"(?i)publishers"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "gap"),
    [
        ("PUBLISHERS", "", "CONNECTORS_PUBLISHERS"),
        ("PUBLISHERS", '{"guest": ["acme"]}', "a user of its own"),
        ("REPLY_TO_PATTERN", ".*", "matches every name"),
        ("EGRESS_ALLOW", "127.0.0.0/8", "CONNECTORS_EGRESS_ALLOW"),
    ],
)
def test_strict_refuses_what_is_open_and_names_the_setting(
    environment: pytest.MonkeyPatch, name: str, value: str, gap: str
) -> None:
    environment.setenv("CONNECTORS_STRICT", "true")
    environment.setenv("CONNECTORS_PUBLISHERS", AGENT)
    assert [] == load_settings().gaps

    environment.setenv(f"CONNECTORS_{name}", value)

    with pytest.raises(SettingError, match=gap):
        load_settings()
    environment.delenv("CONNECTORS_STRICT")
    assert [] != load_settings().gaps
