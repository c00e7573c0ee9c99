"""The paper's prompting baselines (App. E.2): a direct instruction, rules and definitions, chain of thought."""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

from visa_proxy.errors import RewriterError
from visa_proxy.evaluation.cases import Case
from visa_proxy.rewriter.chat import without_thoughts
from visa_proxy.rewriter.prompt import SCALE, Message, render, system_prompt

Baseline = Literal["simple", "rules", "cot"]
BASELINES: Final[tuple[Baseline, ...]] = get_args(Baseline)
THOUGHTS: Final[dict[Baseline, int]] = {"simple": 512, "rules": 512, "cot": 2_048}
"""Tokens beyond a text as long as the answer: nobody's answer is cut because of what they think first."""
_LAST: Final = "Answer with the rewritten answer only."
_THINK: Final = """First think, between <think> and </think>: which of the target values the answer expresses already and which it does not, \
which statements must stay, and which wording can carry the values. Then write the rewritten answer, and nothing else, between <answer> and \
</answer>."""
_ANSWER: Final = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def messages(baseline: Baseline, case: Case) -> list[Message]:
    """What the model is asked; the answer stands in it as it is, without placeholders."""
    full = render("full", query=case.query, text=case.answer, target=case.target)
    if baseline == "rules":
        return full
    user = full[-1]
    if baseline == "simple":
        system = (
            "Rewrite the assistant's answer so that it expresses the target values (Schwartz's basic human values, on a 5-point scale: "
            f"{SCALE}). Keep all of its key information. Answer with the rewritten answer only."
        )
        return [{"role": "system", "content": system}, user]
    rules = system_prompt(case.target.space)
    assert rules.endswith(_LAST)
    return [{"role": "system", "content": rules.removesuffix(_LAST) + _THINK}, user]


def answer_in(baseline: Baseline, reply: str) -> str:
    """The rewritten answer in what the model wrote. Raises RewriterError where there is none."""
    text = without_thoughts(reply)
    if baseline == "cot":
        marked = _ANSWER.findall(text)
        if not marked:
            raise RewriterError("unmarked", "the model did not mark its answer")
        text = marked[-1].strip()
    if not text:
        raise RewriterError("empty", "the model's answer is empty")
    return text
