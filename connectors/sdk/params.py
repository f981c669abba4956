"""The parameters of an action: their schema from the function's signature, and their strict validation."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_json

from connectors.sdk.context import Context, is_context
from connectors.sdk.errors import InvalidParams
from connectors.sdk.personal import PersonalData, is_marked
from schemas.error import Detail
from schemas.job import describe

_TIME = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
#: What a string of each JSON Schema format looks like. Pydantic alone takes "1700000000" for a time.
_FORMATS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "date-time": (re.compile(f"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt ]{_TIME}"), "an RFC 3339 date-time"),
    "date": (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), "a date such as 2026-03-08"),
    "time": (re.compile(_TIME), "a time such as 09:30"),
}


class Signature:
    """How to call an action's function: which parameters come from the job, which are injected.

    A function takes either plain parameters or one pydantic model; a parameter annotated with
    `Context` is injected.

    Raises:
        TypeError: the function cannot be an action; names the parameter and the reason.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        name = getattr(function, "__qualname__", repr(function))
        hints = get_type_hints(function, include_extras=True)
        self.context_name: str | None = None
        plain: dict[str, tuple[Any, Any]] = {}
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
                raise TypeError(f"{name}: {parameter} cannot come from a job; name each parameter")
            if parameter.name not in hints:
                raise TypeError(f"{name}: the parameter {parameter.name!r} needs a type")
            hint = hints[parameter.name]
            if is_context(hint):
                self.context_name = parameter.name
            else:
                default = ... if parameter.default is parameter.empty else parameter.default
                plain[parameter.name] = (hint, default)
        self.model_name: str | None = None
        self.model: type[BaseModel]
        only = next(iter(plain), None)
        if only is not None and len(plain) == 1 and _is_model(plain[only][0]):
            self.model_name = only
            self.model = plain[only][0]
        else:
            self.model = create_model(
                f"{name.rpartition('.')[2]}_params", __config__=ConfigDict(extra="forbid"), **plain
            )  # type: ignore[call-overload]  # fields come from the signature
        self.returns: TypeAdapter[Any] = TypeAdapter(hints.get("return", Any))
        self.schema = _closed(self.model.model_json_schema())
        self._has_formats = _mentions_formats(self.schema)
        self._has_personal = is_marked(self.schema)

    def read(self, params: Mapping[str, Any]) -> BaseModel:
        """Return the validated parameters, strictly by JSON's types: no string for a number.

        Raises:
            InvalidParams: `details` names each wrong field, never its value.
        """
        details: tuple[Detail, ...] = ()
        try:
            model = self.model.model_validate_json(to_json(params), strict=True, extra="forbid")
        except ValidationError as error:
            details = describe(error)
        else:
            if self._has_formats:
                details = tuple(_format_faults(params, self.schema, self.schema.get("$defs", {}), ()))
            if not details:
                return model
        raise InvalidParams("; ".join(map(str, details[:3])), details=details)

    def personal(self, params: Mapping[str, Any]) -> PersonalData:
        """Return the personal data in a job's parameters."""
        return PersonalData.of(params, self.schema) if self._has_personal else PersonalData()

    def arguments(self, params: BaseModel | None, context: Context[Any] | None) -> dict[str, Any]:
        """Return the keyword arguments of one call; `context` is None only if the function takes none."""
        arguments: dict[str, Any] = {}
        if self.model_name is not None:
            arguments[self.model_name] = params
        elif params is not None:
            arguments = {name: getattr(params, name) for name in type(params).model_fields}
        if self.context_name is not None:
            arguments[self.context_name] = context
        return arguments


def example_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return example parameters of an action: declared examples, else one value by type."""
    return {
        name: _example(field)
        for name, field in model.model_fields.items()
        if field.is_required() or field.examples
    }


def _example(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    if field.default is not PydanticUndefined:
        return field.default
    samples: dict[Any, Any] = {str: "text", int: 1, float: 1.5, bool: True, list: [], dict: {}}
    return samples.get(get_origin(field.annotation) or field.annotation, "…")


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Add to the schema that unknown names are refused, as the validation does."""
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object" and "properties" in part:
            part.setdefault("additionalProperties", False)
    schema.setdefault("properties", {})
    schema["additionalProperties"] = False
    return schema


def _mentions_formats(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("format") in _FORMATS or any(map(_mentions_formats, part.values()))
    return isinstance(part, list) and any(map(_mentions_formats, part))


def _format_faults(  # noqa: PLR0911  # one return a kind of schema
    value: Any, schema: Any, definitions: Mapping[str, Any], path: tuple[str, ...]
) -> list[Detail]:
    """Walk a value beside its schema; pydantic has checked all but the form of times."""
    if not isinstance(schema, dict):
        return []
    if "$ref" in schema:
        return _format_faults(value, definitions.get(schema["$ref"].rpartition("/")[2]), definitions, path)
    if choices := schema.get("anyOf"):
        faults = [
            _format_faults(value, choice, definitions, path) for choice in choices if _fits(value, choice)
        ]
        return [] if not faults or not all(faults) else faults[0]
    if isinstance(value, str) and (known := _FORMATS.get(schema.get("format", ""))):
        pattern, wanted = known
        if not pattern.fullmatch(value):
            return [Detail(field=".".join(path), issue=f"must be {wanted}")]
    if isinstance(value, dict):
        rest = schema.get("additionalProperties")
        properties = schema.get("properties", {})
        return [
            fault
            for name, item in value.items()
            for fault in _format_faults(item, properties.get(name, rest), definitions, (*path, name))
        ]
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        return [
            fault
            for index, item in enumerate(value)
            for fault in _format_faults(
                item,
                prefix[index] if index < len(prefix) else schema.get("items"),
                definitions,
                (*path, str(index)),
            )
        ]
    return []


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    kinds: dict[str, type] = {"string": str, "object": dict, "array": list, "null": type(None)}
    kind = kinds.get(schema.get("type", ""))
    return kind is None or isinstance(value, kind)
