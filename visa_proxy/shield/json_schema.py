"""JSON Schema from outside: a changed document is held to it without fetching, running or working on anything the client chose freely."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

    Keyword = Callable[[Validator, Any, Any, Any], Iterator[ValidationError]]

MAX_NODES: Final = 10_000
MAX_CHARS: Final = 256 * 1024
"""All keys and strings of a schema together."""
MAX_DEPTH: Final = 100
MAX_STEPS: Final = 50_000
"""Work of one validation, in keywords applied and list elements compared (`_cost`)."""


@dataclass
class Run:
    """What has been done so far for one decision: one validation, or several."""

    limit: int = MAX_STEPS
    steps: int = 0
    branches: int = 0
    """Keywords around this point whose verdict is more than "all of these hold"."""

    def spend(self, steps: int) -> None:
        """Raises TooMuch."""
        self.steps += steps
        if self.steps > self.limit:
            raise TooMuch


class TooMuch(Exception):
    """The steps are used up."""


def valid(parsed: Any, changed: Collection[str], schema: dict[str, Any], run: Run) -> bool:
    """Whether a parsed document with the new strings `changed` in it is valid; False where that is not decidable.

    A broken schema shows as any exception, from deep inside the library: the caller takes every one as False.
    """
    token = _RUN.set(run)
    try:
        return _bounded(schema) and _checked(parsed, frozenset(changed), schema)
    finally:
        _RUN.reset(token)


def _checked(parsed: Any, changed: frozenset[str], schema: dict[str, Any]) -> bool:
    from jsonschema import Draft3Validator, Draft4Validator, Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    base = validator_for(schema, default=Draft202012Validator)
    if base in (
        Draft3Validator,
        Draft4Validator,
    ):  # other keywords that branch, and `id` for `$id`: for drafts hardly anyone sends
        return False
    document = _tree(parsed, changed)
    # Without `$schema`: the library would go over to that draft's own class, which runs `pattern`, as soon as a $ref leads back here.
    # Without `$id`: every $ref stays within the schema, whatever it calls itself.
    rules = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    # The registry is given, and empty: the library's default one fetches what a $ref names.
    return bool(_checker(base)(rules, registry=Registry()).is_valid(document))


_REFUSED: Final = frozenset(
    {
        "patternProperties",  # regular expressions over keys, also run by its neighbours
        "unevaluatedItems",  # these two walk the schema by themselves: the work would not be counted
        "unevaluatedProperties",
        "$dynamicRef",
        "$recursiveRef",
        "$id",  # below the root: a new base for every $ref, and a search through the schema for each of them
        "$schema",  # below the root: another draft from there on, by the library's own class
    }
)


def _bounded(schema: dict[str, Any]) -> bool:
    """Whether the schema is small, and free of what can't be checked safely. Any key counts, even one that only names a property."""
    nodes = chars = 0
    waiting: list[tuple[Any, int]] = [(schema, 0)]
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        chars += len(node) if isinstance(node, str) else 0
        if isinstance(node, dict):
            chars += sum(map(len, node))
            refused = _REFUSED - {"$id", "$schema"} if depth == 0 else _REFUSED
            ref = node.get("$ref", "#")
            if not refused.isdisjoint(node) or (isinstance(ref, str) and ref != "#" and not ref.startswith("#/")):
                return False
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        waiting += [(each, depth + 1) for each in inner]
        if nodes + len(waiting) > MAX_NODES or chars > MAX_CHARS or depth > MAX_DEPTH:
            return False
    return True


class _Node:
    """A value of the document that knows of changes within it.

    The library writes the value into the message of every error: with a short repr a large document does not make that dear.
    """

    changed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Object(_Node, dict[str, Any]):
    """An object."""


class _Array(_Node, list[Any]):
    """An array."""


class _Text(_Node, str):
    """A string, or a key."""


def _tree(value: Any, changed: frozenset[str]) -> Any:
    """`value` made of nodes. A string that equals one of `changed` counts as changed, wherever it stands."""
    node: _Object | _Array | _Text
    match value:
        case str():
            node = _Text(value)
            node.changed = value in changed
        case dict():
            node = _Object({_Text(key): _tree(inner, changed) for key, inner in value.items()})
            node.changed = any(getattr(inner, "changed", False) for inner in node.values())
        case list():
            node = _Array(_tree(inner, changed) for inner in value)
            node.changed = any(getattr(inner, "changed", False) for inner in node)
        case _:
            return value
    return node


class _Unknown(Exception):
    """The verdict hangs on a keyword that is not evaluated."""


# The library makes its own validators on the way down: nothing else that we have a say in goes along.
_RUN: Final[ContextVar[Run]] = ContextVar("_RUN")

_BRANCHES: Final = ("anyOf", "oneOf", "not", "if", "contains")
_UNRUN: Final = ("pattern", "format", "contentEncoding")


@functools.cache
def _checker(base: type[Validator]) -> Callable[..., Validator]:
    """The validator class of a draft, made safe for schemas and documents from outside."""
    from jsonschema.validators import extend

    keywords: dict[str, Keyword] = {}
    for name, check in base.VALIDATORS.items():
        counted = _counted(name, check)
        keywords[name] = _branching(counted) if name in _BRANCHES else counted
    keywords |= {name: _unrun(name) for name in _UNRUN}
    made: Callable[..., Validator] = extend(base, keywords)  # type: ignore[no-untyped-call]
    return made


def _unrun(name: str) -> Keyword:
    """A keyword that is never evaluated.

    `pattern` is a regular expression from the client, for a matcher that backtracks: (a+)+$ on forty letters would hold the process
    for hours. `format` and `contentEncoding` say that the string is no prose. An unchanged string is taken to match `pattern`, as
    it did or did not before; inside anyOf, not and the like that is no safe guess.
    """

    def keyword(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if isinstance(instance, _Text) and (instance.changed or (name == "pattern" and _RUN.get().branches)):
            raise _Unknown
        return iter(())

    return keyword


def _counted(name: str, check: Keyword) -> Keyword:
    """A schema of a few lines can ask for 2^n steps: $defs that each refer to the next one twice."""

    def keyword(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        run = _RUN.get()
        run.spend(_cost(name, value, instance))
        for error in check(validator, value, instance, schema) or ():
            run.spend(len(error.message) // 64)  # about what it cost to write
            yield error

    return keyword


def _branching(check: Keyword) -> Keyword:
    """Around a keyword where a part that holds may make the whole fail, or the reverse."""

    def keyword(validator: Validator, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        run = _RUN.get()
        run.branches += 1
        try:
            errors = list(check(validator, value, instance, schema))
        except _Unknown:
            # From the root down to the outermost branch everything must hold; where nothing changed below, it holds as before.
            if run.branches > 1 or getattr(instance, "changed", False):
                raise
            errors = []
        finally:
            run.branches -= 1
        yield from errors

    return keyword


def _cost(name: str, value: Any, instance: Any) -> int:
    """Steps that a keyword takes by itself, without those inside it."""
    if name in ("enum", "const", "oneOf"):  # compared, or written into the error, as a whole
        return 1 + _size(value)
    if name == "uniqueItems" and isinstance(instance, list):  # every pair
        return 1 + len(instance) * _size(instance) // 4
    within = sum(len(each) for each in (value, instance) if isinstance(each, dict | list))
    return 1 + within + (len(value) // 64 if isinstance(value, str) else 0)


def _size(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_size, inner))
