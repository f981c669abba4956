"""Replies of this worker and of newer ones, read by the client."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.error import Code
from schemas.result import Result, error_of
from worker.client_reply import UnreadableReply, read_progress, read_result

NOW = datetime(2026, 11, 26, tzinfo=UTC)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=3)
EXTRA = st.dictionaries(st.text(min_size=1).map(lambda name: f"x_{name}"), JSON, max_size=3)


def _result(code: Code | None = None) -> Result:
    return Result(
        id="j",
        connector="dummy",
        action="ping",
        status="succeeded" if code is None else "failed",
        error=None if code is None else error_of(code, "why"),
        started_at=NOW,
        finished_at=NOW,
        duration_ms=1.0,
    )


@settings(max_examples=50)
@given(st.none() | st.sampled_from(Code), EXTRA, EXTRA, st.integers(1, 9))
def test_what_a_newer_worker_adds_changes_nothing(
    code: Code | None, extra: dict[str, Any], of_error: dict[str, Any], version: int
) -> None:
    result = _result(code)
    fields = {**result.model_dump(mode="json"), **extra, "version": version}
    if fields["error"] is not None:
        fields["error"] |= of_error

    assert result == read_result(json.dumps(fields).encode())


def test_an_unknown_code_keeps_its_text_and_can_be_written() -> None:
    sent = _result(Code.CONFLICT).model_dump_json().replace('"CONFLICT"', '"NEW_ONE"').encode()

    result = read_result(sent)

    assert result.error is not None
    assert "NEW_ONE" == result.error.code
    assert '"NEW_ONE"' in result.model_dump_json(warnings=False)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"{}", b'{"status": "failed", "error": 7}', b"[" * 99999]
)
def test_what_is_no_result_is_named(body: bytes) -> None:
    with pytest.raises(UnreadableReply):
        read_result(body)
    assert read_progress(body) is None
