"""A detector on a real vLLM: what it reads is what transformers computes with the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fakes.child import Child, tail
from tests.vllm.server import serving_vllm
from visa_proxy.detector.pooling import PoolingDetector, model_input
from visa_proxy.errors import InstrumentError
from visa_proxy.llm.http import HttpEndpoint, new_session
from visa_proxy.values import Space, join, load_space, load_spaces

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

CALL_S: Final = 120.0
MODEL: Final = "values"
MAX_LENGTH: Final = 512
SPACE: Final = load_space("schwartz")
TEXTS: Final = (
    ("How do I cook rice?", "Rinse it, and let it simmer for 15 minutes."),
    ("Shall I climb\nat night?", "Stay safe: climb by day, with a rope.\n\nYour friends can wait."),
    ("", "Yes."),
    ("Où aller ?", "À Paris, bien sûr 🎈"),
)


def write_model(folder: Path) -> None:
    """A tiny Qwen3 with random weights, ten outputs, and a token for every byte."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForSequenceClassification

    vocabulary = {token: i for i, token in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        num_labels=len(SPACE),
        problem_type="regression",
        initializer_range=0.1,
    )
    Qwen3ForSequenceClassification(config).eval().save_pretrained(folder)
    fast.save_pretrained(folder)


def logits(folder: Path, query: str, answer: str) -> NDArray[np.float64]:
    """What transformers computes."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    given = AutoTokenizer.from_pretrained(folder)(model_input(query, answer), return_tensors="pt")
    with torch.no_grad():
        found: Any = model(input_ids=given["input_ids"], attention_mask=given["attention_mask"]).logits[0]
    return np.asarray(found.tolist())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("values") / "model"
    write_model(folder)
    return folder


@pytest.fixture(scope="module")
def vllm(model: Path) -> Iterator[Child]:
    pooling = ("--runner", "pooling")
    with serving_vllm(model, *pooling, names=[MODEL], max_length=MAX_LENGTH, log=model.parent / "log") as child:
        yield child
        print(f"vLLM's log\n{tail(child.log)}")  # noqa: T201 - pytest shows it when a test failed


async def detect(vllm: Child, query: str, answer: str, space: Space = SPACE, model: str = MODEL) -> NDArray[np.float64]:
    async with new_session() as session:
        endpoint = HttpEndpoint(session, vllm.url, timeout_s=CALL_S, name="detector")
        return (await PoolingDetector(endpoint, model, space).detect(query, answer)).values.array


async def test_it_reads_what_the_model_computes(vllm: Child, model: Path) -> None:
    expected = np.stack([logits(model, *text) for text in TEXTS])
    assert expected.min() < -1 and expected.max() > 1, "some are to be clipped"
    assert (np.abs(expected) < 0.9).any(), "and some are not"
    found = np.stack([await detect(vllm, *text) for text in TEXTS])
    np.testing.assert_allclose(found, np.clip(expected, -1, 1), atol=1e-2)


async def test_what_does_not_fit_is_an_error_without_the_text(vllm: Child) -> None:
    with pytest.raises(InstrumentError, match=r"10 outputs.*15 dimensions"):
        await detect(vllm, *TEXTS[0], space=join(load_spaces(["tone"])))
    with pytest.raises(InstrumentError, match="status 404"):
        await detect(vllm, *TEXTS[0], model="another")
    with pytest.raises(InstrumentError, match="status 400") as caught:
        await detect(vllm, "", "Far too long. " * MAX_LENGTH)
    assert "Far" not in str(caught.value)
