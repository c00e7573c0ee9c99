"""The house style that a machine can check."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import visa_proxy

PACKAGE = Path(visa_proxy.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_CLASS = 400, 60, 200


def definitions(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Name with place, lines, and whether it is a class."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert node.end_lineno is not None
            name = f"{path.relative_to(PACKAGE.parent)}:{node.lineno} {node.name}"
            yield name, node.end_lineno - node.lineno + 1, isinstance(node, ast.ClassDef)


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: length for name, length in lengths.items() if length > MAX_FILE}


def test_no_function_and_no_class_is_too_long() -> None:
    found = [each for path in FILES for each in definitions(path)]
    assert len(found) > 100
    assert not [f"{name}: {lines} lines" for name, lines, is_class in found if lines > (MAX_CLASS if is_class else MAX_FUNCTION)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source)), f"{path} has no docstring"
