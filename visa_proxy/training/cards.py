"""The MODEL_CARD beside a file of weights."""

from __future__ import annotations

import importlib.resources
import shlex
from collections.abc import Sequence
from pathlib import Path


def write_card(out: Path, template: str, command: Sequence[str], lines: Sequence[str], recipe: str) -> Path:
    """`out/MODEL_CARD.md` from `recipes/<template>.md`."""
    source = importlib.resources.files("visa_proxy.training") / "recipes" / f"{template}.md"
    text = source.read_text(encoding="utf-8")
    fields = {"command": shlex.join(command), "figures": "\n".join(filter(None, lines)), "recipe": recipe}
    for name, value in fields.items():
        text = text.replace(f"{{{name}}}", value.strip())
    card = out / "MODEL_CARD.md"
    card.write_text(text, encoding="utf-8")
    return card
