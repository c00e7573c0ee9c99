"""String fields of a JSON answer: found by JSON pointer, put back in place, and held to the schema the request gave.

The answer is never dumped anew: new strings are spliced into its text, so white space, key order, the spelling of numbers, the escapes
of other strings and duplicate keys stay byte for byte.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from visa_proxy.shield.json_schema import MAX_STEPS, Run, valid

MAX_FIELDS: Final = 256
"""Strings of one answer that are rewritten; those after them stay as they are."""
MAX_DEPTH: Final = 100
"""Tokens of a pointer."""

SCHEMA_OPTIONS: Final = ("guided_json", "json_schema")
"""Fields of a request in which vLLM and SGLang take a JSON schema for the answer."""
FORM_OPTIONS: Final = ("guided_regex", "guided_choice", "guided_grammar", "regex", "ebnf")
"""Those in which they take any other form that it must have."""

NOTHING_FITS: Final[dict[str, Any]] = {"not": {}}
"""Stands for a demand on the answer that cannot be checked: no change fits it."""

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+", re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Field:
    """One string value of a JSON text."""

    pointer: str
    """RFC 6901, without wildcards: "/steps/0/text". Duplicate keys have it in common; then `start` tells them apart."""
    start: int
    end: int
    """Span of the literal, quotes included, in characters of the text."""
    value: str
    """Decoded."""


def find_fields(text: str, pointers: Sequence[str]) -> list[Field]:
    """The strings that `pointers` name, in document order, each once, at most MAX_FIELDS.

    A token `*` of a pointer stands for every element of an array and every member of an object. Of duplicate keys each one counts:
    parsers differ in which they take. A string with half a surrogate pair is left out: it has no UTF-8 form.
    [] also when `text` is not JSON (RFC 8259: neither NaN nor a byte order mark) or is nested deeper than the parser goes.
    Raises ValueError for a pointer that is malformed, "" or longer than MAX_DEPTH tokens.
    """
    live = frozenset(_tokens(pointer) for pointer in pointers)
    scan = _Scan(text)
    try:
        end = scan.skip_space(scan.value(scan.skip_space(0), "", live))
    except (ValueError, RecursionError):
        return []
    return scan.fields if end == len(text) else []


Tokens = tuple[str, ...]


def _tokens(pointer: str) -> Tokens:
    if not _POINTER.fullmatch(pointer):
        raise ValueError(f"{pointer!r} is not a JSON pointer to a field")
    tokens = tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])
    if len(tokens) > MAX_DEPTH:
        raise ValueError(f"a JSON pointer may have {MAX_DEPTH} tokens, this one has {len(tokens)}")
    return tokens


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Numbers stay text: only where a value ends matters, and int() refuses long ones.
_DECODER: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse_constant)


class _Scan:
    """A parse that keeps places. It walks down only where a pointer leads and leaves the rest to the decoder in C."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields: list[Field] = []

    def skip_space(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        assert match is not None
        return match.end()

    def value(self, at: int, pointer: str, live: frozenset[Tokens]) -> int:
        """Where the value that starts at `at` ends. `live`: what is left of the pointers that lead here. Raises ValueError."""
        first = self.text[at : at + 1]
        if first == '"':
            return self._string(at, pointer, wanted=() in live)
        if first == "{" and any(live):
            return self._object(at, pointer, live)
        if first == "[" and any(live):
            return self._array(at, pointer, live)
        return _DECODER.raw_decode(self.text, at)[1]

    def _string(self, at: int, pointer: str, *, wanted: bool) -> int:
        value, end = _DECODER.raw_decode(self.text, at)
        if wanted and len(self.fields) < MAX_FIELDS and not _SURROGATE.search(value):
            self.fields.append(Field(pointer, at, end, value))
        return end

    def _object(self, at: int, pointer: str, live: frozenset[Tokens]) -> int:
        at = self.skip_space(at + 1)
        if self.text[at : at + 1] == "}":
            return at + 1
        while True:
            if self.text[at : at + 1] != '"':
                raise ValueError("expected a key")
            key, at = _DECODER.raw_decode(self.text, at)
            at = self.skip_space(at)
            if self.text[at : at + 1] != ":":
                raise ValueError("expected a colon")
            name = key.replace("~", "~0").replace("/", "~1")
            at = self.skip_space(self.value(self.skip_space(at + 1), f"{pointer}/{name}", _after(live, key)))
            closed, at = self._next(at, "}")
            if closed:
                return at

    def _array(self, at: int, pointer: str, live: frozenset[Tokens]) -> int:
        at = self.skip_space(at + 1)
        if self.text[at : at + 1] == "]":
            return at + 1
        index = 0
        while True:
            at = self.skip_space(self.value(at, f"{pointer}/{index}", _after(live, str(index))))
            closed, at = self._next(at, "]")
            if closed:
                return at
            index += 1

    def _next(self, at: int, close: str) -> tuple[bool, int]:
        """Whether the container ends at `at`, and where to go on."""
        found = self.text[at : at + 1]
        if found not in (close, ","):
            raise ValueError(f"expected a comma or {close}")
        return found == close, at + 1 if found == close else self.skip_space(at + 1)


def _after(live: frozenset[Tokens], token: str) -> frozenset[Tokens]:
    return frozenset(tokens[1:] for tokens in live if tokens and tokens[0] in ("*", token))


def splice(text: str, replacements: Mapping[Field, str]) -> str:
    """`text` with new strings in the place of the fields; everything else stays byte for byte.

    A new string is written in ASCII with \\u escapes where the one before it spelled its other letters that way, else as it is.
    Raises ValueError for a field that is not one of `text`, and for a string with half a surrogate pair.
    """
    pieces: list[str] = []
    position = 0
    for field, new in sorted(replacements.items(), key=lambda item: item[0].start):
        literal = text[field.start : field.end]
        if field.start < position or not _spells(literal, field.value):
            raise ValueError(f"{field.pointer} is not a field of this text")
        if _SURROGATE.search(new):
            raise ValueError(f"the new string of {field.pointer} has no UTF-8 form")
        escaped = literal.isascii() and not field.value.isascii()
        pieces += [text[position : field.start], json.dumps(new, ensure_ascii=escaped)]
        position = field.end
    return "".join([*pieces, text[position:]])


def _spells(literal: str, value: str) -> bool:
    try:
        return literal[:1] == '"' and bool(_DECODER.decode(literal) == value)
    except ValueError:
        return False


def schema_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that a request gave for its answer: None without one, NOTHING_FITS where what it demands cannot be checked.

    Read are chat's `response_format`, `text.format` of responses, vLLM's `structured_outputs`, and SCHEMA_OPTIONS and FORM_OPTIONS.
    Plain JSON mode (`json_object`) gives no schema. A regular expression, a grammar, a choice, a schema that is none, and two schemas
    that differ cannot be checked.
    """
    text = body.get("text")
    demands = [_format(body.get("response_format")), _format(text.get("format") if isinstance(text, Mapping) else None)]
    outputs = body.get("structured_outputs")
    if isinstance(outputs, Mapping):
        demands += [_constraint(str(name), value) for name, value in outputs.items()]
    demands += [_schema(body.get(name)) for name in SCHEMA_OPTIONS]
    demands += [NOTHING_FITS for name in FORM_OPTIONS if body.get(name) is not None]
    schemas = [schema for schema in demands if schema is not None]
    if not schemas:
        return None
    return schemas[0] if all(schema == schemas[0] for schema in schemas) else NOTHING_FITS


def _format(kind: Any) -> dict[str, Any] | None:
    if not isinstance(kind, Mapping):
        return None
    match kind.get("type", "text"):
        case "text":
            return None
        case "json_object":  # some servers take a schema here
            return _schema(kind.get("schema"))
        case "json_schema":
            inner = kind.get("json_schema", kind)
            return _schema(inner.get("schema")) if isinstance(inner, Mapping) else NOTHING_FITS
        case _:
            return NOTHING_FITS


def _constraint(name: str, value: Any) -> dict[str, Any] | None:
    """One of vLLM's `structured_outputs`; those not known here only say how the others are enforced."""
    if name == "json":
        return _schema(value)
    return NOTHING_FITS if value is not None and name in ("regex", "choice", "grammar", "structural_tag") else None


def _schema(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str):  # vLLM takes the schema as JSON text too
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return NOTHING_FITS
    if value is None or value is True:
        return None
    return value if isinstance(value, dict) else NOTHING_FITS


def fits(document: str, changed: Collection[str], schema: dict[str, Any] | None, run: Run) -> bool:
    """Whether `document` is JSON that the schema allows; `changed` are the new strings in it (not pointers).

    The schema is the client's: it may be hostile, broken or endless. Nothing is fetched for it, none of its regular expressions is
    run, and the work is bounded. Whatever cannot be decided within that counts as not fitting (False): a changed string under
    `pattern`, `format` or `contentEncoding`; a schema with `patternProperties` or another key it refuses, with a `$ref` out of
    itself, of draft 3 or 4, or beyond the bounds in json_schema.py; a document with duplicate keys. An unchanged string under `pattern`
    is as good as it was. Without a schema all JSON fits. `run` is charged with the work.
    """
    run.branches = 0
    try:
        if schema is None:
            _DECODER.decode(document)
            return True
        run.spend(len(document) // 64)  # about what parsing costs
        parsed = json.loads(document, object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)
        return valid(parsed, changed, schema, run)
    except Exception:  # noqa: BLE001  a broken schema shows as any exception, deep inside the library
        return False


def fitting(text: str, replacements: Mapping[Field, str], schema: dict[str, Any] | None) -> dict[Field, str]:
    """The replacements with which `text` fits the schema: all of them, or all but those that break it.

    In one validation where all fit, in about 2 log2(n) more for each of n that does not. The work of all together is bounded, at four
    times that of one: what is undecided then is left out. Raises ValueError as `splice` does.
    """
    run = Run(limit=4 * MAX_STEPS)
    kept: dict[Field, str] = {}
    waiting = [list(replacements.items())]
    while waiting and run.steps <= run.limit:
        group = waiting.pop()
        trial = {**kept, **dict(group)}
        if fits(splice(text, trial), trial.values(), schema, run):
            kept = trial
        elif len(group) > 1:
            middle = len(group) // 2
            waiting += [group[middle:], group[:middle]]
    return kept


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("which of two equal keys counts depends on the reader")
    return members
