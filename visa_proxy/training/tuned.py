"""The sentence encoder with its last layers in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from visa_proxy.encoder.bert import LAYERS, Bert, fused, layer, layer_of, packed
from visa_proxy.encoder.minilm import HUB_ID, MAX_TOKENS, alike, load_model
from visa_proxy.optional import need

_GROUP: Final = 2048
"""Tokens, padding included, that go through the encoder at once."""


class TunedEncoder:
    """all-MiniLM-L6-v2, of which the last `layers` layers learn; what the others make of a text is computed once."""

    def __init__(self, layers: int, dropout: float) -> None:
        """`dropout`: of the states that reach the learning layers. Raises ConfigError when the encoder cannot be read."""
        self._torch = need("torch", extra="local")
        self._tokenizer, model = load_model(None)
        self._frozen = Bert(model)
        self._first = model.config.num_hidden_layers - layers
        weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        self._layers = [
            {name: weight.clone().requires_grad_() for name, weight in layer_of(weights, number).items()}
            for number in range(self._first, model.config.num_hidden_layers)
        ]
        self._known: dict[str, Any] = {}
        self._dropout, self._learning = dropout, False

    def weights(self) -> dict[str, Any]:
        """What learns, by its name in the whole encoder."""
        return {
            f"encoder.layer.{number}.{name}": weight
            for number, group in enumerate(self._layers, self._first)
            for name, weight in group.items()
        }

    def train(self, learning: bool) -> None:
        """Dropout on or off."""
        self._learning = learning

    def save(self, folder: Path) -> None:
        """`folder/layers.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        stored = packed(self._torch, self.weights())
        need("safetensors.torch", extra="local").save_file(stored, str(folder / LAYERS), metadata={"encoder": HUB_ID})
        (folder / LAYERS).chmod(0o644)

    def encode(self, texts: Sequence[str]) -> tuple[list[Any], Any]:
        """Token states of each text, (tokens, 384), and (texts, 384) embeddings of unit length."""
        torch, functional = self._torch, self._torch.nn.functional
        self._prepare([text for text in texts if text not in self._known])
        # Master weights stay in float32; products are made in the format the processor is fastest at.
        layers = [fused(torch, group, self._frozen.type) for group in self._layers]
        states: list[Any] = [None] * len(texts)
        pooled: list[Any] = [None] * len(texts)
        for group in alike([len(self._known[text]) for text in texts], _full):
            lengths = [len(self._known[texts[i]]) for i in group]
            found = torch.zeros(len(group), max(lengths), self._known[texts[group[0]]].shape[1], dtype=self._frozen.type)
            mask = torch.zeros(len(group), max(lengths))
            for place, (i, length) in enumerate(zip(group, lengths, strict=True)):
                found[place, :length] = self._known[texts[i]]
                mask[place, :length] = 1
            if self._learning and self._dropout:
                found = functional.dropout(found, self._dropout)
            seen = None if min(lengths) == max(lengths) else mask[:, None, None, :].bool()
            for weights in layers:
                found = layer(functional, found, weights, seen, self._frozen.heads, self._frozen.eps)
            found = found.float()
            mean = (found * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
            mean = functional.normalize(mean, dim=-1)
            for place, (i, length) in enumerate(zip(group, lengths, strict=True)):
                states[i], pooled[i] = found[place, :length], mean[place]
        return states, torch.stack(pooled)

    def _prepare(self, texts: Sequence[str]) -> None:
        torch = self._torch
        ids = [self._tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] for text in texts]
        with torch.no_grad():
            for group in alike([len(each) for each in ids], _full):
                longest = max(len(ids[i]) for i in group)
                table = torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in group])
                mask = torch.tensor([[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in group])
                found = self._frozen(table, mask, self._first)
                for place, i in enumerate(group):
                    self._known[texts[i]] = found[place, : len(ids[i])].to(self._frozen.type).clone()


def _full(count: int, shortest: int, length: int) -> bool:
    return (count + 1) * length > _GROUP or length > 1.4 * shortest + 4
