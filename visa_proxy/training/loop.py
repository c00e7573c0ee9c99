"""One training loop for encoder and head together: one-cycle rates, a checkpoint every epoch, the best epoch kept."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need

CHECKPOINT: Final = "checkpoint.pt"
Item = TypeVar("Item", contravariant=True)
Curve = list[tuple[float, float]]
"""(training loss, validation score) after every epoch."""


class LoopRecipe(BaseModel):
    """How encoder and head are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(3, ge=1, le=6)
    """How many of the encoder's last layers are trained; the others stay as they are."""
    epochs: int = Field(4, ge=1, le=1000)
    batch: int = Field(32, ge=1, le=4096)
    """Examples a step."""
    learning_rate: float = Field(1.5e-4, gt=0, le=1)
    head_learning_rate: float = Field(2e-3, gt=0, le=1)
    weight_decay: float = Field(0.02, ge=0, le=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    """In the head, and of the states that reach the first of the layers that learn."""


class Model(Protocol[Item]):
    """What the loop trains."""

    def groups(self) -> Mapping[str, dict[str, Any]]:
        """ "layers" and "head": the weights that learn, by name."""
        ...

    def loss(self, batch: Sequence[Item], order: np.random.Generator) -> Any:
        """A scalar tensor; `order` draws what is random beside dropout."""
        ...

    def score(self) -> float:
        """How good it is on validation data now; more is better."""
        ...


def fit(
    model: Model[Item], examples: Sequence[Item], recipe: LoopRecipe, folder: Path, seed: int, what: str, settings: str = ""
) -> Curve:
    """Trains `model`, and leaves it with the weights of the epoch with the best score.

    `folder` keeps a checkpoint until `finished`: a run that was killed goes on after its last whole epoch, with the same shuffles.
    `settings`: what else the run depends on. Raises ConfigError when the checkpoint is of another recipe, seed or data, or no checkpoint, and
    before any training when `folder` cannot be made or written to.
    """
    torch = need("torch", extra="local")
    check_writable(folder)
    groups = model.groups()
    rates = {"layers": recipe.learning_rate, "head": recipe.head_learning_rate}
    rated = [{"params": list(g.values()), "lr": rates[n], "weight_decay": recipe.weight_decay} for n, g in groups.items()]
    optimizer = torch.optim.AdamW(rated)
    steps = recipe.epochs * -(-len(examples) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [s["lr"] for s in rated], total_steps=steps, pct_start=0.1)
    file = folder / CHECKPOINT
    content = hashlib.sha256(pickle.dumps([settings, *examples])).hexdigest()[:16]
    identity = f"{recipe.model_dump_json()} seed {seed}, {len(examples)} examples, settings and examples {content}"
    curve: Curve = []
    best = _copy(groups)
    if file.exists():
        with _checkpoint(torch, file, identity) as kept:
            curve, best = [(float(loss), float(score)) for loss, score in kept["curve"]], kept["best"]
            _restore(torch, groups, best)  # that it can be: the end needs it
            _restore(torch, groups, kept["last"])
            optimizer.load_state_dict(kept["optimizer"])
            schedule.load_state_dict(kept["schedule"])
    weights = [weight for group in groups.values() for weight in group.values()]
    with Progress() as progress:
        task = progress.add_task(what, total=steps, completed=steps * len(curve) // recipe.epochs)
        for epoch in range(len(curve), recipe.epochs):
            order = np.random.default_rng((seed, epoch))
            torch.manual_seed(seed + 1000 * epoch)
            total, count = 0.0, 0
            for batch in _batches(examples, recipe.batch, order):
                loss = model.loss(batch, order)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                schedule.step()
                total, count = total + float(loss.detach()), count + 1
                progress.advance(task)
            curve.append((total / count, model.score()))
            progress.console.print(f"{what}, epoch {epoch + 1}: loss {curve[-1][0]:.4f}, validation {curve[-1][1]:.4f}")
            if curve[-1][1] >= max(score for _, score in curve):
                best = _copy(groups)
            state = {"identity": identity, "curve": curve, "best": best, "last": _copy(groups)}
            torch.save(state | {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, file.with_suffix(".new"))
            file.with_suffix(".new").replace(file)
    _restore(torch, groups, best)
    return curve


def check_writable(folder: Path) -> None:
    """Makes `folder`, and tries it: hours later it would be too late to learn that nothing can be written there.

    Raises ConfigError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError([f"--out: cannot write in the folder {folder}: {error.strerror}"]) from error


@contextlib.contextmanager
def _checkpoint(torch: Any, file: Path, identity: str) -> Iterator[Any]:
    """What `file` keeps. Raises ConfigError when it is of another run, and for whatever goes wrong while it is read and taken over."""
    try:
        kept = torch.load(file, weights_only=True)
        found = str(kept["identity"])
        if found != identity:
            raise ConfigError([f"{file}: of a run with {found}; this one has {identity}; remove the file to start anew"])
        yield kept
    except ConfigError:
        raise
    except Exception as error:  # bytes that are no checkpoint end in any of them
        raise ConfigError([f"{file}: no checkpoint of such a run; remove the file to start anew"]) from error


def finished(folder: Path) -> None:
    """Removes the checkpoint: what the run was for is written."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _copy(groups: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {key: weight.detach().clone() for key, weight in group.items()} for name, group in groups.items()}


def _restore(torch: Any, groups: Mapping[str, dict[str, Any]], state: Mapping[str, dict[str, Any]]) -> None:
    with torch.no_grad():
        for name, group in groups.items():
            for key, weight in group.items():
                weight.copy_(state[name][key])


def _batches(examples: Sequence[Item], size: int, order: np.random.Generator) -> Iterator[list[Item]]:
    shuffled = order.permutation(len(examples))
    for start in range(0, len(shuffled), size):
        yield [examples[i] for i in shuffled[start : start + size]]
