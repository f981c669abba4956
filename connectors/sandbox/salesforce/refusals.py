"""The refusals of a write that the store makes out of what it was given."""

from typing import Any

from connectors.sandbox.salesforce.faults import Refusal
from connectors.sandbox.salesforce.schema import Field, ObjectType


def unparsable_refusal(found: Field, value: Any) -> Refusal:
    """Return the refusal of a value of the wrong type."""
    message = (
        f"Cannot deserialize instance of {found.type} from {type(value).__name__} value {str(value)[:80]}"
    )
    return Refusal(400, "JSON_PARSER_ERROR", f"{message} or request may be missing a required field")


def unknown_field_refusal(kind: ObjectType, name: str) -> Refusal:
    """Return the refusal of a field that the object does not have."""
    return Refusal(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {kind.name}")


def duplicates_refusal(kind: ObjectType, same: list[dict[str, Any]], *, may_save: bool) -> Refusal:
    """Return the refusal of a duplicate, with the records that it duplicates."""
    records = [
        {
            "additionalInformation": [],
            "fieldDiffs": [],
            "matchConfidence": 100.0,
            "record": {
                "attributes": {"type": kind.name, "url": f"/sobjects/{kind.name}/{other['Id']}"},
                "Id": other["Id"],
            },
        }
        for other in same
    ]
    result = {
        "allowSave": may_save,
        "duplicateRule": f"Standard_{kind.name}_Duplicate_Rule",
        "duplicateRuleEntityType": kind.name,
        "errorMessage": "Use one of these records?",
        "matchResults": [
            {
                "entityType": kind.name,
                "errors": [],
                "matchEngine": "FuzzyMatchEngine",
                "matchRecords": records,
                "rule": f"Standard_{kind.name}_Match_Rule",
                "size": len(records),
                "success": True,
            }
        ],
    }
    return Refusal(400, "DUPLICATES_DETECTED", "Use one of these records?", more={"duplicateResult": result})
