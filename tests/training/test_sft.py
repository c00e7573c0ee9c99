"""A tiny run: it learns, it resumes to the same weights, and what it writes loads again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

from visa_proxy.errors import ConfigError
from visa_proxy.training.bundle import write_model
from visa_proxy.training.phrases import phrases
from visa_proxy.training.probe import held, measure, probe
from visa_proxy.training.sft import Recipe, Trainer, encode
from visa_proxy.training.sources import Sources
from visa_proxy.training.synthesis import Synthesizer
from visa_proxy.training.tokenizer import prompt_text, train_tokenizer
from visa_proxy.values import load_space

TEXTS = [
    "You can start with a short walk every day. The path by the river is flat. Bring water and a light jacket.",
    "A budget lists what comes in and what goes out. Write down every expense for a month. The plan costs $5 a month.",
    "Keep the receipt in a safe place. They answer within two weeks in most cases. You should ask for a refund.",
] * 3
RECIPE = Recipe(
    model={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
    vocab_size=600,
    batch_tokens=512,
    pool=16,
    dtype="float32",
    minutes=None,
    steps=20,
    checkpoint_every=5,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small lose more to waiting for each other than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer(load_space("schwartz"), Sources.of(TEXTS), phrases())


@pytest.fixture(scope="module")
def tokenizer(synthesizer: Synthesizer) -> Any:
    rng = random.Random(0)
    pairs = [synthesizer.pair(rng) for _ in range(200)]
    texts = [text for pair in pairs for text in (pair.prompt, pair.answer)]
    return train_tokenizer(texts, vocab_size=RECIPE.vocab_size)


def trainer(tokenizer: Any, synthesizer: Synthesizer, run: Path) -> Trainer:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **RECIPE.model))
    return Trainer(model, tokenizer, synthesizer, RECIPE, run)


def test_placeholders_are_single_tokens_and_the_chat_template_is_the_prompt(tokenizer: Any) -> None:
    assert "⟦7⟧" in tokenizer.tokenize("a ⟦7⟧.")
    content = "power +1\nOne.\n\nTwo ⟦1⟧."
    messages = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == prompt_text(content)


def test_loss_is_on_the_answer_only(tokenizer: Any, synthesizer: Synthesizer) -> None:
    pair = synthesizer.pair(random.Random(1))
    ids, prompt = encode(tokenizer, pair)
    assert tokenizer.decode(ids[prompt:]) == pair.answer + tokenizer.eos_token
    assert ids[prompt - 1 :][0] != tokenizer.eos_token_id


def test_a_resumed_run_ends_with_the_same_weights(tokenizer: Any, synthesizer: Synthesizer, tmp_path: Path) -> None:
    losses: list[float] = []
    whole = trainer(tokenizer, synthesizer, tmp_path / "whole")
    whole.train(lambda _, loss: losses.append(loss))
    assert whole.step == 20
    assert losses[-1] < losses[0] - 0.2

    trainer(tokenizer, synthesizer, tmp_path / "cut").train(lambda *_: None, stop_at=8)
    resumed = trainer(tokenizer, synthesizer, tmp_path / "cut")
    assert resumed.restore()
    assert resumed.step == 8
    resumed.train(lambda *_: None)
    for one, other in zip(whole.masters, resumed.masters, strict=True):
        assert torch.equal(one, other)


def test_the_model_folder_loads_and_answers(tokenizer: Any, synthesizer: Synthesizer, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    state = trainer(tokenizer, synthesizer, tmp_path / "run")
    figures = measure(state.model, held(synthesizer, tokenizer, count=4))
    assert figures["loss"] > 0
    assert 0 <= figures["copy_exact"] <= 1
    write_model(state.model, tokenizer, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["chat_template"]
    assert settings["response_template"]["start_anchor"] == "<|assistant|>\n"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    result, rows = probe(model, loaded, load_space("schwartz"), phrases(), TEXTS[:1], [{"power": 1.0}])
    assert result.rewrites == len(rows) == 1


def test_a_recipe_with_an_unknown_key_or_two_budgets_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("model: {}\nspeed: 3\n")
    with pytest.raises(ConfigError, match="speed"):
        Recipe.load(file)
    file.write_text("model: {}\nsteps: 3\n")
    with pytest.raises(ConfigError, match="minutes or steps"):
        Recipe.load(file)
