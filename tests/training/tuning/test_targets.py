"""v* on the fly: what a row gives, an offset from what is measured, an instruction translated (paper, Algorithm 1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from visa_proxy.policy.load import load_policy
from visa_proxy.rewriter.chat import BUNDLED_MODEL
from visa_proxy.server.components import Instruments
from visa_proxy.shield.preserve import protect
from visa_proxy.training.rewards.grader import Case
from visa_proxy.training.tuning.prompts import OnTheFly, fitting, hidden, prompt
from visa_proxy.training.tuning.targets import Aims
from visa_proxy.training.tuning.tasks import Task
from visa_proxy.values import Target, ValueVector, load_space

SPACE = load_space("schwartz")
ANSWER = "Stay safe: turn off the power at the fuse box first. Unscrew the cover."
QUERY = "How do I change a socket?"
BOLD = Target("offset", ValueVector.of(SPACE, {"stimulation": 1.0, "security": -0.5}))
ACME = Path(__file__).parents[3] / "policies" / "acme-outdoors.yaml"


def task(target: Target | None, instruction: str = "") -> Task:
    return Task("1", "train", QUERY, ANSWER, target, instruction)


@pytest.fixture
def aims(instruments: Instruments) -> Aims:
    return Aims(instruments.detector, lambda: instruments.translator)


async def test_given_levels_are_the_target(instruments: Instruments) -> None:
    aims = Aims(instruments.detector, lambda: pytest.fail("no translator is needed"))
    (case,) = await aims.cases([task(Target("target", BOLD.values))])
    assert case.target == BOLD.values


async def test_an_offset_starts_from_what_the_answer_expresses(aims: Aims, instruments: Instruments) -> None:
    (case,) = await aims.cases([task(BOLD)])
    before = (await instruments.detector.detect(QUERY, ANSWER)).values.cleared(0.05)
    assert before["security"] > 0.3
    assert case.target["security"] == pytest.approx(max(-1, min(1, before["security"] - 0.5)), abs=1e-3)
    assert case.target["stimulation"] == pytest.approx(min(1, before["stimulation"] + 1), abs=1e-3)


async def test_an_instruction_is_translated(aims: Aims, instruments: Instruments) -> None:
    asked = "Make it kinder and more caring."
    (case,) = await aims.cases([task(None, asked)])
    before = (await instruments.detector.detect(QUERY, ANSWER)).values.cleared(0.05)
    delta = (await instruments.translator.translate(QUERY, ANSWER, asked)).offset
    assert delta["benevolence"] > 0.3
    assert case.target.array == pytest.approx(before.offset(delta).array, abs=1e-3)


async def test_a_tenants_glossary_is_protected(instruments: Instruments) -> None:
    aims = Aims(instruments.detector, lambda: instruments.translator, load_policy(ACME))
    assert "Acme Summit Club" in aims.protected("Ask the Acme Summit Club about it.").spans


async def test_a_data_set_makes_its_rows_when_asked(aims: Aims) -> None:
    import asyncio

    tasks = [task(Target("target", BOLD.values)), task(BOLD)]
    made: list[int] = []

    def run(work: object) -> list[Case]:
        found: list[Case] = asyncio.run(work)  # type: ignore[arg-type]
        made.append(len(found))
        return found

    rows = OnTheFly(tasks, aims, run, "compact")
    found = await asyncio.to_thread(rows, {"row": [0, 0, 1, 1]})
    assert set(found) == {"prompt", "query", "answer", "text", "spans", "target"}
    assert found["prompt"][0] == [{"role": "user", "content": f"security -1 stimulation +2\n{ANSWER}"}]
    assert found["prompt"][2] != found["prompt"][0] and made == [2]
    await asyncio.to_thread(rows, {"row": [1]})
    assert made == [2, 0]


def test_written_rewrites_get_the_answers_placeholders() -> None:
    shield = protect("Pay £10 by 5 May at www.example.org. It holds 2 litres of 2024 wine in 1080p.")
    spans = shield.spans
    assert "2" in spans and any("2024" in span for span in spans)
    rewrite = "Gladly pay £10 by 5 May at www.example.org. It holds, mark it, 2 litres of 2024 wine in 1080p."
    found = hidden(shield, rewrite)
    assert found is not None and shield.restore(found) == rewrite and shield.intact(found)
    assert hidden(shield, rewrite.replace("£10", "£11")) is None
    assert hidden(shield, "At www.example.org pay £10 by 5 May. It holds 2 litres of 2024 wine in 1080p.") is None


async def test_the_message_that_all_prompts_share_takes_no_row_its_place(aims: Aims) -> None:
    from visa_proxy.training.tuning.models import Start, tokenizer_of

    tokenizer = tokenizer_of(Start(str(BUNDLED_MODEL)))
    tasks = [task(Target("target", BOLD.values)), Task("2", "train", QUERY, ANSWER * 30, Target("target", BOLD.values))]
    assert fitting(tasks, aims, "full", tokenizer, {}, (200, 100)) == tasks[:1]
    assert fitting(tasks, aims, "full", tokenizer, {}, (2000, 100)) == tasks
    short = [Task("3", "train", QUERY, ANSWER, Target("target", BOLD.values), rewrite=f"Dare it! {ANSWER}")]
    assert fitting(short, aims, "full", tokenizer, {}, (200, 100)) == short
    assert fitting(short, aims, "full", tokenizer, {}, (200, 10)) == []


def test_the_prompt_is_the_served_one() -> None:
    from visa_proxy.rewriter.prompt import render

    case = Case(QUERY, f"{ANSWER} It costs £10.\n", protect(f"{ANSWER} It costs £10.\n"), BOLD.values)
    for style in ("compact", "full"):
        text = f"{ANSWER} It costs ⟦1⟧."
        assert prompt(case, style) == render(style, query=QUERY, text=text, target=BOLD.values)
