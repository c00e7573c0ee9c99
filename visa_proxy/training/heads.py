"""Training a head of `visa_proxy.encoder.head` on encodings computed once (paper, section 3.1, Eqs. 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress

from visa_proxy.encoder.head import FORMAT, SHARPNESS, shapes
from visa_proxy.encoder.minilm import HUB_ID, WIDTH, Encoded, SentenceEncoder
from visa_proxy.errors import ConfigError
from visa_proxy.optional import need
from visa_proxy.policy.document import read_document
from visa_proxy.policy.problems import validate

Array = NDArray[np.float32]
Recipe = TypeVar("Recipe", bound=BaseModel)
CHUNK: Final = 512


class FitRecipe(BaseModel):
    """How a head is fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: int = Field(128, ge=8, le=512)
    seeds: int = Field(2, ge=1, le=8)
    """Heads whose outputs are averaged."""
    epochs: int = Field(16, ge=1, le=1000)
    batch: int = Field(64, ge=1, le=4096)
    """Examples a step."""
    learning_rate: float = Field(2e-3, gt=0, le=1)
    weight_decay: float = Field(0.02, ge=0, le=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    query_dropout: float = Field(0.5, ge=0, le=1)
    """Share of the examples that do not see their query."""


def load_recipe(path: Path, schema: type[Recipe]) -> Recipe:
    """The recipe in a YAML file. Raises ConfigError naming file, line, column and key."""
    try:
        document = read_document(path)
    except ConfigError as error:
        if isinstance(error.__cause__, OSError):
            raise ConfigError([f"{error}; allowed: a YAML file, or the word bundled"]) from error
        raise
    recipe, problems = validate(document, schema)
    if recipe is None:
        raise ConfigError(problems)
    return recipe


@dataclass(frozen=True)
class Example:
    """Texts whose outputs add up to `target`: the sentences of an answer, or one instruction."""

    parts: tuple[str, ...]
    target: Array
    """(outputs,): the clipped sum."""
    mask: Array
    """(outputs,): 1 where `target` is known."""
    query: str = ""
    weight: float = 1.0
    part_targets: Array | None = None
    """(parts, outputs): what each part gives by itself, where that is known."""
    part_masks: Array | None = None
    """(parts, outputs): 1 where `part_targets` is known."""


class Encodings:
    """Texts to token states and embeddings, held as float16."""

    def __init__(self, texts: Sequence[str], states: NDArray[np.float16], starts: NDArray[np.int64], pooled: Array) -> None:
        """`starts`: (texts + 1,), the rows of `states` (all tokens, 384) where each text begins."""
        self.index = {text: i for i, text in enumerate(texts)}
        self.states, self.starts, self.pooled = states, starts, pooled

    def encoded(self, text: str) -> Encoded:
        """One text, as the encoder gave it but for the rounding to float16."""
        row = self.index[text]
        states = self.states[self.starts[row] : self.starts[row + 1]]
        return Encoded(tokens=states.astype(np.float32), pooled=self.pooled[row])

    def tokens(self, rows: Sequence[int]) -> tuple[Array, NDArray[np.int64]]:
        """Token states of `rows`, one after the other, and for each token the position in `rows` it belongs to."""
        pieces = [self.states[self.starts[row] : self.starts[row + 1]] for row in rows]
        owner = np.repeat(np.arange(len(rows)), [len(piece) for piece in pieces])
        return np.concatenate(pieces).astype(np.float32), owner


def encode_all(encoder: SentenceEncoder, texts: Iterable[str], progress: Progress) -> Encodings:
    """Every distinct text once."""
    unique = sorted(set(texts), key=lambda text: (len(text), text))
    task = progress.add_task("encode", total=len(unique))
    states: list[NDArray[np.float16]] = []
    pooled: list[Array] = []
    for start in range(0, len(unique), CHUNK):
        for encoded in encoder.encode_now(unique[start : start + CHUNK]):
            states.append(encoded.tokens.astype(np.float16))
            pooled.append(encoded.pooled)
        progress.update(task, completed=len(pooled))
    starts = np.concatenate([[0], np.cumsum([len(s) for s in states])]).astype(np.int64)
    return Encodings(unique, np.concatenate(states), starts, np.stack(pooled))


Loss = Callable[[Any, Any, Any, Any], Any]
"""(sums, targets, masks, weights), all (examples, outputs) but weights (examples,): a scalar."""


@dataclass
class Fitter:
    """Fits one head a seed and writes them into one file."""

    encodings: Encodings
    recipe: FitRecipe
    outputs: tuple[str, ...]
    loss: Loss
    progress: Progress

    def fit(self, examples: Sequence[Example], seed: int) -> dict[str, Array]:
        """The tensors of `visa_proxy.encoder.head.shapes`, seeds stacked."""
        torch = need("torch", extra="local")
        heads = [self._fit_one(torch, examples, number, seed + number) for number in range(self.recipe.seeds)]
        return {name: np.stack([head[name] for head in heads]) for name in heads[0]}

    def _fit_one(self, torch: Any, examples: Sequence[Example], number: int, seed: int) -> dict[str, Array]:
        recipe = self.recipe
        torch.manual_seed(seed)
        order = np.random.default_rng(seed)
        weights = initial(torch, recipe.hidden, len(self.outputs))
        optimizer = torch.optim.AdamW(weights.values(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        steps = recipe.epochs * -(-len(examples) // recipe.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.15)
        task = self.progress.add_task(f"seed {number + 1}/{recipe.seeds}", total=steps)
        for _ in range(recipe.epochs):
            shuffled = [examples[i] for i in order.permutation(len(examples))]
            for start in range(0, len(shuffled), recipe.batch):
                loss = self._step(torch, weights, shuffled[start : start + recipe.batch], order)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
                optimizer.step()
                schedule.step()
                self.progress.advance(task)
            self.progress.update(task, description=f"seed {number + 1}/{recipe.seeds}  loss {loss.item():.4f}")
        return {name: tensor.detach().numpy() for name, tensor in weights.items()}

    def _step(self, torch: Any, weights: dict[str, Any], batch: Sequence[Example], order: np.random.Generator) -> Any:
        """The loss of one batch; `order` draws which examples see their query."""
        rows = [self.encodings.index[part] for example in batch for part in example.parts]
        group = np.repeat(np.arange(len(batch)), [len(example.parts) for example in batch])
        tokens, owner = self.encodings.tokens(rows)
        seen = [bool(e.query) and order.random() >= self.recipe.query_dropout for e in batch]
        width = np.zeros((len(batch), WIDTH), np.float32)
        for position, (example, use) in enumerate(zip(batch, seen, strict=True)):
            if use:
                width[position] = self.encodings.pooled[self.encodings.index[example.query]]
        own = self.encodings.pooled[rows]
        context = np.zeros((len(batch), WIDTH), np.float32)
        np.add.at(context, group, own)
        context /= np.bincount(group)[:, None]
        outputs = forward(
            torch,
            weights,
            torch.from_numpy(tokens),
            torch.from_numpy(owner),
            torch.from_numpy(own),
            torch.from_numpy(width[group]),
            torch.from_numpy(context[group]),
            self.recipe.dropout,
        )
        sums = torch.zeros(len(batch), outputs.shape[1]).index_add(0, torch.from_numpy(group), outputs)
        stacked = [np.stack([getattr(e, name) for e in batch]) for name in ("target", "mask")]
        sizes = np.array([e.weight for e in batch], np.float32)
        return self.loss(sums, torch.from_numpy(stacked[0]), torch.from_numpy(stacked[1]), torch.from_numpy(sizes))


def forward(
    torch: Any, weights: dict[str, Any], tokens: Any, owner: Any, pooled: Any, query: Any, context: Any, dropout: float
) -> Any:
    """The formula of `visa_proxy.encoder.head` for one seed; `owner` says which sentence a token belongs to."""
    drop = torch.nn.functional.dropout
    constant = drop(pooled, dropout) @ weights["sentence"] + query @ weights["query"] + weights["bias"]
    constant = constant + context @ weights["context"]
    hidden = drop(torch.nn.functional.silu(drop(tokens, dropout / 2) @ weights["token"] + constant[owner]), dropout)
    weight = torch.exp(SHARPNESS * torch.tanh(hidden @ weights["gate"] + weights["gate_bias"]))
    value = hidden @ weights["value"] + weights["value_bias"]
    value = value + torch.tanh(hidden @ weights["sign"]) * (hidden @ weights["signed"])
    empty = torch.zeros(len(pooled), weight.shape[1])
    return empty.index_add(0, owner, weight * value) / (1.0 + empty.index_add(0, owner, weight))


def initial(torch: Any, hidden: int, outputs: int) -> dict[str, Any]:
    weights = {}
    for name, shape in shapes(1, hidden, outputs).items():
        scale = 0.0 if name in ("query", "context") or len(shape) == 2 else float(shape[1]) ** -0.5
        # Token states have a norm of about 6, embeddings of 1: both should move the hidden layer.
        scale *= 4.0 if name == "sentence" else 1.0
        weights[name] = (torch.randn(shape[1:]) * scale).requires_grad_()
    with torch.no_grad():
        weights["gate_bias"] -= 0.3
    return weights


def save_head(path: Path, tensors: dict[str, Array], outputs: tuple[str, ...], **metadata: str) -> None:
    """`path`: a safetensors file, float16; `metadata` goes into it as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata |= {"format": FORMAT, "outputs": ",".join(outputs), "encoder": HUB_ID}
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    need("safetensors.numpy", extra="local").save_file(halves, str(path), metadata=metadata)
    path.chmod(0o644)
