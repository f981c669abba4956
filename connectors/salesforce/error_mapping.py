"""Map Salesforce's errors to ours: by `errorCode`, or by status if there is no known code."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from connectors.sdk.errors import (
    Conflict,
    ConnectorError,
    CredentialInvalid,
    Detail,
    NotFound,
    PermissionDenied,
    RateLimited,
    Rejected,
    Sent,
    Unavailable,
)
from connectors.sdk.http import sent_of, status_error, wait_asked_s

if TYPE_CHECKING:
    import httpx

#: Code → the error class and its message. A code that is not here is mapped by its status.
REASONS: Final[Mapping[str, tuple[type[ConnectorError], str]]] = MappingProxyType(
    {
        "INVALID_SESSION_ID": (CredentialInvalid, "refuses the access token, even a new one"),
        "INVALID_AUTH_HEADER": (CredentialInvalid, "refuses the access token"),
        "INVALID_OPERATION_WITH_EXPIRED_PASSWORD": (CredentialInvalid, "says that the password has expired"),
        "API_DISABLED_FOR_ORG": (PermissionDenied, "has no API in this org"),
        "API_CURRENTLY_DISABLED": (PermissionDenied, "has switched this user's API access off"),
        "INSUFFICIENT_ACCESS": (PermissionDenied, "does not allow this user to do that"),
        "INSUFFICIENT_ACCESS_OR_READONLY": (
            PermissionDenied,
            "lets this user read the record, not change it",
        ),
        "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": (
            PermissionDenied,
            "does not allow this user to refer to another record that the job names",
        ),
        "CANNOT_DELETE_ENTITY": (PermissionDenied, "does not allow deleting that"),
        "FUNCTIONALITY_NOT_ENABLED": (PermissionDenied, "has not enabled that in this org"),
        "NOT_FOUND": (NotFound, "does not know the record, or does not show it to this user"),
        "ENTITY_IS_DELETED": (NotFound, "says that the record was deleted"),
        "INVALID_TYPE": (PermissionDenied, "does not know the object, or does not show it to this user"),
        "UNSUPPORTED_API_VERSION": (CredentialInvalid, "has retired this version of the API"),
        "MULTIPLE_CHOICES": (Conflict, "has several records with this external id"),
        "DUPLICATES_DETECTED": (Conflict, "has a record like this already"),
        "DUPLICATE_VALUE": (Conflict, "has a record with this value in a unique field"),
        "DUPLICATE_EXTERNAL_ID": (Conflict, "has several records with this external id"),
        "CANNOT_UPDATE_CONVERTED_LEAD": (Conflict, "has converted the lead already"),
        "CANNOT_EXECUTE_FLOW_TRIGGER": (Rejected, "could not run a flow of the org"),
        "REQUIRED_FIELD_MISSING": (Rejected, "requires a field that is missing"),
        "STRING_TOO_LONG": (Rejected, "received a value that is too long"),
        "INVALID_EMAIL_ADDRESS": (Rejected, "received an invalid e-mail address"),
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": (Rejected, "does not allow this value in the picklist"),
        "NUMBER_OUTSIDE_VALID_RANGE": (Rejected, "received a number out of range"),
        "FIELD_CUSTOM_VALIDATION_EXCEPTION": (Rejected, "rejected it by a validation rule of the org"),
        "FIELD_INTEGRITY_EXCEPTION": (Rejected, "received values that contradict each other"),
        "FIELD_FILTER_VALIDATION_EXCEPTION": (Rejected, "rejected it by a lookup filter of the org"),
        "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": (Rejected, "rejected it by a trigger or flow of the org"),
        "INVALID_FIELD_FOR_INSERT_UPDATE": (Rejected, "does not allow this user to write a field"),
        "INVALID_CROSS_REFERENCE_KEY": (Rejected, "does not know another record that the job names"),
        "INVALID_FIELD": (Rejected, "does not know a field, or does not show it to this user"),
        "INVALID_QUERY_FILTER_OPERATOR": (Rejected, "cannot filter a field by this operator"),
        "MALFORMED_ID": (Rejected, "received a malformed id"),
        "MALFORMED_QUERY": (Rejected, "cannot parse the query"),
        "MALFORMED_SEARCH": (Rejected, "cannot parse the search"),
        "JSON_PARSER_ERROR": (Rejected, "received a value of the wrong type"),
        "DELETE_FAILED": (Rejected, "does not delete the record while others depend on it"),
        "STORAGE_LIMIT_EXCEEDED": (Rejected, "has no storage left"),
        "EXCEEDED_MAX_SEMIJOIN_SUBSELECTS": (Rejected, "cannot run a query this complex"),
        "UNABLE_TO_LOCK_ROW": (Unavailable, "is changing the record in another transaction"),
        "SERVER_UNAVAILABLE": (Unavailable, "is too busy"),
        "REQUEST_RUNNING_TOO_LONG": (Unavailable, "stopped the request after two minutes"),
        "QUERY_TIMEOUT": (Unavailable, "stopped the query because it took too long"),
        "QUERY_TOO_COMPLICATED": (Rejected, "cannot run a query this complex"),
        "INVALID_QUERY_LOCATOR": (Unavailable, "no longer has the rest of the query's result"),
        "URL_NOT_RESET": (Unavailable, "no longer serves the org at this address"),
        "UNKNOWN_EXCEPTION": (Unavailable, "is failing"),
        "REQUEST_LIMIT_EXCEEDED": (RateLimited, "has too many requests running at once"),
    }
)
#: Codes of a status that comes without a code.
_BY_STATUS: Final[Mapping[int, str]] = MappingProxyType({300: "MULTIPLE_CHOICES"})
#: Characters of a rule's text that the agent gets; an administrator wrote it for people.
MAX_RULE_CHARS: Final = 255
#: Codes whose text an administrator of the org wrote.
_RULES: Final = frozenset({"FIELD_CUSTOM_VALIDATION_EXCEPTION", "FIELD_FILTER_VALIDATION_EXCEPTION"})
#: Too many requests at once: usually over in a few seconds.
CONCURRENT_WAIT_S: Final = 2.0
#: The day's requests are used up: longer than any job waits, so the caller gets the error at once.
DAILY_WAIT_S: Final = 86_400.0
#: Most records that an error names.
MAX_IDS: Final = 50

_ID: Final = re.compile(r"[a-zA-Z0-9]{15}(?:[a-zA-Z0-9]{3})?")
_ID_IN_TEXT: Final = re.compile(r"\bid: ([a-zA-Z0-9]{15}(?:[a-zA-Z0-9]{3})?)\b")
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{2,79}")
_FIELD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,120}")
#: A field that only the message names. The name is used, never the text.
_FIELD_IN_TEXT: Final = re.compile(
    r"(?:No such column '|Didn't understand relationship '|field '|ID field does not exist or is not accessible: )"
    r"([A-Za-z][A-Za-z0-9_]{0,79})(?![A-Za-z0-9_])"
)
#: Codes about a field of the credential.
_CREDENTIAL_FIELDS: Final[Mapping[str, str]] = MappingProxyType({"UNSUPPORTED_API_VERSION": "api_version"})


def refusal(response: "httpx.Response") -> ConnectorError:
    """Return the error for an answer of 300 or more."""
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if response.status_code == 300:
        return _several(body)
    if response.status_code < 400:
        return Rejected(f"{response.url.host} redirects, which the API never does; check login_url")
    return refusal_of(body, response.status_code, headers=response.headers, host=response.url.host)


def refusal_of(
    body: Any, status: int, *, headers: Mapping[str, str] | None = None, host: str = "Salesforce"
) -> ConnectorError:
    """Return the error for the faults of an answer, or of a part of a composite answer."""
    faults = _faults_of(body)
    fault = next((each for each in faults if _code(each) in REASONS), faults[0] if faults else {})
    code = _code(fault)
    if code not in REASONS:
        code = _BY_STATUS.get(status, code)
    known = REASONS.get(code)
    # A 408 or 5xx of a gateway is a failure regardless of its body; a 401 concerns the credential.
    is_gateway = sent_of(status) is Sent.UNCERTAIN and known is not None and not known[0].code.facts.retryable
    if known is None or status == 401 or is_gateway:
        error = status_error(status, host=host, headers=headers or {})
        data = {"status": status} | ({"reason": code} if code else {})
        return type(error)(
            error.message,
            retry_after_s=error.retry_after_s,
            data=data,
            details=_details(faults),
            sent=error.sent,
        )
    kind, meaning = known
    wait_s = wait_asked_s(headers or {}) if kind in {RateLimited, Unavailable} else None
    if kind is RateLimited:
        if "concurrent" in str(fault.get("message")).lower():
            wait_s = CONCURRENT_WAIT_S if wait_s is None else wait_s
        else:
            meaning, wait_s = "has no API requests left today", DAILY_WAIT_S
    details = _details(faults)
    named = ", ".join(dict.fromkeys(detail.field for detail in details))
    return kind(
        f"Salesforce {meaning} ({code})" + (f": {named}" if named else ""),
        retry_after_s=wait_s,
        details=details,
        data={"status": status, "reason": code} | _facts(code, fault),
        sent=sent_of(status),
    )


def _faults_of(body: Any) -> list[dict[str, Any]]:
    """Return the faults of an answer; those of an action lie in its results."""
    listed = [each for each in body if isinstance(each, dict)] if isinstance(body, list) else []
    inner = [each["errors"] for each in listed if isinstance(each.get("errors"), list)]
    return [fault for each in inner for fault in each if isinstance(fault, dict)] or listed


def reason_of(error: ConnectorError) -> str | None:
    """Return Salesforce's code of an error; None if there is none."""
    reason = (error.data or {}).get("reason")
    return reason if isinstance(reason, str) else None


def _code(fault: Mapping[str, Any]) -> str:
    # Inside composite answers and results of creates it is called statusCode.
    code = str(fault.get("errorCode") or fault.get("statusCode"))
    return code if _CODE.fullmatch(code) else ""


def _details(faults: Sequence[Mapping[str, Any]]) -> list[Detail]:
    """Return the fields that are wrong, each with Salesforce's own code."""
    details: list[Detail] = []
    for fault in faults[:20]:
        code = _code(fault)
        meaning = REASONS[code][1] if code in REASONS else "rejected it"
        details += [
            Detail(field=name, issue=f"{meaning} ({code})" if code else meaning)
            for name in _fields_of(fault, code)
        ]
    return details[:20]


def _fields_of(fault: Mapping[str, Any], code: str) -> list[str]:
    if code in _CREDENTIAL_FIELDS:
        return [_CREDENTIAL_FIELDS[code]]
    listed = fault.get("fields")
    names = [each for each in (listed if isinstance(listed, list) else ()) if isinstance(each, str)]
    return [name for name in names if _FIELD.fullmatch(name)] or _FIELD_IN_TEXT.findall(
        str(fault.get("message", ""))[:2000]
    )[:1]


def _facts(code: str, fault: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that a program, or the agent, can use."""
    text = str(fault.get("message", ""))
    if code in _RULES:
        shown = "".join(char if char.isprintable() else " " for char in text)
        return {"rule_message": shown[:MAX_RULE_CHARS].strip()}
    if code == "DUPLICATES_DETECTED":
        return {
            "ids": _unique(_matches(fault)),
            "may_save": _duplicate_result(fault).get("allowSave") is True,
        }
    if code == "DUPLICATE_VALUE":
        return {"ids": _unique(_ID_IN_TEXT.findall(text))}
    return {}


def _matches(fault: Mapping[str, Any]) -> Iterable[str]:
    """Yield the records that a duplicate rule found; some versions misspell the key."""
    try:
        for match in _duplicate_result(fault)["matchResults"]:
            for entry in match["matchRecords"]:
                yield str(
                    entry["record"].get("Id") or entry["record"]["attributes"]["url"].rpartition("/")[2]
                )
    except (LookupError, TypeError, AttributeError):
        return


def _duplicate_result(fault: Mapping[str, Any]) -> Mapping[str, Any]:
    found = fault.get("duplicateResult") or fault.get("duplicateResut")
    return found if isinstance(found, dict) else {}


def _several(body: Any) -> ConnectorError:
    ids = _unique(str(url).rpartition("/")[2] for url in body) if isinstance(body, list) else []
    kind, meaning = REASONS["MULTIPLE_CHOICES"]
    data = {"status": 300, "reason": "MULTIPLE_CHOICES", "ids": ids}
    return kind(f"Salesforce {meaning}; nothing was written", data=data)


def _unique(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(each for each in ids if _ID.fullmatch(each)))[:MAX_IDS]
