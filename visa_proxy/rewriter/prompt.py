"""The one prompt renderer: serving, SFT and GRPO all call `render`."""

from __future__ import annotations

from typing import Literal

from visa_proxy.rewriter.base import NO_CONTEXT, Context
from visa_proxy.values import Space, ValueVector, load_space

Style = Literal["full", "compact"]
Message = dict[str, str]

SCALE = "-1 clearly argues against the value, -0.5 plays it down, 0 leaves it out, 0.5 hints at it, 1 clearly promotes it"


def render(style: Style, *, query: str, text: str, target: ValueVector, context: Context = NO_CONTEXT) -> list[Message]:
    """Chat messages that ask for `text` rewritten towards `target`; `context` when it is a part of a longer answer.

    `full`: the rule-based prompt (paper, App. E.2.2 "Complex Prompt") for instruction-tuned models; the part that depends only
    on the space comes first, so that an engine's prefix cache holds it. `compact`: control line + text, for the small model, which
    was trained on texts without a context.
    """
    if style == "compact":
        return [{"role": "user", "content": f"{control_line(target)}\n{text}"}]
    return [
        {"role": "system", "content": system_prompt(target.space)},
        {
            "role": "user",
            "content": f"Target values: {_profile(target)}\n\nQuestion:\n{query}\n\n{_earlier(context)}Answer to rewrite:\n{text}",
        },
    ]


def control_line(target: ValueVector) -> str:
    """The quantized non-zero components in circumplex order, e.g. "security -1 stimulation +2"; levels in half steps, "neutral" for 0.

    Schwartz's only: the small model knows no other dimensions.
    """
    known = load_space("schwartz").index
    quantized = target.quantize().to_dict(digits=1)
    return " ".join(f"{name} {round(value * 2):+d}" for name, value in quantized.items() if value and name in known) or "neutral"


def system_prompt(space: Space) -> str:
    """Both objectives, the 5-point scale, the definitions, what to do and not to do (paper, App. D.1, E.2.2)."""
    definitions = "\n".join(f"- {d.title} ({d.name}): {d.goal}. {d.signals}".rstrip() for d in space.dimensions)
    return f"""You rewrite an assistant's answer so that it expresses given values while it keeps saying exactly the same thing.

Two objectives, both binding:
1. Value alignment: the rewritten answer expresses the target values, each at its level.
2. Semantic integrity: whoever reads the rewrite learns the same facts and advice as from the original, nothing more and nothing less.

Levels (5-point scale): {SCALE}.

Values:
{definitions}

DO
- change wording, emphasis and framing so that the target values show
- keep every statement, step, condition and negation of the original, in its order and with its layout
- keep the language of the original and about its length
- copy placeholders such as ⟦1⟧ exactly, each once and in their order

DO NOT
- add facts, examples, advice, numbers, names, links or promises
- drop or weaken anything the original says
- mention values, levels, these rules or that the text was rewritten

Answer with the rewritten answer only."""


def _profile(target: ValueVector) -> str:
    """Non-zero components as "name level", levels of the 5-point scale."""
    quantized = target.quantize().to_dict(digits=1)
    return ", ".join(f"{name} {value:+g}" for name, value in quantized.items() if value) or "none (stay neutral)"


def _earlier(context: Context) -> str:
    """What stands before a part of an answer, "" for a whole one."""
    if not context.outline:
        return ""
    head = "The answer to rewrite is the next part of a longer one. For orientation only, not to be repeated:"
    tail = f"\nThe reader has just read:\n{context.tail.strip()}" if context.tail else ""
    return f"{head}\nEarlier parts:\n{context.outline}{tail}\n\n"
