"""What a rewrite shows of its prompt: control lines, headings, rules, placeholders, the marks of a chat."""

from __future__ import annotations

import functools
import re
from typing import Final

from visa_proxy.rewriter.prompt import system_prompt
from visa_proxy.values import Space

RULE: Final = 40
"""Characters from which on a line of the prompt is nobody's own words."""
_SCALE: Final = r"[ \t]*[:=]?[ \t]*[-+−]\d"
_MARK: Final = re.compile(
    r"<\|/?\w+\|?>|</?(?:user|assistant|system|think|answer)>|[⟦⟧]|\[/?inst\]|"
    r"^[^\w\n]*(?:rewritten answer|question)\s*:|\b(?:target values|answer to rewrite|value alignment|semantic integrity)\s*:|"
    r"\A\W*(?:sure\W+|certainly\W+|of course\W+)?here(?: is|['’]s) (?:the|a|your|my) (?:rewrit|revised|adapted)[^\n]{0,120}:",
    re.IGNORECASE | re.MULTILINE,
)


def leaks(original: str, rewritten: str, space: Space) -> bool:
    """Whether something of the prompt stands in `rewritten` that does not in `original`. `space`: that of the target."""
    levels, rules = _told(space)
    if any(len(pattern.findall(rewritten)) > len(pattern.findall(original)) for pattern in (_MARK, levels)):
        return True
    return any(rule in rewritten and rule not in original for rule in rules)


@functools.lru_cache(maxsize=16)
def _told(space: Space) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """A value's name with a level, as the prompts have it; and the system message's lines."""
    names = "|".join(re.escape(name).replace("_", "[ _-]") for name in space.names)
    lines = (line.lstrip("- ").strip() for line in system_prompt(space).splitlines())
    return re.compile(rf"\b(?:{names}){_SCALE}", re.IGNORECASE), tuple(line for line in lines if len(line) >= RULE)
