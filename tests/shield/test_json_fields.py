"""JSON fields: exactly the named strings change, and a schema from outside is checked without being trusted."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_proxy.shield.json_fields import (
    MAX_DEPTH,
    MAX_FIELDS,
    NOTHING_FITS,
    Field,
    find_fields,
    fits,
    fitting,
    schema_of,
    splice,
)
from visa_proxy.shield.json_schema import Run

SPACE = st.text(alphabet=" \t\n\r", max_size=3)
TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=8)
KEYS = st.sampled_from(["a", "b", "a/b", "m~n", "*", "0", "é", "", "~1"])
NUMBERS = ["0", "-0", "1.50", "1e3", "1E+03", "-2.0e-7", "12345678901234567890123", "true", "false", "null"]


@st.composite
def literals(draw: st.DrawFn, values: st.SearchStrategy[str] = TEXT) -> str:
    """A string, in any of the ways to spell it."""
    pieces = []
    for letter in draw(values):
        plain = json.dumps(letter, ensure_ascii=False)[1:-1]
        units = letter.encode("utf-16-be").hex()
        escaped = "".join(rf"\u{units[i : i + 4]}" for i in range(0, len(units), 4))
        pieces.append(
            draw(st.sampled_from([plain, plain, escaped, escaped.upper().replace(r"\U", r"\u"), *([r"\/"] * (letter == "/"))]))
        )
    return f'"{"".join(pieces)}"'


@st.composite
def documents(draw: st.DrawFn, depth: int = 3) -> str:
    """JSON text with odd white space, odd numbers and, often, duplicate keys."""
    kind = draw(st.sampled_from(["string", "string", "number", "object", "array", "object"] if depth else ["string", "number"]))
    if kind == "string":
        return draw(literals())
    if kind == "number":
        return draw(st.sampled_from(NUMBERS))
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        key = f"{draw(literals(KEYS))}{draw(SPACE)}:{draw(SPACE)}" if kind == "object" else ""
        parts.append(f"{draw(SPACE)}{key}{draw(documents(depth=depth - 1))}{draw(SPACE)}")
    inner = ",".join(parts) or draw(SPACE)
    return f"{{{inner}}}" if kind == "object" else f"[{inner}]"


TOKENS = st.sampled_from(["a", "b", "a~1b", "m~0n", "*", "*", "0", "1", "é", "", "~01"])
POINTERS = st.lists(
    st.lists(TOKENS, min_size=1, max_size=4).map(lambda tokens: "".join(f"/{token}" for token in tokens)), max_size=5
)


class Pairs(list[tuple[str, Any]]):
    """An object whose duplicate keys are all there."""


def pairs(text: str) -> Any:
    return json.loads(
        text, object_pairs_hook=Pairs, parse_int=lambda digits: f"number {digits}", parse_float=lambda digits: f"number {digits}"
    )


def named(value: Any, pointers: list[str]) -> Iterator[tuple[str, str]]:
    """The strings that pointers name, by a walk over the parsed document: concrete pointer and value."""
    wanted = [[token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]] for pointer in pointers]

    def walk(value: Any, path: list[str]) -> Iterator[tuple[str, str]]:
        if isinstance(value, str) and not value.startswith("number "):
            if any(len(w) == len(path) and all(t in ("*", p) for t, p in zip(w, path, strict=True)) for w in wanted):
                yield "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in path), value
        elif isinstance(value, Pairs):
            for key, inner in value:
                yield from walk(inner, [*path, key])
        elif isinstance(value, list):
            for i, inner in enumerate(value):
                yield from walk(inner, [*path, str(i)])

    yield from walk(value, [])


@given(documents(), POINTERS, SPACE, SPACE)
def test_each_string_that_a_pointer_names_is_found_once_in_order(
    document: str, pointers: list[str], before: str, after: str
) -> None:
    text = before + document + after
    fields = find_fields(text, pointers)
    assert [(field.pointer, field.value) for field in fields] == list(named(pairs(text), pointers))
    assert [json.loads(text[field.start : field.end]) for field in fields] == [field.value for field in fields]


@given(documents(), POINTERS, st.data())
def test_splice_changes_the_named_strings_and_no_other_byte(text: str, pointers: list[str], data: st.DataObject) -> None:
    fields = find_fields(text, pointers)
    chosen = data.draw(st.lists(st.sampled_from(fields), unique=True)) if fields else []
    replacements = {field: data.draw(TEXT) for field in chosen}
    spliced = splice(text, replacements)
    assert [field.value for field in find_fields(spliced, pointers)] == [replacements.get(field, field.value) for field in fields]
    left, right = 0, 0
    for field, after in zip(fields, find_fields(spliced, pointers), strict=True):
        assert text[left : field.start] == spliced[right : after.start], "what lies between the fields stays"
        if field not in replacements:
            assert text[field.start : field.end] == spliced[after.start : after.end]
        left, right = field.end, after.end
    assert text[left:] == spliced[right:]


@given(TEXT)
def test_the_spelling_of_a_string_decides_that_of_its_successor(new: str) -> None:
    for text, ascii_only in [
        (r'{"a":"caf\u00e9"}', True),
        ('{"a":"café"}', False),
        (r'{"a":"é caf\u00e9"}', False),
        ('{"a":"c"}', False),
    ]:
        spliced = splice(text, {find_fields(text, ["/a"])[0]: new})
        assert spliced == '{"a":' + json.dumps(new, ensure_ascii=ascii_only) + "}"


BROKEN = [
    "",
    "{",
    "[1,]",
    '{"a":"x",}',
    '{"a" "x"}',
    "{'a':'x'}",
    '{"a":"x"} x',
    "```json\n{}\n```",
    '{"a":"x","b":NaN}',
    '{"a":"x","b":01}',
]
BROKEN += [
    '\ufeff{"a":"x"}',
    '{"a":"x\n"}',
    '{"a":"x","b":[-Infinity]}',
    '{"a":"x"',
    '{"a":"\\x"}',
    "[" * 100_000,
    '{"a":' * 100_000,
    "x",
]


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:20])
def test_what_is_no_json_has_no_fields_and_fits_nothing(text: str) -> None:
    assert find_fields(text, ["/a", "/*", "/*/*"]) == []
    assert not fits(text, [], None, Run())
    assert not fits(text, [], {}, Run())


@pytest.mark.parametrize("pointer", ["", "a", "/a~", "/a~2", "#/a", "/a" * (MAX_DEPTH + 1)])
def test_a_malformed_pointer_is_an_error(pointer: str) -> None:
    with pytest.raises(ValueError, match="pointer"):
        find_fields('{"a":"x"}', ["/a", pointer])


def test_half_a_surrogate_pair_is_no_field_and_no_replacement() -> None:
    text = r'{"a":"\ud83d","b":"\ud83d\ude00"}'
    [field] = find_fields(text, ["/*"])
    assert (field.pointer, field.value) == ("/b", "😀")
    with pytest.raises(ValueError, match="UTF-8"):
        splice(text, {field: "\ud83d"})


def test_only_so_many_fields() -> None:
    fields = find_fields(json.dumps(["x"] * (MAX_FIELDS + 10)), ["/*"])
    assert [field.pointer for field in fields] == [f"/{i}" for i in range(MAX_FIELDS)]


@pytest.mark.parametrize(
    "field", [Field("/a", 5, 8, "y"), Field("/a", 4, 8, "x"), Field("/a", 5, 9, "x"), Field("/a", 50, 53, "x")]
)
def test_a_field_of_another_text_is_refused(field: Field) -> None:
    with pytest.raises(ValueError, match="not a field"):
        splice('{"a":"x"}', {field: "new"})


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    ("body", "schema"),
    [
        ({}, None),
        ({"response_format": None, "text": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, None),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}, SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, None),
        ({"response_format": {"type": "json_schema", "json_schema": [SCHEMA]}}, NOTHING_FITS),
        ({"response_format": {"type": "structural_tag", "structures": []}}, NOTHING_FITS),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}}, SCHEMA),
        ({"text": {"format": {"type": "json_object"}, "verbosity": "low"}}, None),
        ({"guided_json": SCHEMA}, SCHEMA),
        ({"guided_json": json.dumps(SCHEMA)}, SCHEMA),
        ({"guided_json": "{"}, NOTHING_FITS),
        ({"guided_json": False}, NOTHING_FITS),
        ({"guided_regex": "a+"}, NOTHING_FITS),
        ({"guided_choice": None, "guided_decoding_backend": "auto"}, None),
        ({"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}}, SCHEMA),
        ({"structured_outputs": {"json_object": True}}, None),
        ({"structured_outputs": {"grammar": "root ::= x"}}, NOTHING_FITS),
        ({"structured_outputs": {"json": SCHEMA}, "guided_json": SCHEMA}, SCHEMA),
        ({"structured_outputs": {"json": SCHEMA}, "guided_json": {}}, NOTHING_FITS),
    ],
)
def test_the_schema_is_read_from_every_place_a_request_has_for_it(body: dict[str, Any], schema: dict[str, Any] | None) -> None:
    assert schema_of(body) == schema


def of(rules: Any, **more: Any) -> dict[str, Any]:
    """A schema for `{"a": …}`."""
    return {"type": "object", "properties": {"a": rules, **more}}


DOCUMENT = '{"a": "new words", "b": "old", "n": 3}'
ORDINARY: list[tuple[str, Any, bool]] = [
    ("nothing asked", {}, True),
    ("type", of({"type": "string"}), True),
    ("another type", of({"type": "integer"}), False),
    ("short enough", of({"maxLength": 9}), True),
    ("too long", of({"maxLength": 8}), False),
    ("in enum", of({"enum": ["x", "new words"]}), True),
    ("not in enum", of({"enum": ["x"]}), False),
    ("const", of({"const": "other"}), False),
    ("wrong elsewhere", of({}, n={"type": "string"}), False),
    ("required", {"required": ["c"]}, False),
    ("no more keys", {**of({}, b={}), "additionalProperties": False}, False),
    ("reference", {**of({"$ref": "#/$defs/s"}), "$defs": {"s": {"type": "string"}}}, True),
    ("reference, draft 7", {**of({"$ref": "#/definitions/s"}), "definitions": {"s": {"maxLength": 1}}}, False),
    ("any of", of({"anyOf": [{"type": "null"}, {"type": "string"}]}), True),
    ("not", of({"not": {"maxLength": 20}}), False),
    (
        "$schema, $id",
        {**of({"maxLength": 9}), "$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.org/x"},
        True,
    ),
]
PATTERN = {"pattern": "^new"}
NARROW: list[tuple[str, Any, bool]] = [
    ("pattern", of(PATTERN), False),
    ("format", of({"format": "email"}), False),
    ("pattern under not", of({"not": PATTERN}), False),
    ("pattern under any of", of({"anyOf": [PATTERN, {"type": "string"}]}), False),
    ("pattern elsewhere", of({}, b={"pattern": "z"}), True),
    ("pattern elsewhere, optional", of({}, b={"anyOf": [{"pattern": "z"}, {"type": "null"}]}), True),
    ("pattern elsewhere, exclusive", of({}, b={"oneOf": [{"pattern": "z"}, {"pattern": "y"}]}), True),
    ("pattern elsewhere decides", {"anyOf": [of({"maxLength": 1}), of({}, b={"pattern": "z"})]}, False),
    ("format elsewhere", of({}, b={"format": "date"}), True),
    ("pattern properties", {"patternProperties": {"^a": {}}}, False),
    ("pattern properties deep", of({"allOf": [{"patternProperties": {}}]}), False),
]
BAD: list[tuple[str, Any, bool]] = [
    ("unknown type", of({"type": "strin"}), False),
    ("no object", of({"properties": []}) | {"allOf": 3}, False),
    ("a list", of([{"type": "string"}]), False),
    ("bound of a wrong type", of({"maxLength": "9"}), False),
    ("endless", {"$ref": "#"}, False),
    ("endless in two", {"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/y"}, "y": {"$ref": "#/$defs/x"}}}, False),
    ("nowhere", of({"$ref": "#/$defs/none"}), False),
    ("anchor", {**of({"$ref": "#s"}), "$defs": {"s": {"$anchor": "s"}}}, False),
    ("no text", of({"$ref": 3}), False),
    ("too deep", json.loads('{"allOf":[' * 200 + "{}" + "]}" * 200), False),
    ("too many", {"$defs": {str(i): {} for i in range(20_000)}}, False),
    ("too long", {"description": "x" * 300_000}, False),
    ("draft 4", {"$schema": "http://json-schema.org/draft-04/schema#"}, False),
    ("$schema of a wrong type", {"$schema": {}}, False),
]


@pytest.mark.parametrize(("schema", "expected"), [pytest.param(*case[1:], id=case[0]) for case in ORDINARY + NARROW + BAD])
def test_a_changed_document_is_held_to_its_schema(schema: dict[str, Any], expected: bool) -> None:
    assert fits(DOCUMENT, ["new words"], schema, Run()) is expected


def test_an_object_that_refers_to_itself_is_no_endless_schema() -> None:
    tree = {"properties": {"text": {"type": "string"}, "inner": {"items": {"$ref": "#"}}}, "required": ["text"]}
    assert fits('{"text":"a","inner":[{"text":"b","inner":[]},{"text":"c"}]}', ["c"], tree, Run())
    assert not fits('{"text":"a","inner":[{"text":"b","inner":[{}]},{"text":"c"}]}', ["c"], tree, Run())


def test_duplicate_keys_fit_no_schema() -> None:
    assert fits('{"a":"x","a":"new"}', ["new"], None, Run())
    assert not fits('{"a":"x","a":"new"}', ["new"], {}, Run())


EVIL = "(a+)+$"
LETTERS = json.dumps({"a": "a" * 60 + "!", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!": "x"})
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}
DOUBLED = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)} | {"d60": {}}
HOSTILE: list[tuple[str, Any]] = [
    ("pattern", of({"pattern": EVIL})),
    ("pattern through a reference", {"$ref": "#/$defs/x", "$defs": {"x": of({"pattern": EVIL})}}),
    ("another draft by a reference to the root", {**DRAFT_7, "pattern": EVIL, **of({"$ref": "#"})}),
    ("another draft below", {"allOf": [{**DRAFT_7, **of({"pattern": EVIL})}]}),
    ("pattern properties", {"patternProperties": {EVIL: False}}),
    ("pattern properties for a neighbour", {"patternProperties": {EVIL: {}}, "additionalProperties": False}),
    ("unevaluated", {"unevaluatedProperties": False, "allOf": [{"patternProperties": {EVIL: {}}}]}),
    ("names", {"propertyNames": {"anyOf": [{"pattern": EVIL}, {"maxLength": 3}]}, **of({"maxLength": 3})}),
    ("doubled sixty times", {"$ref": "#/$defs/d0", "$defs": DOUBLED}),
]


@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("schema", [pytest.param(schema, id=name) for name, schema in HOSTILE])
def test_hostile_schemas_are_answered_at_once(schema: dict[str, Any], changed: bool) -> None:
    started = time.monotonic()
    verdict = fits(LETTERS, ["a" * 60 + "!"] if changed else [], schema, Run())
    assert not (changed and verdict)
    assert time.monotonic() - started < 10, "the expression would run for years"


@pytest.mark.parametrize("rules", [{"type": "string"}, {"not": False}, {"enum": ["y"]}])
def test_errors_about_a_large_document_are_cheap(rules: dict[str, Any]) -> None:
    document = json.dumps({"a": "x", "b": {"c": "y" * 2_000_000}})
    started = time.monotonic()
    assert fits(document, ["x"], {"anyOf": [rules] * 3000 + [{}]}, Run())
    assert time.monotonic() - started < 10, "3000 messages with the document in them are 6 GB"


def test_a_remote_reference_is_never_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        schemas = [
            {"$ref": url},
            of({"$ref": url}),
            {"$dynamicRef": url},
            {"$id": url, **of({"$ref": "other.json"})},
            {"$id": url, **of({"$ref": "#/$defs/none"})},
            {"$schema": url, **of({"$ref": "#/$defs/none"})},
            of({"$id": url, "$ref": "#/x"}),
        ]
        assert not any(fits(DOCUMENT, ["new words"], schema, Run()) for schema in schemas)
        with pytest.raises(BlockingIOError):
            server.accept()


STEPS = json.dumps({"steps": [{"text": f"step {i}"} for i in range(40)]})
SHORT = {"properties": {"steps": {"items": {"properties": {"text": {"maxLength": 10}}}}}}


@given(st.sets(st.integers(0, 39)))
def test_a_field_that_does_not_fit_costs_no_other(bad: set[int]) -> None:
    fields = find_fields(STEPS, ["/steps/*/text"])
    wanted = {field: "far too long" if i in bad else f"new {i}" for i, field in enumerate(fields)}
    kept = fitting(STEPS, wanted, SHORT)
    assert kept == {field: new for field, new in wanted.items() if new != "far too long"}
    assert fitting(STEPS, wanted, None) == wanted


def test_fields_that_only_together_do_not_fit_leave_the_first_changed() -> None:
    text = '["a","b","c"]'
    fields = find_fields(text, ["/*"])
    assert fitting(text, {fields[0]: "x", fields[1]: "x", fields[2]: "y"}, {"uniqueItems": True}) == {
        fields[0]: "x",
        fields[2]: "y",
    }
    assert fitting(text, dict.fromkeys(fields, "new"), NOTHING_FITS) == {}


def test_many_fields_under_a_dear_schema_are_given_up_in_time() -> None:
    text = json.dumps({"steps": ["x"] * MAX_FIELDS, "pad": [0] * 15_000})
    fields = find_fields(text, ["/steps/*"])
    dear = {"properties": {"pad": {"items": {"type": "integer"}}, "steps": {"items": {"maxLength": 1}}}}
    started = time.monotonic()
    assert fitting(text, dict.fromkeys(fields, "too long"), dear) == {}
    assert time.monotonic() - started < 10, "512 validations of 40 ms and more"
