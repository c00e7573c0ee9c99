"""Our forward pass against the library's, and files of trained layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from visa_proxy.encoder.bert import LAYERS, SCALE, Bert, layer_of, packed, read_layers
from visa_proxy.encoder.minilm import load_model
from visa_proxy.errors import ConfigError

SENTENCES = ["Stay safe.", "The path along the river is four kilometres long, and it is marked with red signs.", "Why?"]


@pytest.fixture(scope="module")
def loaded() -> tuple[Any, Any]:
    return load_model(None)


def states(loaded: tuple[Any, Any], model: Any) -> tuple[Any, Any, Any]:
    """Ours, the library's, and which tokens count."""
    tokenizer, library = loaded
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        ours = model(inputs["input_ids"], inputs["attention_mask"])
        theirs = library.eval()(**inputs).last_hidden_state
    return ours, theirs, inputs["attention_mask"].bool()


def test_in_float32_it_is_the_librarys(loaded: tuple[Any, Any]) -> None:
    ours, theirs, counted = states(loaded, Bert(loaded[1], exact=True))
    torch.testing.assert_close(ours[counted], theirs[counted], atol=1e-4, rtol=1e-4)


def test_in_the_processors_own_format_it_is_close(loaded: tuple[Any, Any]) -> None:
    ours, theirs, counted = states(loaded, Bert(loaded[1]))
    assert torch.nn.functional.cosine_similarity(ours[counted], theirs[counted], dim=-1).min() > 0.995


def test_gradients_flow_and_take_the_same_path(loaded: tuple[Any, Any]) -> None:
    """Training computes attention another way; it must be the same attention."""
    tokenizer, library = loaded
    inputs = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    model = Bert(library, exact=True)
    plain = model(inputs["input_ids"], inputs["attention_mask"])
    model.layers[-1]["qkv.weight"] = model.layers[-1]["qkv.weight"].clone().requires_grad_()
    learning = model(inputs["input_ids"], inputs["attention_mask"])
    counted = inputs["attention_mask"].bool()
    torch.testing.assert_close(plain[counted], learning[counted].detach(), atol=1e-4, rtol=1e-4)
    learning.sum().backward()
    assert model.layers[-1]["qkv.weight"].grad is not None


def test_packed_layers_come_back_nearly_as_they_were(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    weights = dict(loaded[1].state_dict())
    last = {f"encoder.layer.5.{name}": tensor for name, tensor in layer_of(weights, 5).items()}
    save_file(packed(torch, last), str(tmp_path / LAYERS))
    assert (tmp_path / LAYERS).stat().st_size < 0.3 * sum(tensor.numel() * 4 for tensor in last.values())
    for name, tensor in read_layers(tmp_path / LAYERS, weights).items():
        bound = tensor.abs().amax() / 127 if tensor.dim() == 2 else 1e-2
        assert (tensor - weights[name]).abs().max() <= bound
    ours, theirs, counted = states(loaded, Bert(loaded[1], tmp_path / LAYERS))
    assert torch.nn.functional.cosine_similarity(ours[counted], theirs[counted], dim=-1).min() > 0.99


@pytest.mark.parametrize("spoil", ["missing", "garbled", "shape", "unknown", "infinite"])
def test_layers_that_cannot_be_used_are_named(loaded: tuple[Any, Any], tmp_path: Path, spoil: str) -> None:
    file = tmp_path / LAYERS
    name = "encoder.layer.5.output.dense.weight"
    stored = packed(torch, {name: loaded[1].state_dict()[name]})
    if spoil == "garbled":
        file.write_bytes(b"not safetensors")
    elif spoil != "missing":
        if spoil == "shape":
            stored = {name: torch.zeros(3, 3)}
        if spoil == "unknown":
            stored = {"encoder.layer.99.output.dense.weight": stored[name]}
        if spoil == "infinite":
            stored[name + SCALE] = torch.full_like(stored[name + SCALE], torch.inf)
        save_file(stored, str(file))
        assert load_file(str(file))
    with pytest.raises(ConfigError, match=LAYERS.replace(".", r"\.")):
        Bert(loaded[1], file)
