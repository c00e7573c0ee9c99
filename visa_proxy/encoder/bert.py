"""The forward pass of a BERT encoder with nothing else around it, in the number format the processor is fastest at.

A sentence of a dozen tokens is a few milliseconds of matrix products; the library's modules cost as much again, and bfloat16,
where the processor multiplies it, costs a third of float32 (`benchmarks/instruments.py`). Training shares `layer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need

LAYERS: Final = "layers.safetensors"
"""File of the layers that were trained further: matrices as int8, each with the scale of every row, the rest as float16."""
SCALE: Final = ".scale"
PARTS: Final = (
    "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "attention.output.LayerNorm",
    "intermediate.dense", "output.dense", "output.LayerNorm",
)  # fmt: skip
"""What a layer consists of, each a weight and a bias."""

Tensor = Any
LayerWeights = Mapping[str, Tensor]
"""`<part>.weight` and `<part>.bias` for each of `PARTS`, or with query, key and value as one matrix, `qkv`."""


class Bert:
    """Token ids to last hidden states. Immutable, safe in any thread."""

    def __init__(self, model: Any, layers: Path | None = None, *, exact: bool = False) -> None:
        """`model`: transformers' BertModel; `layers`: a file with other weights for some; `exact`: float32 on any processor.

        Raises ConfigError for a model that is no BERT, and for a file that is missing, garbled or made for another model.
        """
        self._torch = torch = need("torch", extra="local")
        config = model.config
        if config.model_type != "bert":
            raise ConfigError([f"encoder: a model of type bert is needed, this is {config.model_type}"])
        self.heads, self.eps = config.num_attention_heads, config.layer_norm_eps
        self.type = torch.bfloat16 if not exact and has_bfloat16(torch) else torch.float32
        weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        if layers is not None:
            weights |= read_layers(layers, weights)
        self._words = weights["embeddings.word_embeddings.weight"]
        self._places = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        self._norm = weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"]
        self.layers = [fused(torch, layer_of(weights, number), self.type) for number in range(config.num_hidden_layers)]

    def __call__(self, ids: Tensor, mask: Tensor, layers: int | None = None) -> Tensor:
        """`ids`, `mask`: (sentences, tokens); states (sentences, tokens, width) after `layers` layers (default: all).

        float32; those of padding have no meaning.
        """
        functional = self._torch.nn.functional
        states = functional.embedding(ids, self._words) + self._places[: ids.shape[1]]
        states = functional.layer_norm(states, states.shape[-1:], *self._norm, eps=self.eps).to(self.type)
        seen = None if bool(mask.all()) else mask[:, None, None, :].bool()
        for weights in self.layers[:layers]:
            states = layer(functional, states, weights, seen, self.heads, self.eps)
        return states.float()


def layer(functional: Any, states: Tensor, weights: LayerWeights, seen: Tensor | None, heads: int, eps: float) -> Tensor:
    """One layer: (sentences, tokens, width) to the same; `seen`: which tokens may be looked at, None for all.

    `weights`: of `fused`.
    """
    count, length, width = states.shape
    query, key, value = _linear(functional, states, weights, "qkv").view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    if states.requires_grad or query.requires_grad:
        # The library's kernel takes a third of a training step for the gradients of sentences as short as these.
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        scores = scores if seen is None else scores.masked_fill(~seen, -1e4)
        mixed = scores.softmax(-1) @ value
    else:
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
    mixed = mixed.transpose(1, 2).reshape(count, length, width)
    states = _norm(functional, states + _linear(functional, mixed, weights, PARTS[3]), weights, PARTS[4], eps)
    wide = functional.gelu(_linear(functional, states, weights, PARTS[5]))
    return _norm(functional, states + _linear(functional, wide, weights, PARTS[6]), weights, PARTS[7], eps)


def layer_of(weights: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """The weights of one layer, by the names of `PARTS`."""
    names = [f"{part}.{kind}" for part in PARTS for kind in ("weight", "bias")]
    return {name: weights[f"encoder.layer.{number}.{name}"] for name in names}


def fused(torch: Any, weights: LayerWeights, dtype: Any) -> dict[str, Tensor]:
    """A layer as `layer` takes it: query, key and value in one matrix, everything in `dtype`."""
    found = {name: tensor.to(dtype).contiguous() for name, tensor in weights.items() if not name.startswith("attention.self.")}
    for kind in ("weight", "bias"):
        found[f"qkv.{kind}"] = torch.cat([weights[f"{part}.{kind}"] for part in PARTS[:3]]).to(dtype)
    return found


def _linear(functional: Any, states: Tensor, weights: LayerWeights, part: str) -> Tensor:
    return functional.linear(states, weights[f"{part}.weight"], weights[f"{part}.bias"])


def _norm(functional: Any, states: Tensor, weights: LayerWeights, part: str, eps: float) -> Tensor:
    return functional.layer_norm(states, states.shape[-1:], weights[f"{part}.weight"], weights[f"{part}.bias"], eps=eps)


def has_bfloat16(torch: Any) -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, bfloat16 is slower than float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def read_layers(file: Path, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in `file`, which take the place of those of the same name in `weights`.

    Raises ConfigError naming the file when it cannot be used.
    """
    try:
        stored = need("safetensors.torch", extra="local").load_file(str(file))
        found: dict[str, Tensor] = {
            name: tensor.float() * (stored[name + SCALE].float() if name + SCALE in stored else 1.0)
            for name, tensor in stored.items()
            if not name.endswith(SCALE)
        }
    except Exception as error:  # the safetensors library has its own exception class, and OSError for files
        raise ConfigError([f"{file}: cannot read the layers of the encoder: {error}"]) from error
    wrong = [name for name, tensor in found.items() if name not in weights or weights[name].shape != tensor.shape]
    if wrong:
        raise ConfigError([f"{file}: layers of another encoder: {', '.join(wrong[:3])} unknown or of another shape"])
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        raise ConfigError([f"{file}: the weights hold NaN or infinity"])
    return found


def packed(torch: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a file of layers holds for `weights`: half the size of float16, and the same to a 250th of each row's largest entry."""
    stored: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        weight = tensor.detach().float()
        if weight.dim() < 2:
            stored[name] = weight.half()
            continue
        scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
        stored[name] = (weight / scale).round().to(torch.int8)
        stored[name + SCALE] = scale
    return stored
