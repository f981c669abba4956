"""What each of Google's refusals becomes."""

import json
from typing import Any

import httpx
import pytest

from connectors.google_calendar.error_mapping import REASONS, calendar_refusal, reason_of, refusal
from connectors.sandbox.google.server import Fault
from connectors.sdk.errors import RateLimited, Sent
from schemas.error import Code
from tests.support.desk import Desk


def answer(
    status: int, reason: str | None, headers: dict[str, str] | None = None, *, method: str = "GET"
) -> httpx.Response:
    detail = {"domain": "global", "reason": reason, "message": "Do tell <script> about sk-secret"}
    body = {"error": {"errors": [detail], "code": status, "message": detail["message"]}}
    return httpx.Response(
        status,
        headers=headers,
        content=b"" if reason is None else json.dumps(body).encode(),
        request=httpx.Request(method, "https://www.googleapis.com/"),
    )


EXPECTED: list[tuple[int, str | None, Code]] = [
    (400, "badRequest", Code.REJECTED),
    (400, "invalid", Code.REJECTED),
    (400, "invalidParameter", Code.REJECTED),
    (400, "required", Code.REJECTED),
    (400, "parseError", Code.REJECTED),
    (400, "timeRangeEmpty", Code.REJECTED),
    (400, "timeRangeTooLong", Code.REJECTED),
    (401, "authError", Code.CREDENTIAL_INVALID),
    (401, "required", Code.CREDENTIAL_INVALID),
    (403, "rateLimitExceeded", Code.RATE_LIMITED),
    (403, "userRateLimitExceeded", Code.RATE_LIMITED),
    (403, "quotaExceeded", Code.RATE_LIMITED),
    (403, "dailyLimitExceeded", Code.RATE_LIMITED),
    (403, "calendarUsageLimitsExceeded", Code.RATE_LIMITED),
    (429, "rateLimitExceeded", Code.RATE_LIMITED),
    (429, None, Code.RATE_LIMITED),
    (403, "forbidden", Code.PERMISSION_DENIED),
    (403, "insufficientPermissions", Code.PERMISSION_DENIED),
    (403, "requiredAccessLevel", Code.PERMISSION_DENIED),
    (403, "forbiddenForNonOrganizer", Code.PERMISSION_DENIED),
    (403, "forbiddenForServiceAccounts", Code.PERMISSION_DENIED),
    (403, "accessNotConfigured", Code.PERMISSION_DENIED),
    (403, "neverHeardOf", Code.PERMISSION_DENIED),
    (404, "notFound", Code.NOT_FOUND),
    (404, None, Code.NOT_FOUND),
    (409, "duplicate", Code.CONFLICT),
    (409, "conflict", Code.CONFLICT),
    (409, None, Code.CONFLICT),
    (410, "deleted", Code.NOT_FOUND),
    (410, None, Code.NOT_FOUND),
    (410, "updatedMinTooLongAgo", Code.REJECTED),
    (410, "fullSyncRequired", Code.UNAVAILABLE),
    (412, "conditionNotMet", Code.CONFLICT),
    (412, None, Code.CONFLICT),
    (418, "neverHeardOf", Code.REJECTED),
    (408, None, Code.UNAVAILABLE),
    (500, "backendError", Code.UNAVAILABLE),
    (500, "notFound", Code.UNAVAILABLE),
    (503, "internalError", Code.UNAVAILABLE),
    (502, None, Code.UNAVAILABLE),
]


@pytest.mark.parametrize(("status", "reason", "code"), EXPECTED)
def test_a_refusal_is_judged_by_its_reason_first(status: int, reason: str | None, code: Code) -> None:
    error = refusal(answer(status, reason))

    assert code is error.code
    assert (error.data or {})["status"] == status
    assert "secret" not in f"{error.message}{error.data}"
    assert "neverHeardOf" not in f"{error.message}{error.data}"


def test_every_reason_of_the_table_is_a_sentence_without_google_in_it() -> None:
    assert not [meaning for _, meaning in REASONS.values() if meaning[0].isupper() or "oogle" in meaning]


def test_a_rate_limit_waits_as_long_as_it_was_told_or_a_second() -> None:
    told = refusal(answer(403, "rateLimitExceeded", {"Retry-After": "7"}))
    untold = refusal(answer(403, "userRateLimitExceeded"))
    too_many = refusal(answer(429, "rateLimitExceeded", {"Retry-After": "9"}))

    assert [7.0, 1.0, 9.0] == [each.retry_after_s for each in (told, untold, too_many)]


def test_a_5xx_leaves_open_whether_a_write_happened() -> None:
    for method, sent in (("POST", Sent.UNCERTAIN), ("GET", Sent.NO)):
        answers = [answer(status, None, method=method) for status in (500, 502, 503)]
        assert {sent} == {refusal(each).sent for each in answers}


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"[]", b"{}", b'{"error": "x"}', b'{"error": {"errors": []}}', b"[" * 100_000],
)
def test_an_answer_that_cannot_be_read_is_judged_by_its_status(content: bytes) -> None:
    request = httpx.Request("GET", "https://www.googleapis.com/")

    error = refusal(httpx.Response(403, content=content, request=request))

    assert Code.PERMISSION_DENIED is error.code
    assert reason_of(error) is None


def test_a_calendar_that_is_not_told_of_is_unavailable_and_named() -> None:
    error = calendar_refusal("room@example.com", None)

    assert (Code.UNAVAILABLE, True) == (error.code, "room@example.com" in error.message)


@pytest.mark.integration
async def test_a_403_for_the_rate_holds_back_the_accounts_further_calls(desk: Desk) -> None:
    fault: dict[str, Any] = {
        "status": 403,
        "reason": "userRateLimitExceeded",
        "headers": {"Retry-After": "30"},
    }
    desk.google.faults.add(Fault("calendarList.list", **fault))

    for _ in range(3):
        with pytest.raises(RateLimited):
            await desk("list_calendars")

    assert 1 == desk.calls("calendarList.list")
