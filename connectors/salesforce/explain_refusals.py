"""More about a refusal than Salesforce says: whose fault it is, and which values are allowed."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from connectors.salesforce.client import SalesforceApi
from connectors.salesforce.credential import SalesforceCredential
from connectors.salesforce.describe import UnknownObject, descriptions
from connectors.salesforce.error_mapping import reason_of
from connectors.sdk.errors import (
    ConnectorError,
    CredentialInvalid,
    Detail,
    InvalidParams,
    NotFound,
    PermissionDenied,
    Rejected,
    Sent,
)

#: Most allowed values that an error lists.
MAX_VALUES: Final = 50

_WRONG_VALUE: Final = "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"


@asynccontextmanager
async def explained(
    api: SalesforceApi, object_name: str, *, external_id_field: str | None = None
) -> AsyncIterator[None]:
    """Explain a refusal by the object's description.

    Args:
        external_id_field: the field in the path of an upsert.

    Raises:
        UnknownObject: not the record is unknown, but its object.
        Rejected: the object has no such external-id field, or a value is not allowed; `details` name the fields.
    """
    try:
        yield
    except NotFound as refused:
        if reason_of(refused) == "ENTITY_IS_DELETED":
            raise
        if external_id_field is not None:
            # An upsert creates a record that it does not find, so it is the field, or the object.
            raise await _unknown_field(api, object_name, external_id_field, refused) from None
        await _check_known(api, object_name)
        raise
    except Rejected as refused:
        if reason_of(refused) != _WRONG_VALUE:
            raise
        raise await _with_allowed_values(api, object_name, refused) from None


async def _check_known(api: SalesforceApi, object_name: str) -> None:
    try:
        await descriptions.of(api, object_name)
    except UnknownObject as unknown:
        # Without a code of Salesforce's own the answer says nothing about the object.
        if reason_of(unknown) is not None:
            raise


@contextmanager
def credential_field_named(credential: SalesforceCredential, object_name: str) -> Iterator[None]:
    """Blame the credential if the field that it names for the job's mark is unknown.

    Raises:
        CredentialInvalid: names the credential's setting.
    """
    try:
        yield
    except Rejected as refused:
        wrong = {detail.field.lower() for detail in refused.details}
        for setting, field in credential.mark_fields(object_name):
            if reason_of(refused) == "INVALID_FIELD" and field.lower() in wrong:
                issue = f"names {field}, which {object_name} does not have, or which this user may not see"
                raise _credential_fault(setting, issue) from None
        raise


async def check_mark_fields(api: SalesforceApi, object_name: str) -> None:
    """Check that an object has the fields that the credential names for the job's mark.

    Raises:
        CredentialInvalid: names the setting.
    """
    for setting, field in api.ctx.credential.mark_fields(object_name):
        try:
            facts = await descriptions.of(api, object_name)
        except UnknownObject:
            raise _credential_fault(setting, f"is for {object_name}, which this user may not see") from None
        described = facts.fields.get(field.lower())
        if described is None:
            issue = f"names {field}, which {object_name} does not have, or which this user may not see"
            raise _credential_fault(setting, issue)
        if "external_id" in setting and not described.get("externalId"):
            raise _credential_fault(setting, f"names {field}, which is not an external id of {object_name}")


def _credential_fault(setting: str, issue: str) -> CredentialInvalid:
    details = [Detail(field=setting, issue=issue)]
    return CredentialInvalid(f"{setting} {issue}", details=details, data={"reason": "INVALID_FIELD"})


@contextmanager
def object_named_by(parameter: str) -> Iterator[None]:
    """Blame the job's parameter if the object that it names is unknown.

    Raises:
        InvalidParams: names the parameter.
    """
    try:
        yield
    except PermissionDenied as refused:
        if not isinstance(refused, UnknownObject) and reason_of(refused) != "INVALID_TYPE":
            raise
        raise InvalidParams.field(
            parameter, "names an object that does not exist, or that this user may not see"
        ) from None


async def _unknown_field(
    api: SalesforceApi, object_name: str, field: str, refused: NotFound
) -> ConnectorError:
    if not refused.details:
        facts = await descriptions.of(api, object_name)
        described = facts.fields.get(field.lower())
        if described is not None and described.get("externalId"):
            return refused
    issue = f"is not an external-id field of {object_name}, or this user may not see it"
    return Rejected(
        f"{field} {issue}", details=[Detail(field=field, issue=issue)], data={"reason": "INVALID_FIELD"}
    )


async def _with_allowed_values(api: SalesforceApi, object_name: str, refused: Rejected) -> ConnectorError:
    """Return the refusal with the allowed values of each field that it names."""
    try:
        facts = await descriptions.of(api, object_name)
    except ConnectorError:
        return refused
    allowed = {
        detail.field: facts.fields[detail.field.lower()]["picklist"][:MAX_VALUES]
        for detail in refused.details
        if "picklist" in facts.fields.get(detail.field.lower(), {})
    }
    return Rejected(
        refused.message,
        details=[
            Detail(field=each.field, issue=f"{each.issue}; allowed: {', '.join(allowed[each.field])}"[:1000])
            if each.field in allowed
            else each
            for each in refused.details
        ],
        data={**(refused.data or {}), "allowed_values": allowed},
        sent=Sent.ANSWERED,
    )
