"""The model behind detector and translator: a head of `visa_proxy.encoder.head` on a tuned encoder, its outputs added up over parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from visa_proxy.encoder.adapted import digest
from visa_proxy.optional import need
from visa_proxy.training.heads import Array, Example, Loss, forward, initial, save_head
from visa_proxy.training.loop import Curve, LoopRecipe, fit
from visa_proxy.training.stats import cosine
from visa_proxy.training.tuned import TunedEncoder


class SummedRecipe(LoopRecipe):
    """How encoder and head are fitted."""

    hidden: int = Field(192, ge=8, le=512)
    """Width of the head's hidden layer."""
    query_dropout: float = Field(0.3, ge=0, le=1)
    """Share of the examples that do not see their query."""
    part_weight: float = Field(0.3, ge=0, le=1000)
    """What the error of a single part counts, where its label is known."""


class SummedModel:
    """Implements `loop.Model` for `Example`s."""

    def __init__(
        self, recipe: SummedRecipe, outputs: tuple[str, ...], loss: Loss, seed: int, *, part_loss: Loss | None = None
    ) -> None:
        """`part_loss`: of a single part whose label is known; None: `loss`. Raises ConfigError when the encoder cannot be read."""
        self._torch = need("torch", extra="local")
        self._torch.manual_seed(seed)
        self._encoder = TunedEncoder(recipe.layers, recipe.dropout)
        self._head = initial(self._torch, recipe.hidden, len(outputs))
        self._recipe, self._outputs, self._loss, self._seed = recipe, outputs, loss, seed
        self._part_loss = part_loss or loss
        self._score: Callable[[], float] = lambda: 0.0

    def fit(
        self,
        examples: Sequence[Example],
        held: Sequence[Example],
        score: Callable[[Array], float],
        folder: Path,
        what: str,
        settings: str = "",
    ) -> Curve:
        """See `loop.fit`; `score` judges the outputs for `held`, (examples, outputs), more is better."""
        self._score = lambda: score(self.outputs(held))
        return fit(self, examples, self._recipe, folder, self._seed, what, settings)

    def groups(self) -> Mapping[str, dict[str, Any]]:
        return {"layers": self._encoder.weights(), "head": self._head}

    def score(self) -> float:
        return self._score()

    def loss(self, batch: Sequence[Example], order: np.random.Generator) -> Any:
        torch, recipe = self._torch, self._recipe
        self._encoder.train(True)
        seen = [bool(e.query) and order.random() >= recipe.query_dropout for e in batch]
        sums, each = self._sums(batch, seen, recipe.dropout)
        target, mask = (torch.from_numpy(np.stack([getattr(e, name) for e in batch])) for name in ("target", "mask"))
        weight = torch.tensor([e.weight for e in batch], dtype=torch.float32)
        loss = self._loss(sums, target, mask, weight)
        places = [i for i, e in enumerate(batch) for _ in e.parts]
        known = [i for i, place in enumerate(places) if batch[place].part_targets is not None]
        if not known or not recipe.part_weight:
            return loss
        targets = torch.from_numpy(np.concatenate([e.part_targets for e in batch if e.part_targets is not None]))
        masks = torch.from_numpy(np.concatenate([e.part_masks for e in batch if e.part_masks is not None]))
        share = weight[[places[i] for i in known]] * (recipe.part_weight * len(known) / len(batch))
        return loss + self._part_loss(each[known], targets, masks, share)

    def outputs(self, examples: Sequence[Example]) -> Array:
        """(examples, outputs): what encoder and head say now."""
        self._encoder.train(False)
        found = []
        with self._torch.inference_mode():
            for start in range(0, len(examples), 64):
                batch = examples[start : start + 64]
                found.append(self._sums(batch, [bool(e.query) for e in batch], 0.0)[0].numpy())
        return np.concatenate(found)

    def save(self, folder: Path, head: str, **metadata: str) -> None:
        """`folder/layers.safetensors`, and the head as `folder/head`; `metadata` goes into the head's file."""
        self._encoder.save(folder)
        tensors = {name: weight.detach().numpy()[None] for name, weight in self._head.items()}
        save_head(folder / head, tensors, self._outputs, layers=digest(folder), **metadata)

    def _sums(self, batch: Sequence[Example], seen: Sequence[bool], dropout: float) -> tuple[Any, Any]:
        """(examples, outputs), the head's outputs added up over the parts of each example; and (parts, outputs), each by itself."""
        torch = self._torch
        asked = [e.query for e, use in zip(batch, seen, strict=True) if use]
        texts = list(dict.fromkeys([*(text for e in batch for text in e.parts), *asked]))
        states, pooled = self._encoder.encode(texts)
        row = {text: i for i, text in enumerate(texts)}
        parts = [row[text] for e in batch for text in e.parts]
        group = torch.from_numpy(np.repeat(np.arange(len(batch)), [len(e.parts) for e in batch]))
        tokens = torch.cat([states[i] for i in parts])
        owner = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor([len(states[i]) for i in parts]))
        nothing = torch.zeros_like(pooled[0])
        query = torch.stack([pooled[row[e.query]] if use else nothing for e, use in zip(batch, seen, strict=True)])
        count = torch.tensor([len(e.parts) for e in batch], dtype=torch.float32).unsqueeze(1)
        context = torch.zeros(len(batch), pooled.shape[1]).index_add(0, group, pooled[parts]) / count
        each = forward(torch, self._head, tokens, owner, pooled[parts], query[group], context[group], dropout)
        return torch.zeros(len(batch), each.shape[1]).index_add(0, group, each), each


def mean_cosine(found: Array, examples: Sequence[Example], size: int) -> float:
    """Of the first `size` outputs to what they should be, over the examples that have one other than zero."""
    pairs = [(row[:size].clip(-1, 1), e.target[:size]) for row, e in zip(found, examples, strict=True) if e.target[:size].any()]
    return float(np.mean([cosine(row, target) for row, target in pairs]))
