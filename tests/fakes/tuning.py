"""A model of a hundred thousand parameters, rows and a recipe to train it with in seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visa_proxy.rewriter.chat import BUNDLED_MODEL
from visa_proxy.training.triplets import Triplet, written

TRAINER = "bf16: false, gradient_checkpointing: false, dataloader_pin_memory: false, logging_steps: 1, save_total_limit: 2"
RECIPE = f"""\
prompt: compact
max_prompt_tokens: 300
max_completion_tokens: 160
reward: {{scalarisation: fixed, gates: [form, length, placeholders]}}
held: {{rows: 4, every: 2, batch: 4}}
pairs: {{prompts: 4, samples: 3, margin: 0.001, batch: 12, temperature: 1.0}}
sft: {{{TRAINER}, learning_rate: 0.01, max_steps: 4, per_device_train_batch_size: 4}}
grpo: {{{TRAINER}, learning_rate: 0.001, beta: 0.01, max_steps: 4, num_generations: 4, per_device_train_batch_size: 8}}
dpo: {{{TRAINER}, learning_rate: 0.001, max_steps: 2, per_device_train_batch_size: 4}}
simpo: {{{TRAINER}, learning_rate: 0.001, loss_type: simpo, cpo_alpha: 0.0, max_steps: 2, per_device_train_batch_size: 4}}
"""


def tiny_model(folder: Path) -> Path:
    """A Qwen3 of new weights with the bundled rewriter's tokenizer."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    assert sum(weight.numel() for weight in model.parameters()) < 100_000
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    return folder


def some(count: int) -> list[Triplet]:
    """Hand-written triplets, most of them to train on."""
    return [*written("train")[: count - 6], *written("validation")[:6]]


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def triplets_file(file: Path, count: int = 24) -> Path:
    return write_rows(file, [triplet.to_dict() for triplet in some(count)])


def recipe_file(file: Path, *changes: tuple[str, str]) -> Path:
    """`RECIPE` with each (old, new) replaced once; every old must be there."""
    text = RECIPE
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    file.write_text(text, encoding="utf-8")
    return file


def curve(out: Path, kind: str) -> list[dict[str, Any]]:
    """The rows of a run's curve of one kind."""
    lines = (out / "run" / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]
