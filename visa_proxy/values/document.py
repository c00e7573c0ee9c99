"""space.yaml, checked: what it says becomes prompts, keys of policies and names of outputs.

Built on the nodes of the safe loader, which know where they stand, and walked to a fixed depth: aliases cannot multiply anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import yaml

from visa_proxy import yaml_problems
from visa_proxy.errors import ConfigError
from visa_proxy.values.space import Dimension, Space

MAX_BYTES: Final = 64 * 1024
MAX_DIMENSIONS: Final = 64
MAX_KEYWORDS: Final = 64
"""Of one dimension."""
MAX_TEXT: Final = 500
"""Characters of a title, goal, signals, group or keyword."""

_SPACE_NAME: Final = r"^[a-z][a-z0-9-]{0,31}$"
_DIMENSION_NAME: Final = r"^[a-z][a-z0-9_]{0,31}$"
_TAG: Final = "tag:yaml.org,2002:"


def read_space(raw: bytes, file: str) -> Space:
    """The space that `raw`, the content of `file`, describes. Raises ConfigError with every problem and its place."""
    if len(raw) > MAX_BYTES:
        raise ConfigError([f"{file}:1:1: found more than {MAX_BYTES} bytes, allowed: at most that"])
    root = _root(raw, file)
    walk = _Walk(file)
    space = walk.space(root)
    if walk.problems:
        raise ConfigError(walk.problems)
    return space


def _root(raw: bytes, file: str) -> yaml.Node:
    with yaml_problems.named(file):
        # The loader in Python, not the one in C: its recursion ends in an error.
        root = yaml.compose(raw.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    if root is None:
        raise ConfigError([f"{file}:1:1: the file is empty"])
    return root


class _Walk:
    """One file being read: notes every problem, and goes on with something harmless in its place."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.problems: list[str] = []

    def space(self, root: yaml.Node) -> Space:
        keys = self._mapping(root, "", ("name", "dimensions"), ("circle",))
        name = self._name(keys["name"], "name", _SPACE_NAME) if "name" in keys else ""
        circle = self._flag(keys["circle"], "circle") if "circle" in keys else False
        items = self._list(keys["dimensions"], "dimensions", 1, MAX_DIMENSIONS) if "dimensions" in keys else ()
        dimensions: list[Dimension] = []
        for i, item in enumerate(items):
            dimension = self._dimension(item, f"dimensions[{i}]")
            if dimension.name and dimension.name in (each.name for each in dimensions):
                self._problem(item, f"dimensions[{i}].name", f"a second dimension called {dimension.name!r}; names must differ")
            dimensions.append(dimension)
        return Space(name, tuple(dimensions), circle)

    def _dimension(self, node: yaml.Node, key: str) -> Dimension:
        keys = self._mapping(node, key, ("name", "title", "goal"), ("signals", "keywords", "group"))
        words = self._list(keys["keywords"], f"{key}.keywords", 0, MAX_KEYWORDS) if "keywords" in keys else ()

        def text(name: str, *, blank: bool = False) -> str:
            return self._text(keys[name], f"{key}.{name}", blank=blank) if name in keys else ""

        return Dimension(
            name=self._name(keys["name"], f"{key}.name", _DIMENSION_NAME) if "name" in keys else "",
            title=text("title"),
            goal=text("goal").rstrip("."),  # the prompts add the full stop
            signals=text("signals", blank=True),
            keywords=tuple(self._text(word, f"{key}.keywords[{i}]") for i, word in enumerate(words)),
            group=text("group", blank=True),
        )

    def _mapping(self, node: yaml.Node, key: str, required: Sequence[str], optional: Sequence[str]) -> dict[str, yaml.Node]:
        """Those of the allowed keys that are there, each with its value."""
        allowed = ", ".join([*required, *optional])
        if not isinstance(node, yaml.MappingNode):
            self._problem(node, key, f"found {_found(node)}, allowed: a mapping of the keys {allowed}")
            return {}
        found: dict[str, yaml.Node] = {}
        for name_node, value in node.value:
            name = name_node.value if isinstance(name_node, yaml.ScalarNode) else ""
            path = f"{key}.{name}" if key else name
            if name not in (*required, *optional):
                self._problem(name_node, key, f"found the key {_found(name_node)}, allowed: {allowed}")
            elif name in found:
                self._problem(name_node, path, "this key is already set")
            else:
                found[name] = value
        for name in required:
            if name not in found:
                self._problem(node, f"{key}.{name}" if key else name, "required key is missing")
        return found

    def _list(self, node: yaml.Node, key: str, least: int, most: int) -> Sequence[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            self._problem(node, key, f"found {_found(node)}, allowed: a list of {least} to {most}")
            return ()
        if not least <= len(node.value) <= most:
            self._problem(node, key, f"found a list of {len(node.value)}, allowed: {least} to {most}")
            return ()
        items: Sequence[yaml.Node] = node.value
        return items

    def _text(self, node: yaml.Node, key: str, *, blank: bool = False) -> str:
        """In one line: it becomes one of a prompt."""
        if not isinstance(node, yaml.ScalarNode) or node.tag != f"{_TAG}str":
            self._problem(node, key, f"found {_found(node)}, allowed: text (in quotes where it looks like something else)")
            return ""
        text = " ".join(str(node.value).split())
        if not text and not blank:
            self._problem(node, key, "found blank text, allowed: text with something to read")
        if (shown := yaml_problems.visible(text)) != text:
            self._problem(node, key, f"found {shown[:60]}, allowed: text without control characters")
        if len(text) > MAX_TEXT:
            self._problem(node, key, f"found {len(text)} characters, allowed: at most {MAX_TEXT}")
        return text

    def _name(self, node: yaml.Node, key: str, pattern: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != f"{_TAG}str" or not re.fullmatch(pattern, node.value):
            self._problem(node, key, f"found {_found(node)}, allowed: {pattern}")
            return ""
        return str(node.value)

    def _flag(self, node: yaml.Node, key: str) -> bool:
        if not isinstance(node, yaml.ScalarNode) or node.tag != f"{_TAG}bool" or node.value not in ("true", "false"):
            self._problem(node, key, f"found {_found(node)}, allowed: true or false")
            return False
        return bool(node.value == "true")

    def _problem(self, node: yaml.Node, key: str, message: str) -> None:
        mark = node.start_mark
        at = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        self.problems.append(f"{self._file}:{at}: {yaml_problems.visible(f'{key}: {message}' if key else message)}")


def _found(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if node.tag == f"{_TAG}null":
        return "nothing"
    text = repr(node.value) if node.tag == f"{_TAG}str" else str(node.value)
    return text if len(text) <= 60 else f"{text[:57]}…"
