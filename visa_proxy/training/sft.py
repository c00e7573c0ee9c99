"""Supervised cold start of the small rewriter (paper, section 3.2): a compact loop over freshly synthesised pairs.

Pairs are never stored: batch k follows from the seed alone, so a resumed run sees what an uninterrupted one would have
seen. The learning rate follows a cosine over a wall-clock budget (`minutes`) or a number of steps.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import yaml

from visa_proxy.errors import ConfigError
from visa_proxy.training.synthesis import Pair, Synthesizer
from visa_proxy.training.tokenizer import END, prompt_text

CHECKPOINT: Final = "checkpoint.pt"


@dataclass(frozen=True)
class Recipe:
    """One run; the fields are the keys of a recipe file."""

    model: dict[str, Any]
    """Keyword arguments of `Qwen3Config`."""
    vocab_size: int = 4096
    batch_tokens: int = 6144
    """Padded tokens a step, prompt and answer."""
    pool: int = 1024
    """Pairs drawn at a time, then bucketed by length."""
    optimizer: str = "muon"
    """muon: Muon for the matrices inside the layers, AdamW for the rest. adamw: AdamW for all."""
    learning_rate: float = 3e-3
    warmup: float = 0.03
    """Share of the budget."""
    final: float = 0.02
    """Learning rate at the end, as a share of the peak."""
    weight_decay: float = 0.01
    dtype: str = "bfloat16"
    """Of the working weights and gradients; the optimizer's own copy is float32."""
    minutes: float | None = 38.0
    steps: int | None = None
    """Instead of minutes: the run is then reproducible to the bit on one machine."""
    checkpoint_every: int = 100
    evaluate_every: int = 200
    seed: int = 0

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Raises ConfigError for an unknown key or a file that is no mapping."""
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        try:
            recipe = cls(**data)
        except TypeError as error:
            raise ConfigError([f"{path}: {error}"]) from error
        if (recipe.minutes is None) == (recipe.steps is None):
            raise ConfigError([f"{path}: give either minutes or steps, the other one null"])
        return recipe


@dataclass(frozen=True)
class Batch:
    """Right-padded rows. `labels[b, t]` is the token after `inputs[b, t]` where part of the answer, else -100."""

    inputs: torch.Tensor
    labels: torch.Tensor


def encode(tokenizer: Any, pair: Pair) -> tuple[list[int], int]:
    """Token ids of the whole dialogue and the length of its prompt part."""
    prompt = tokenizer(prompt_text(pair.prompt), add_special_tokens=False)["input_ids"]
    answer = tokenizer(pair.answer + END, add_special_tokens=False)["input_ids"]
    return prompt + answer, len(prompt)


def collate(rows: list[tuple[list[int], int]], pad: int) -> Batch:
    """Rows of token ids as one batch."""
    width = max(len(ids) for ids, _ in rows) - 1
    inputs = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), -100)
    for b, (ids, prompt) in enumerate(rows):
        inputs[b, : len(ids) - 1] = torch.tensor(ids[:-1])
        labels[b, prompt - 1 : len(ids) - 1] = torch.tensor(ids[prompt:])
    return Batch(inputs, labels)


def pool_batches(synthesizer: Synthesizer, tokenizer: Any, recipe: Recipe, number: int, limit: int) -> list[Batch]:
    """The batches of pool `number`: similar lengths together, shuffled; rows over `limit` tokens are left out."""
    rng = random.Random(f"{recipe.seed}:{number}")
    rows = [encode(tokenizer, synthesizer.pair(rng)) for _ in range(recipe.pool)]
    rows = sorted((row for row in rows if len(row[0]) <= limit), key=lambda row: len(row[0]))
    groups: list[list[tuple[list[int], int]]] = [[]]
    for row in rows:
        if groups[-1] and len(row[0]) * (len(groups[-1]) + 1) > recipe.batch_tokens:
            groups.append([])
        groups[-1].append(row)
    batches = [collate(group, tokenizer.pad_token_id) for group in groups if group]
    rng.shuffle(batches)
    return batches


class Trainer:
    """Model, optimizer state and place in the stream of batches."""

    def __init__(self, model: Any, tokenizer: Any, synthesizer: Synthesizer, recipe: Recipe, run: Path) -> None:
        self.model = model.to(getattr(torch, recipe.dtype))
        self.tokenizer = tokenizer
        self.synthesizer = synthesizer
        self.recipe = recipe
        self.run = run
        self.weights = list(self.model.parameters())
        self.masters = [torch.nn.Parameter(p.detach().float().clone()) for p in self.weights]
        self.optimizers = self._optimizers()
        self.step = 0
        self.elapsed = 0.0
        """Seconds spent training, over all resumptions."""
        self.place = (0, 0)
        """Pool number and batch within it."""

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        names = [name for name, _ in self.model.named_parameters()]
        inner = [m for n, m in zip(names, self.masters, strict=True) if m.ndim == 2 and "embed" not in n]
        rest = [m for n, m in zip(names, self.masters, strict=True) if m.ndim != 2 or "embed" in n]
        lr, decay = self.recipe.learning_rate, self.recipe.weight_decay
        if self.recipe.optimizer == "adamw":
            return [torch.optim.AdamW([*inner, *rest], lr=lr, betas=(0.9, 0.98), weight_decay=decay)]
        # match_rms_adamw scales Muon's update to AdamW's size, so that one learning rate serves both.
        return [
            torch.optim.Muon(inner, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    @property
    def progress(self) -> float:
        """0 at the start, 1 when the budget is spent."""
        if self.recipe.steps is not None:
            return self.step / self.recipe.steps
        return self.elapsed / (60 * (self.recipe.minutes or 1))

    def rate(self) -> float:
        """Learning rate: linear warm-up, then half a cosine down to `final`."""
        r, progress = self.recipe, min(1.0, self.progress)
        if progress < r.warmup:
            return r.learning_rate * max(progress, 1e-3) / r.warmup
        cosine = 0.5 * (1 + math.cos(math.pi * (progress - r.warmup) / (1 - r.warmup)))
        return r.learning_rate * (r.final + (1 - r.final) * cosine)

    def batches(self) -> Iterator[Batch]:
        """From `place` on, without end."""
        pool, index = self.place
        while True:
            limit = self.model.config.max_position_embeddings
            batches = pool_batches(self.synthesizer, self.tokenizer, self.recipe, pool, limit)
            while index < len(batches):
                self.place = (pool, index + 1)
                yield batches[index]
                index += 1
            pool, index = pool + 1, 0

    def train(self, report: Callable[[Trainer, float], None], *, stop_at: int | None = None) -> None:
        """Until the budget is spent (or step `stop_at`), with checkpoints; `report(trainer, loss)` after every step."""
        self.model.train()
        started = time.monotonic() - self.elapsed
        batches = self.batches()
        # The stream is asked only when its batch is used: `place` is what a checkpoint goes on from.
        while self.progress < 1 and self.step != stop_at:
            loss = self._update(next(batches))
            self.step += 1
            self.elapsed = time.monotonic() - started
            if self.step % self.recipe.checkpoint_every == 0:
                self.save()
            report(self, loss)
            self.model.train()
        self.save()

    def _update(self, batch: Batch) -> float:
        loss = answer_loss(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for weight, master in zip(self.weights, self.masters, strict=True):
            master.grad = weight.grad.float() if weight.grad is not None else None
            weight.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate()
            optimizer.step()
        self._publish()
        return float(loss.detach())

    def _publish(self) -> None:
        with torch.no_grad():
            for weight, master in zip(self.weights, self.masters, strict=True):
                weight.copy_(master)

    def save(self) -> None:
        """Write the checkpoint, never leaving half a file."""
        self.run.mkdir(parents=True, exist_ok=True)
        state = {
            "masters": [master.detach() for master in self.masters],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
            "place": self.place,
        }
        torch.save(state, self.run / "checkpoint.tmp")
        (self.run / "checkpoint.tmp").replace(self.run / CHECKPOINT)

    def restore(self) -> bool:
        """Go on from the run's checkpoint; False when there is none."""
        if not (self.run / CHECKPOINT).is_file():
            return False
        state = torch.load(self.run / CHECKPOINT, weights_only=True)
        with torch.no_grad():
            for master, saved in zip(self.masters, state["masters"], strict=True):
                master.copy_(saved)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed, self.place = state["step"], state["elapsed"], tuple(state["place"])
        self._publish()
        return True


def answer_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy (nats a token) over the answers; logits are computed at answer positions only."""
    logits, labels = answer_logits(model, batch)
    return torch.nn.functional.cross_entropy(logits.float(), labels)


def answer_logits(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (answer tokens, vocabulary) and labels (answer tokens,)."""
    # No attention mask: rows are padded on the right, so causality alone keeps padding out.
    hidden = model.model(input_ids=batch.inputs, use_cache=False).last_hidden_state
    wanted = batch.labels != -100
    return model.lm_head(hidden[wanted]), batch.labels[wanted]
