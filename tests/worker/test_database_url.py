"""Database URLs: what is understood, and what is refused without a piece of it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.database_url import DatabaseUrl
from worker.settings import SettingError, load_settings

PASSWORD = "Corr3ct-Horse"


def test_a_percent_encoded_password_is_decoded_once() -> None:
    url = DatabaseUrl.parse("postgresql://u:a%2Fb%23c%3Fd%40e%25f@db.example:5433/x%20y")

    assert ("db.example", 5433, "u", "a/b#c?d@e%f", "x y") == (
        url.host,
        url.port,
        url.user,
        url.password,
        url.database,
    )
    assert "a/b" not in repr(url)


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=require",
        "sslmode=verify-full&application_name=voice",
        "connect_timeout=3",
        "options=-csearch_path%3Dx",
        "target_session_attrs=read-write",
    ],
)
def test_libpq_parameters_are_understood(query: str) -> None:
    assert query.partition("=")[0] in DatabaseUrl.parse(f"postgresql://u@h/db?{query}").parameters


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:p@h/db?sslrootcert=/etc/ca.pem", "CONNECTORS_CA_FILE"),
        ("postgresql://u:p@h/db?keepalives=1", "keepalives"),
        ("postgresql://u:p@h/db?password=x", "password"),
        ("postgresql://u:p@h/db?sslmode=prefer", "sslmode"),
        ("postgresql://u:p@h/db?connect_timeout=soon", "connect_timeout"),
        ("postgresql://u:p@h1,h2/db", "one host"),
        ("postgresql://u:p@h/", "a database"),
        ("postgresql:///db", "one host"),
        ("postgresql://u:p@h:99999/db", "port"),
        ("postgresql://u:p@db.example/db?sslmode=disable", "CONNECTORS_PLAINTEXT_HOSTS"),
        ("mysql://u:p@h/db", "sqlite:///path"),
        ("sqlite://", "sqlite:///path"),
        ("sqlite:///", "sqlite:///path"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:///file::memory:?cache=shared", "name a file"),
        ("sqlite:////srv/ledger.db?timeout=3", "no parameters"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    url: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONNECTORS_DATABASE_URL", url)

    with pytest.raises(SettingError, match=r"^CONNECTORS_DATABASE_URL: ") as caught:
        load_settings()

    assert said in str(caught.value)


@given(
    place=st.integers(0, len(PASSWORD)),
    between=st.text("/#?@[]: %\\", min_size=1, max_size=3),
    name=st.sampled_from(["database_url", "rabbitmq_url", "vault_url", "proxy_url"]),
)
@settings(max_examples=200, deadline=None)
def test_no_piece_of_a_password_is_shown_however_it_is_written(place: int, between: str, name: str) -> None:
    password = PASSWORD[:place] + between + PASSWORD[place:]
    scheme = {"database_url": "postgresql", "rabbitmq_url": "amqp"}.get(name, "http")

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(f"CONNECTORS_{name.upper()}", f"{scheme}://u:{password}@localhost/db")
        try:
            load_settings()
        except SettingError as error:
            said = str(error)
        else:
            return

    assert f"CONNECTORS_{name.upper()}" in said
    assert 1 == len(said.splitlines())
    pieces = [PASSWORD[start : start + 4] for start in range(len(PASSWORD) - 3)]
    assert not [piece for piece in pieces if piece in said]
