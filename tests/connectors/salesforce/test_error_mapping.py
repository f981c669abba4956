"""Salesforce's refusals: each code means one thing, and none of its text gets through."""

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.salesforce.error_mapping import DAILY_WAIT_S, REASONS, reason_of, refusal
from connectors.sdk.errors import Conflict, ConnectorError, RateLimited, Rejected, Sent, Unavailable
from schemas.error import Code

SECRET = "Canary-91b2"


def _refused(status: int, body: Any, headers: dict[str, str] | None = None) -> ConnectorError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = httpx.Request("GET", "https://acme.my.salesforce.com/services/data/v62.0/query")
    return refusal(httpx.Response(status, headers=headers, content=content, request=request))


def _fault(code: str, **more: Any) -> list[dict[str, Any]]:
    return [{"message": f"{SECRET} text", "errorCode": code, **more}]


@pytest.mark.parametrize("code", sorted(REASONS))
def test_each_code_becomes_its_error_without_its_text(code: str) -> None:
    status = 401 if code == "INVALID_SESSION_ID" else 400

    error = _refused(status, _fault(code))

    assert REASONS[code][0].code == error.code
    assert code == reason_of(error)
    assert Sent.ANSWERED is error.sent
    assert SECRET not in error.message
    if "FILTER_VALIDATION" not in code and "CUSTOM_VALIDATION" not in code:
        assert SECRET not in json.dumps(error.data)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.REJECTED),
        (401, Code.CREDENTIAL_INVALID),
        (403, Code.PERMISSION_DENIED),
        (404, Code.NOT_FOUND),
        (405, Code.REJECTED),
        (429, Code.RATE_LIMITED),
        (500, Code.UNAVAILABLE),
        (502, Code.UNAVAILABLE),
        (503, Code.UNAVAILABLE),
        (302, Code.REJECTED),
    ],
)
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b"{}", b"null", b"[[[[", [{"errorCode": "NEW_CODE"}]]
)
def test_without_a_known_code_the_status_decides(status: int, code: Code, body: Any) -> None:
    assert code == _refused(status, body).code


def test_a_validation_rules_text_is_in_the_data_alone() -> None:
    error = _refused(
        400,
        [
            {
                "message": "Please enter a\x1b[31m budget",
                "errorCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION",
                "fields": ["Budget__c"],
            }
        ],
    )

    assert isinstance(error, Rejected)
    assert error.data is not None
    assert "Please enter a [31m budget" == error.data["rule_message"]
    assert "budget" not in error.message.replace("Budget__c", "")
    assert ["Budget__c"] == [detail.field for detail in error.details]
    assert "FIELD_CUSTOM_VALIDATION_EXCEPTION" in error.details[0].issue


def test_details_name_every_field_with_salesforces_own_code() -> None:
    error = _refused(
        400,
        [
            *_fault("REQUIRED_FIELD_MISSING", fields=["LastName", "Company"]),
            *_fault("INVALID_EMAIL_ADDRESS", fields=["Email"]),
            *_fault("STRING_TOO_LONG", fields=["x' OR 1", 7, "Phone"]),
        ],
    )

    assert ["LastName", "Company", "Email", "Phone"] == [detail.field for detail in error.details]
    assert "REQUIRED_FIELD_MISSING" in error.details[0].issue


def test_concurrent_requests_are_retried_and_a_used_up_day_is_not() -> None:
    busy = _refused(
        403,
        [
            {
                "errorCode": "REQUEST_LIMIT_EXCEEDED",
                "message": "ConcurrentRequests (Concurrent API) Limit exceeded.",
            }
        ],
    )
    spent = _refused(
        403, [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}]
    )

    assert isinstance(busy, RateLimited)
    assert isinstance(spent, RateLimited)
    assert 2.0 == busy.retry_after_s
    assert DAILY_WAIT_S == spent.retry_after_s


def test_retry_after_is_kept() -> None:
    error = _refused(503, _fault("SERVER_UNAVAILABLE"), {"retry-after": "17"})

    assert isinstance(error, Unavailable)
    assert 17.0 == error.retry_after_s


def test_a_gateways_failure_is_uncertain_regardless_of_its_body() -> None:
    error = _refused(502, _fault("REQUIRED_FIELD_MISSING"))

    assert Code.UNAVAILABLE == error.code
    assert Sent.UNCERTAIN is error.sent


@pytest.mark.parametrize("key", ["duplicateResult", "duplicateResut"])
def test_duplicates_are_named(key: str) -> None:
    matches = [
        {"record": {"Id": "00Q000000000001AAA"}},
        {"record": {"attributes": {"url": "/x/00Q000000000002AAA"}}},
    ]
    error = _refused(
        400, _fault("DUPLICATES_DETECTED", **{key: {"matchResults": [{"matchRecords": matches}]}})
    )

    assert isinstance(error, Conflict)
    assert error.data is not None
    assert ["00Q000000000001AAA", "00Q000000000002AAA"] == error.data["ids"]


@pytest.mark.parametrize(
    "found", [None, [], {"matchResults": 3}, {"matchResults": [{"matchRecords": [{}]}]}, "x"]
)
def test_a_duplicate_refusal_without_records_is_a_conflict(found: Any) -> None:
    error = _refused(400, _fault("DUPLICATES_DETECTED", duplicateResult=found))

    assert isinstance(error, Conflict)
    assert error.data is not None
    assert [] == error.data["ids"]


def test_several_records_of_an_external_id_are_named() -> None:
    error = _refused(300, ["/services/data/v62.0/sobjects/Lead/00Q000000000001AAA", "/x/'bad'"])

    assert isinstance(error, Conflict)
    assert error.data is not None
    assert ["00Q000000000001AAA"] == error.data["ids"]


def test_a_code_outside_the_table_is_named_too() -> None:
    error = _refused(400, _fault("TRANSFER_REQUIRES_READ", fields=["OwnerId"]))
    garbled = _refused(400, _fault(f"no code {SECRET}", fields=["OwnerId"]))

    assert "TRANSFER_REQUIRES_READ" == reason_of(error)
    assert "rejected it (TRANSFER_REQUIRES_READ)" == error.details[0].issue
    assert reason_of(garbled) is None
    assert "rejected it" == garbled.details[0].issue


@settings(deadline=None, max_examples=200)
@given(st.integers(400, 599), st.sampled_from([*REASONS, "SOMETHING_ELSE"]), st.booleans())
def test_only_a_4xx_proves_that_nothing_happened(status: int, code: str, has_body: bool) -> None:
    error = _refused(status, _fault(code)) if has_body else _refused(status, "<html>")

    is_open = status >= 500 or status == 408
    assert (Sent.UNCERTAIN if is_open else Sent.ANSWERED) is error.sent
    if is_open:
        assert error.code in {Code.UNAVAILABLE, Code.RATE_LIMITED, Code.TIMEOUT}
