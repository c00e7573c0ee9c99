"""The entailment head: token states of premise and hypothesis -> how surely the premise covers the hypothesis.

Cross-attention aligns every token with the other side (decomposable attention, Parikh et al. 2016), a small network
compares each token with what it aligned to (ESIM's difference and product, Chen et al. 2017), and learned attention
and a maximum pool the result. Plain functions over a dictionary of tensors: training and inference share them, and
importing this file loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.minilm import WIDTH
from visa_proxy.facts.lexical import COUNT

Tensors = dict[str, Any]
"""Name -> torch tensor."""

HIDDEN: Final = 128
COMPARED: Final = 128
LEXICAL: Final = 64
_FEATURES: Final = 4 * HIDDEN + 1
SHAPES: Final[dict[str, tuple[int, ...]]] = {
    "project.weight": (HIDDEN, WIDTH),
    "project.bias": (HIDDEN,),
    "attend.weight": (HIDDEN, WIDTH),
    "cosine_scale": (1,),
    "hypothesis.weight": (COMPARED, _FEATURES),
    "hypothesis.bias": (COMPARED,),
    "hypothesis2.weight": (COMPARED, COMPARED),
    "hypothesis2.bias": (COMPARED,),
    "hypothesis_pool.weight": (1, COMPARED),
    "premise.weight": (COMPARED, _FEATURES),
    "premise.bias": (COMPARED,),
    "premise_pool.weight": (1, COMPARED),
    "lexical.weight": (LEXICAL, COUNT),
    "lexical.bias": (LEXICAL,),
    "output.weight": (COMPARED, 4 * COMPARED + LEXICAL),
    "output.bias": (COMPARED,),
    "score.weight": (1, COMPARED),
    "score.bias": (1,),
}


def pad(torch: Any, states: Sequence[NDArray[Any]]) -> tuple[Any, Any]:
    """(batch, tokens, 384) float32 and its mask (batch, tokens), 1 for a token."""
    longest = max(len(s) for s in states)
    tokens = np.zeros((len(states), longest, WIDTH), np.float32)
    mask = np.zeros((len(states), longest), np.float32)
    for i, state in enumerate(states):
        tokens[i, : len(state)] = state
        mask[i, : len(state)] = 1
    return torch.from_numpy(tokens), torch.from_numpy(mask)


def logits(
    torch: Any,
    weights: Tensors,
    premise: tuple[Any, Any],
    hypothesis: tuple[Any, Any],
    lexical: Any,
    dropout: float = 0.0,
) -> Any:
    """(batch,) log-odds that the premise entails the hypothesis.

    `premise`, `hypothesis`: from `pad`; `lexical`: (batch, 16), `lexical.features`; `dropout` > 0 only in training.
    """
    functional = torch.nn.functional
    (p, p_mask), (h, h_mask) = premise, hypothesis
    if dropout:
        p, h = functional.dropout(p, dropout), functional.dropout(h, dropout)
    p_small = functional.linear(p, weights["project.weight"], weights["project.bias"])
    h_small = functional.linear(h, weights["project.weight"], weights["project.bias"])
    cosine = functional.normalize(h, dim=-1) @ functional.normalize(p, dim=-1).transpose(1, 2)
    p_key, h_key = functional.linear(p, weights["attend.weight"]), functional.linear(h, weights["attend.weight"])
    affinity = h_key @ p_key.transpose(1, 2) / HIDDEN**0.5 + weights["cosine_scale"] * cosine
    hidden_premise = (p_mask == 0).unsqueeze(1)
    hidden_hypothesis = (h_mask == 0).unsqueeze(1)
    to_premise = affinity.masked_fill(hidden_premise, -1e4).softmax(-1)
    to_hypothesis = affinity.transpose(1, 2).masked_fill(hidden_hypothesis, -1e4).softmax(-1)
    h_best = cosine.masked_fill(hidden_premise, -1.0).amax(-1, keepdim=True)
    p_best = cosine.transpose(1, 2).masked_fill(hidden_hypothesis, -1.0).amax(-1, keepdim=True)
    h_seen = _compare(functional, weights, "hypothesis", h_small, to_premise @ p_small, h_best, torch)
    h_seen = functional.gelu(functional.linear(h_seen, weights["hypothesis2.weight"], weights["hypothesis2.bias"]))
    p_seen = _compare(functional, weights, "premise", p_small, to_hypothesis @ h_small, p_best, torch)
    words = functional.gelu(functional.linear(lexical, weights["lexical.weight"], weights["lexical.bias"]))
    pooled = [*_pool(weights, "hypothesis", h_seen, h_mask), *_pool(weights, "premise", p_seen, p_mask), words]
    pooled = torch.cat(pooled, -1)
    if dropout:
        pooled = functional.dropout(pooled, dropout)
    last = functional.gelu(functional.linear(pooled, weights["output.weight"], weights["output.bias"]))
    return functional.linear(last, weights["score.weight"], weights["score.bias"]).squeeze(-1)


def _compare(functional: Any, weights: Tensors, side: str, own: Any, other: Any, best: Any, torch: Any) -> Any:
    features = torch.cat([own, other, own - other, own * other, best], -1)
    return functional.gelu(functional.linear(features, weights[f"{side}.weight"], weights[f"{side}.bias"]))


def _pool(weights: Tensors, side: str, seen: Any, mask: Any) -> tuple[Any, Any]:
    """Maximum and learned mean over the tokens."""
    hidden = (mask == 0).unsqueeze(-1)
    share = (seen @ weights[f"{side}_pool.weight"].T).masked_fill(hidden, -1e4).softmax(1)
    return seen.masked_fill(hidden, -1e4).amax(1), (seen * share).sum(1)


def initial(torch: Any, seed: int) -> Tensors:
    """Random weights for training."""
    generator = torch.Generator().manual_seed(seed)
    weights: Tensors = {}
    for name, shape in SHAPES.items():
        spread = (1.0 / shape[-1]) ** 0.5
        weights[name] = torch.randn(shape, generator=generator) * spread if name.endswith("weight") else torch.zeros(shape)
    weights["cosine_scale"] += 8.0
    return {name: tensor.requires_grad_() for name, tensor in weights.items()}
