"""What statuses and headers of an answer mean."""

from email.utils import formatdate

import pytest

from connectors.sdk.errors import Sent
from connectors.sdk.http.status import MAX_WAIT_S, read_retry_after, status_error, wait_asked_s
from schemas.error import Code

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.REJECTED),
        (401, Code.CREDENTIAL_INVALID),
        (402, Code.REJECTED),
        (403, Code.PERMISSION_DENIED),
        (404, Code.NOT_FOUND),
        (405, Code.REJECTED),
        (408, Code.UNAVAILABLE),
        (409, Code.CONFLICT),
        (410, Code.REJECTED),
        (412, Code.REJECTED),
        (422, Code.REJECTED),
        (429, Code.RATE_LIMITED),
        (499, Code.REJECTED),
        (500, Code.UNAVAILABLE),
        (502, Code.UNAVAILABLE),
        (503, Code.UNAVAILABLE),
        (504, Code.UNAVAILABLE),
        (599, Code.UNAVAILABLE),
    ],
)
def test_each_status_has_its_code(status: int, code: Code) -> None:
    error = status_error(status, host="api.example.com", headers={}, now=NOW)

    assert code is error.code
    assert {"status": status} == error.data
    assert "api.example.com" in error.message


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (400, Sent.ANSWERED),
        (408, Sent.UNCERTAIN),
        (429, Sent.ANSWERED),
        (500, Sent.UNCERTAIN),
        (502, Sent.UNCERTAIN),
        (503, Sent.UNCERTAIN),
        (504, Sent.UNCERTAIN),
    ],
)
def test_only_a_4xx_proves_that_a_write_was_not_processed(status: int, sent: Sent) -> None:
    assert sent is status_error(status, host="h", headers={}, now=NOW).sent


def test_a_status_that_the_provider_vows_for_proves_it_too() -> None:
    assert Sent.ANSWERED is status_error(503, host="h", headers={}, unprocessed_statuses={503}).sent


def test_a_read_leaves_nothing_open_whatever_its_status() -> None:
    sent = [status_error(status, host="h", headers={}, method="GET").sent for status in (404, 408, 500)]

    assert [Sent.ANSWERED, Sent.NO, Sent.NO] == sent


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-5", 0.0),
        ("1000000000", MAX_WAIT_S),
        ("9" * 18, MAX_WAIT_S),
        ("9" * 5000, None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        (formatdate(NOW + 30, usegmt=True), 30.0),
        (formatdate(NOW - 30, usegmt=True), 0.0),
        (formatdate(NOW + 10**6, usegmt=True), MAX_WAIT_S),
        ("Wed, 99 Foo 2025 99:99:99 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_read_and_clamped(value: str, wait_s: float | None) -> None:
    assert wait_s == read_retry_after(value, now=NOW)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "3", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}, 3.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9"}, 9.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW) + 9)}, 9.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW + 9) * 1000)}, 9.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "9"}, None),
        ({"x-ratelimit-remaining": "0"}, None),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "4"}, 4.0),
        ({"ratelimit": "limit=100, remaining=0, reset=5"}, 5.0),
        ({"ratelimit": '"default";r=0;t=6'}, 6.0),
        ({"ratelimit": '"default";r=3;t=6'}, None),
        ({"ratelimit": "x" * 100_000}, None),
    ],
)
def test_a_used_up_limit_asks_to_wait(headers: dict[str, str], wait_s: float | None) -> None:
    assert wait_s == wait_asked_s(headers, now=NOW)


def test_the_wait_is_told_where_it_can_help() -> None:
    headers = {"retry-after": "7"}

    assert 7.0 == status_error(429, host="h", headers=headers, now=NOW).retry_after_s
    assert 7.0 == status_error(503, host="h", headers=headers, now=NOW).retry_after_s
    assert status_error(404, host="h", headers=headers, now=NOW).retry_after_s is None
