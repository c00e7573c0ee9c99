"""From a trained rewriter to a model folder that vLLM and `transformers serve` load, with its model card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from visa_proxy.training.corpus import read_dolly
from visa_proxy.training.phrases import Phrase
from visa_proxy.training.probe import Figures, probe
from visa_proxy.training.sft import Trainer
from visa_proxy.training.tokenizer import ASSISTANT, END
from visa_proxy.values import load_space

TARGETS: Final[tuple[dict[str, float], ...]] = (
    {"security": -0.5, "stimulation": 1.0, "self_direction": 0.5},
    {"tradition": 1.0, "conformity": 0.5, "security": 1.0},
    {"benevolence": 1.0, "hedonism": 0.5},
    {"achievement": -1.0},
)
"""Targets the card's figures are taken at."""

RESPONSE_TEMPLATE: Final = {
    "defaults": {"role": "assistant"},
    "start_anchor": f"{ASSISTANT}\n",
    "fields": {"content": {"close": END, "content": "text"}},
}
"""How `transformers serve` finds the message in what the model writes."""


def export(trainer: Trainer, data: Path, phrases: Sequence[Phrase], out: Path, *, command: str, texts: int = 24) -> Figures:
    """Write the folder; the card's figures come from greedy rewrites of `texts` held-out answers at all `TARGETS`."""
    write_model(trainer.model, trainer.tokenizer, out)
    answers = [answer.text for answer in read_dolly(data, "heldout")][:texts]
    figures, rows = probe(trainer.model, trainer.tokenizer, load_space("schwartz"), phrases, answers, TARGETS)
    (out / "MODEL_CARD.md").write_text(_card(trainer, figures, command), encoding="utf-8")
    log = [{"prompt": prompt, "rewrite": rewrite, "verdict": verdict} for prompt, rewrite, verdict in rows]
    (trainer.run / "probe.json").write_text(json.dumps(log, indent=1, ensure_ascii=False), encoding="utf-8")
    return figures


def write_model(model: Any, tokenizer: Any, out: Path) -> None:
    """config.json, generation_config.json, model.safetensors in bfloat16, and the tokenizer with its chat template."""
    import torch
    from transformers import GenerationConfig

    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        # `transformers serve` samples only where this says so, and decodes greedily for a request with temperature 0:
        # without it a retry at temperature 0.7 would be the same text once more.
        do_sample=True,
        temperature=0.3,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=512,
        # A rewrite copies most of its input, so guessing the next tokens from the prompt more than halves the time.
        prompt_lookup_num_tokens=16,
    )
    model.save_pretrained(out)
    # One file: engines older than transformers 5 look for the template here only.
    tokenizer.save_pretrained(out, save_jinja_files=False)
    file = out / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    for key in ("backend", "is_local", "local_files_only", "extra_special_tokens"):
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    # `transformers serve` takes any Qwen3 for a chat model of Qwen's own format unless the tokenizer says otherwise.
    settings["response_template"] = RESPONSE_TEMPLATE
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for written in out.iterdir():
        written.chmod(0o644)


def _card(trainer: Trainer, figures: Figures, command: str) -> str:
    parameters = sum(weight.numel() for weight in trainer.weights)
    config = trainer.model.config
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:g} |" for name, value in figures.to_dict().items())
    return f"""# visa-proxy small rewriter

A Qwen3-shaped causal language model ({parameters / 1e6:.1f} M parameters, {config.num_hidden_layers} layers, hidden size
{config.hidden_size}, vocabulary {config.vocab_size}, bfloat16), trained from scratch. It takes the chat message that
`visa_proxy.rewriter.prompt.render("compact", ...)` makes, a control line and a text, and answers with the text moved towards
those value levels by short phrases; everything else, placeholders such as ⟦1⟧ included, is copied.

    security -1 stimulation +2
    You can take the path along the river. It is ⟦1⟧ long.

## Made by

    {command}

{trainer.step} steps, {trainer.elapsed / 60:.0f} minutes of wall clock, seed {trainer.recipe.seed}, {trainer.recipe.optimizer},
peak learning rate {trainer.recipe.learning_rate:g}, about {(trainer.place[0] + 1) * trainer.recipe.pool:,} synthetic pairs,
none seen twice. Recipe: `visa_proxy/training/recipes/rewriter.yaml`. A run with a budget in minutes does not repeat to the bit.

## Data

- databricks-dolly-15k (CC BY-SA 3.0, Copyright 2023 Databricks, Inc.): the answers, as neutral text. 5 % are held out by hash.
- visa-proxy's value phrases (`visa_proxy/training/data/phrases`): what the rewrites add.

## Figures

Greedy rewrites of held-out dolly answers, {len(TARGETS)} targets each.

| | |
|---|---|
{rows}

placeholders intact: each exactly once and in order. sentences kept: share of source sentences found in the rewrite.
all kept: rewrites that lost none. wanted present: share of the wanted (value, level) pairs of which a phrase was added; the
length limit leaves some out on short texts. any wanted: rewrites with at least one. unwanted present: rewrites with a phrase
of another value.

## Limits

English only. It inserts and exchanges phrases it was shown; it does not paraphrase, and its phrases do not depend on the topic.
Texts beyond about 130 words or 400 tokens were not in training. Values outside Schwartz's ten, and
levels other than -1, -0.5, 0.5 and 1, are unknown to it. For production serve a larger model, or a LoRA adapter on your base.
"""
