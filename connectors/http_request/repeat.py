"""What a refusal means if an earlier attempt under the same key may have had its effect.

| of a repeat | answered | means |
|---|---|---|
| DELETE | 404, 410 | it is gone, as was asked: success |
| POST, PATCH under a key | 409 | the first is still at work: retried |
| any write | 412 | the condition may fail because the first changed it: unknown |
"""

from connectors.http_request.credential import HttpCredential
from connectors.http_request.params import RequestParams
from connectors.sdk import ConnectorError, OutcomeUnknown, Unavailable
from connectors.sdk.errors import Sent


def error_on_repeat(
    error: ConnectorError, params: RequestParams, credential: HttpCredential
) -> ConnectorError | None:
    """Return what a refusal of a repeat means; None if it tells of success."""
    status = (error.data or {}).get("status")
    if params.method == "DELETE" and status in {404, 410}:
        return None
    is_keyed = params.method in {"POST", "PATCH"} and credential.idempotency_header is not None
    if status == 409 and is_keyed:
        return Unavailable(
            "an earlier attempt under the same key is still at work", data=error.data, sent=Sent.UNCERTAIN
        )
    if status == 412:
        return OutcomeUnknown(
            "the condition no longer holds, maybe because an earlier attempt succeeded", data=error.data
        )
    return error
