"""A YAML file as plain data, with the line and column of every key and value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

from visa_proxy import yaml_problems
from visa_proxy.errors import ConfigError

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 32

KeyPath = tuple[str | int, ...]
"""From the root: ("profiles", "bold", "values")."""


@dataclass(frozen=True)
class Place:
    """1-based position of a key and of its value; a list item and the root have only a value."""

    value: tuple[int, int]
    key: tuple[int, int]


@dataclass(frozen=True)
class Document:
    """What a file says, and where it says it."""

    path: Path
    data: Any
    """dict, list, str, int, float, bool or None, nested."""
    places: dict[KeyPath, Place]

    def where(self, key: Iterable[str | int], *, at_key: bool = False) -> str:
        """`file:line:column` of a key's value, or of the nearest ancestor that exists; `at_key`: of the key itself."""
        path = tuple(key)
        while path and path not in self.places:
            path = path[:-1]
        place = self.places.get(path, Place((1, 1), (1, 1)))
        line, column = place.key if at_key else place.value
        return f"{self.path}:{line}:{column}"

    def problem(self, key: Iterable[str | int], message: str, *, at_key: bool = False) -> str:
        """One line of a ConfigError: `file:line:column: key.path: message`."""
        path = tuple(key)
        named = dotted(path)
        return f"{self.where(path, at_key=at_key)}: {yaml_problems.visible(f'{named}: {message}' if named else message)}"


def dotted(path: KeyPath) -> str:
    """`profiles.bold.values`, `api_keys[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def by_place(problems: Iterable[str]) -> list[str]:
    """One file's problem lines from top to bottom, each once."""

    def place(problem: str) -> tuple[int, ...]:
        found = re.match(r".*?:(\d+):(\d+): ", problem, re.DOTALL)
        return tuple(map(int, found.groups())) if found else (0, 0)

    return sorted(dict.fromkeys(problems), key=place)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """ "did you mean 'bold'? " or ""."""
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def read_document(path: Path) -> Document:
    """Read one YAML document of at most 1 MB.

    Scalars follow YAML 1.2: only true and false are booleans, so a profile may be called `off`; dates are text.
    Raises ConfigError for a file that cannot be read or parsed, repeated keys, anchors, tags, nesting deeper than 32.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}:1:1: cannot be read: {error.strerror or error}"]) from error
    if len(raw) > MAX_BYTES:
        raise ConfigError([f"{path}:1:1: larger than {MAX_BYTES} bytes, the most a config file may have"])
    with yaml_problems.named(path):
        text = raw.decode("utf-8-sig")
    return parse_document(path, text)


def parse_document(path: Path, text: str) -> Document:
    """`read_document` for text at hand; `path` is only named in messages."""
    with yaml_problems.named(path):
        _refuse_tricks(path, text)
        root = yaml.compose(text, Loader=_Loader)
    if root is None:
        raise ConfigError([f"{path}:1:1: the file is empty"])
    walk = _Walk(path)
    data = walk.value(root, (), _position(root))
    if walk.problems:
        raise ConfigError(by_place(walk.problems))
    return Document(path, data, walk.places)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Scanner, parser and composer of the safe loader, with the scalar rules of YAML 1.2's core schema."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def _refuse_tricks(path: Path, text: str) -> None:
    """Anchors and deep nesting, found in the event stream: before anything recursive or multiplying is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        trick = "nested too deeply" if depth > MAX_DEPTH else ""
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            trick = "anchors (&name) and aliases (*name) are not allowed here; profiles can use `extends`"
        if trick:
            line, column = _position(event)
            raise ConfigError([f"{path}:{line}:{column}: {trick}"])


class _Walk:
    """Turns nodes into plain data and notes places and problems on the way. Depth is bounded by `_refuse_tricks`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[str] = []

    def value(self, node: yaml.Node, key: KeyPath, key_position: tuple[int, int]) -> Any:
        self.places[key] = Place(_position(node), key_position)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(item, (*key, i), _position(item)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, key)
        return self._problem(node, key, f"the tag {node.tag} is not allowed here")

    def _mapping(self, node: yaml.MappingNode, key: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                self._problem(name_node, key, "a key must be a plain word")
                continue
            # Every key is text, also `1:` or `true:`: what a key may be called is the schema's business.
            name = str(name_node.value)
            if name in data:
                line, column = self.places[(*key, name)].key
                self._problem(name_node, (*key, name), f"this key is already set at line {line}, column {column}")
                continue
            data[name] = self.value(value_node, (*key, name), _position(name_node))
        return data

    def _scalar(self, node: yaml.ScalarNode, key: KeyPath) -> Any:
        text = str(node.value)
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if len(text) <= 18:
                return int(text)
            case "int" | "float":
                try:
                    return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
                except ValueError:
                    pass
        return self._problem(node, key, f"the tag {node.tag} is not allowed here")

    def _problem(self, node: yaml.Node, key: KeyPath, message: str) -> None:
        line, column = _position(node)
        named = dotted(key)
        self.problems.append(f"{self.path}:{line}:{column}: {yaml_problems.visible(f'{named}: {message}' if named else message)}")


def _position(item: yaml.Node | yaml.Event) -> tuple[int, int]:
    mark = item.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
