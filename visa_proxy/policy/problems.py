"""Pydantic's errors as lines a person can act on: where, what was found, what is allowed."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from visa_proxy.policy.document import Document, KeyPath, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


NOT_BLANK: Final = r"^[^\x00]*[^\s\x00][^\x00]*$"
"""Something to read, and no NUL, which no file name may have."""


def refusal(message: str) -> PydanticCustomError:
    """An error for validators whose message says all: the input, which may be a secret, is not added to it."""
    return PydanticCustomError("refusal", "{reason}", {"reason": message})


def validate(document: Document, model: type[Model], context: Mapping[str, Any] | None = None) -> tuple[Model | None, list[str]]:
    """The model, or None and every problem as `file:line:column: key.path: what was found, what is allowed`."""
    if not isinstance(document.data, dict):
        return None, [document.problem((), f"found {shown(document.data)}, expected a mapping of keys")]
    try:
        return model.model_validate(document.data, context=dict(context or {})), []
    except ValidationError as error:
        found = error.errors(include_url=False)
        # Items that were refused also make their list too short: one of the two messages is enough.
        inside = {details["loc"][:i] for details in found for i in range(len(details["loc"]))}
        kept = [details for details in found if details["type"] != "too_short" or details["loc"] not in inside]
        return None, list(dict.fromkeys(_line(document, model, details) for details in kept))


def _line(document: Document, model: type[BaseModel], details: ErrorDetails) -> str:
    path = _in_document(document, details["loc"])
    secret = any(str(part).startswith("api_key") for part in path)
    kind, found = details["type"], "something else" if secret else shown(details["input"])
    if kind == "extra_forbidden":
        allowed = allowed_keys(model, path[:-1], document.data)
        hint = did_you_mean(str(path[-1]), allowed)
        return document.problem(path, f"unknown key; {hint}allowed: {', '.join(allowed)}", at_key=True)
    if kind == "missing":
        return document.problem((*path, str(details["loc"][-1])), "required key is missing")
    if kind == "union_tag_invalid":
        key, expected = details["ctx"]["discriminator"].strip("'"), details["ctx"]["expected_tags"]
        return document.problem((*path, key), f"found {shown(_inside(details['input'], key))}, allowed: {expected}")
    at_key = details["loc"][-1:] == ("[key]",)
    if kind == "refusal":
        return document.problem(path, details["msg"], at_key=at_key)
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        allowed = allowed_keys(model, path, document.data)
        keys = f" of the keys {', '.join(allowed)}" if allowed else " of names to values"
        return document.problem(path, f"found {found}, allowed: a mapping{keys}")
    if kind == "string_pattern_mismatch":
        pattern = details["ctx"]["pattern"]
        allowed_text = "text that is not blank" if pattern == NOT_BLANK else pattern
        described = "" if at_key else schema_at(model, path, document.data).get("description", "")
        allowed_text += f" ({described.rstrip('.')})" if described else ""
        return document.problem(path, f"found {found}, allowed: {allowed_text}", at_key=at_key)
    allowed_text = _range(schema_at(model, path, document.data)) or _WORDS.get(kind) or _reworded(details["msg"])
    return document.problem(path, f"found {found}, allowed: {allowed_text}", at_key=at_key)


_WORDS: Final = {
    "bool_type": "true or false",
    "string_type": "text (in quotes where it looks like something else)",
    "tuple_type": "a list: [a, b] or one `- a` a line",
    "finite_number": "a finite number",
}


def _reworded(message: str) -> str:
    """Pydantic's sentence as what is allowed: "Input should be 'offset' or 'target'" -> "'offset' or 'target'"."""
    message = re.sub(r"^(Value error, )?(allowed: |Input should be )?", "", message).replace(" after validation", "")
    message = re.sub(r"^(Tuple|Dictionary) should", "it should", message)
    return {"True": "true", "False": "false"}.get(message, message)  # as YAML has them


def _range(schema: dict[str, Any]) -> str:
    """The numbers a schema allows, in words; "" when it is about something else, or all numbers."""
    if schema.get("type") not in {"number", "integer"}:
        return ""
    kind = "a whole number" if schema["type"] == "integer" else "a number"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
    return " ".join([kind, " and ".join(limits)]).strip()


_SHAPES: Final = {bool: ("boolean",), int: ("integer", "number"), float: ("number",), str: ("string",), list: ("array",)}
"""What JSON schema calls the types that a file's values have."""


def _in_document(document: Document, loc: tuple[int | str, ...]) -> KeyPath:
    """`loc` without what pydantic adds for unions and dict keys."""
    path: KeyPath = ()
    for part in loc:
        if (*path, part) in document.places:
            path = (*path, part)
    return path


def shown(value: Any) -> str:
    """What a file holds somewhere, short enough for a problem line."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def allowed_keys(model: type[BaseModel], path: KeyPath, data: Any = None) -> tuple[str, ...]:
    """Keys that the schema of `model` allows at `path` of `data`; () where any are."""
    return tuple(schema_at(model, path, data).get("properties", {}))


def schema_at(model: type[BaseModel], path: KeyPath, data: Any = None) -> dict[str, Any]:
    """The JSON schema of what `path` holds; {} for a path the model does not know. `data`, the whole of it, decides between kinds."""
    root = _schema(model)
    node: dict[str, Any] = root
    for part in path:
        node = _object(root, node, data)
        data = _inside(data, part)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            others = [*node.get("patternProperties", {}).values(), node.get("additionalProperties") or {}]
            node = node.get("properties", {}).get(part) or others[0]
    return _object(root, node, data)


def _inside(data: Any, part: int | str) -> Any:
    """None where there is no such part."""
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _object(root: dict[str, Any], node: dict[str, Any], data: Any = None) -> dict[str, Any]:
    """Follow references; of alternatives the one that `data` names or looks like, else that with keys or items, else the first."""
    while "$ref" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    options = node.get("anyOf") or node.get("oneOf")
    if not options:
        return node
    by_kind = node.get("discriminator", {})
    named = by_kind.get("mapping", {}).get(str(_inside(data, by_kind.get("propertyName", ""))))
    if named is not None:
        return _object(root, {"$ref": named})
    resolved = [_object(root, option) for option in options]
    alike = (option for option in resolved if option.get("type") in _SHAPES.get(type(data), ()))
    fuller = (option for option in resolved if "properties" in option or "items" in option)
    return next(alike, next(fuller, resolved[0]))
