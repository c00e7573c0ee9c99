"""Models in this process: the bundled rewriter, and a tiny one made here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from visa_proxy.errors import ConfigError, RewriterError
from visa_proxy.evaluation.cases import bundled, read_cases
from visa_proxy.evaluation.causal import load_causal
from visa_proxy.evaluation.fluency import Fluency
from visa_proxy.evaluation.local import LocalModel, LocalRewriter
from visa_proxy.rewriter.base import RewriteRequest
from visa_proxy.rewriter.chat import BUNDLED_MODEL
from visa_proxy.rewriter.prompt import render

CASES = [case for case in read_cases(bundled()) if len(case.answer) < 250][:6]
PROMPTS = [render("compact", query="", text=case.answer, target=case.target) for case in CASES]
LONG_S = 60.0


@pytest_asyncio.fixture
async def model() -> AsyncIterator[LocalModel]:
    found = await LocalModel.open(BUNDLED_MODEL, "--system a")
    yield found
    await found.close()


async def test_a_batch_says_what_each_prompt_by_itself_does(model: LocalModel) -> None:
    together = await asyncio.gather(*(model.ask(prompt, 200, timeout_s=LONG_S) for prompt in PROMPTS))
    alone = [await model.ask(prompt, 200, timeout_s=LONG_S) for prompt in PROMPTS]
    assert together == alone and len(set(alone)) == len(PROMPTS)


async def test_who_comes_while_a_batch_is_under_way_is_answered_too(model: LocalModel) -> None:
    first = asyncio.create_task(model.ask(PROMPTS[0], 200, timeout_s=LONG_S))
    await asyncio.sleep(0.05)
    second = await model.ask(PROMPTS[1], 200, timeout_s=LONG_S)
    assert second and await first and second != await first


async def test_a_model_that_fails_says_so_to_all_who_asked(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    causal = model._causal
    monkeypatch.setattr(causal.model, "generate", lambda *args, **options: causal.torch.zeros(2) @ causal.torch.zeros(3))
    asked = (model.ask(prompt, 200, timeout_s=LONG_S) for prompt in PROMPTS[:2])
    failed = await asyncio.gather(*asked, return_exceptions=True)
    assert [each.reason for each in failed if isinstance(each, RewriterError)] == ["error", "error"]


@pytest.mark.parametrize(
    ("most", "timeout_s", "repeat", "reason"),
    [(1, LONG_S, 1, "endless"), (200, 0.0, 1, "timeout"), (200, LONG_S, 40, "too-long")],
)
async def test_what_is_no_answer_is_an_error(model: LocalModel, most: int, timeout_s: float, repeat: int, reason: str) -> None:
    message = {"role": "user", "content": PROMPTS[0][0]["content"] * repeat}
    with pytest.raises(RewriterError) as error:
        await model.ask([message], most, timeout_s=timeout_s)
    assert error.value.reason == reason


async def test_a_rewriter_takes_as_much_as_its_style_does(model: LocalModel) -> None:
    rewriter = LocalRewriter(model, "small")
    assert model.style == "compact" and rewriter.reach == 600
    request = RewriteRequest(query="", text=CASES[0].answer, target=CASES[0].target, candidates=3)
    made = await rewriter.rewrite(request, timeout_s=LONG_S)
    assert made.texts == (await model.ask(PROMPTS[0], 200, timeout_s=LONG_S),)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some thousand parameters with an ordinary vocabulary: bytes, and no placeholders."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {token: i for i, token in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core: Any = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", chat_template=template)
    tokenizer.save_pretrained(folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    config = Qwen3Config(vocab_size=len(vocabulary), num_key_value_heads=1, eos_token_id=0, max_position_embeddings=4096, **shape)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


async def test_any_other_model_is_asked_in_full(tiny: Path) -> None:
    model = await LocalModel.open(tiny, "--system a")
    assert model.style == "full"
    with pytest.raises(RewriterError, match=r"did not come to an end|is empty"):
        await model.ask([{"role": "user", "content": "Hello."}], 8, timeout_s=LONG_S)


def test_a_model_without_a_chat_template_is_named(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="--system a: found a tokenizer without a chat template in"):
        asyncio.run(LocalModel.open(tmp_path, "--system a"))


def test_surprise_adds_up(tiny: Path) -> None:
    fluency = Fluency(tiny)
    nats, tokens = fluency.surprise("It is so.")
    assert tokens == 9 and 9 * 4 < nats < 9 * 8, "an untrained model over 257 tokens: about ln 257 each"
    assert fluency.surprise("") == (0.0, 0)


def test_what_is_no_model_is_named(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"garbled")
    with pytest.raises(ConfigError, match="--fluency: no causal language model in"):
        load_causal(tmp_path, "--fluency")
