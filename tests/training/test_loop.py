"""The training loop on a small real model: it learns, keeps its best epoch, and goes on after a kill as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from visa_proxy.errors import ConfigError
from visa_proxy.training.loop import CHECKPOINT, Curve, LoopRecipe, finished, fit

RECIPE = LoopRecipe.model_validate({"epochs": 4, "batch": 8, "learning_rate": 0.05, "head_learning_rate": 0.05})
POINTS = [(float(x), 3.0 * float(x) - 1.0) for x in np.linspace(-1, 1, 60)]


class Line:
    """y = slope x + offset, with the offset as the head; `dies` after so many epochs, in the middle of the next one."""

    def __init__(self, dies: int | None = None) -> None:
        self.slope, self.offset = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        self.dies, self.scored = dies, 0

    def groups(self) -> Mapping[str, dict[str, Any]]:
        return {"layers": {"slope": self.slope}, "head": {"offset": self.offset}}

    def loss(self, batch: Sequence[tuple[float, float]], order: np.random.Generator) -> Any:
        if self.scored == self.dies and order.random() < 0.5:
            raise KeyboardInterrupt
        x, y = torch.tensor(batch).T
        return ((torch.nn.functional.dropout(self.slope * x, 0.1) + self.offset - y) ** 2).mean()

    def score(self) -> float:
        self.scored += 1
        x, y = torch.tensor(POINTS).T
        return -float(((self.slope * x + self.offset - y) ** 2).mean())


def run(model: Line, folder: Path, seed: int = 0) -> Curve:
    return fit(model, POINTS, RECIPE, folder, seed, "line")


def test_it_learns_and_cleans_up(tmp_path: Path) -> None:
    model = Line()
    curve = run(model, tmp_path)
    assert len(curve) == 4 and curve[-1][1] > curve[0][1]
    assert model.score() == pytest.approx(max(score for _, score in curve))
    assert (tmp_path / CHECKPOINT).exists()
    finished(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole, first, second = Line(), Line(dies=2), Line()
    curve = run(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(first, tmp_path / "cut")
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    resumed = run(second, tmp_path / "cut")
    assert second.scored == 2  # the first two epochs are not repeated
    # A draw of its own decides when the first one dies, so the last two epochs may shuffle as they like; the first two are equal.
    assert resumed[:2] == curve[:2]
    assert second.slope.item() == pytest.approx(whole.slope.item(), abs=0.05)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Line(dies=1), tmp_path)
    with pytest.raises(ConfigError, match=r"seed 0.* this one has .*seed 1.*; remove the file to start anew"):
        run(Line(), tmp_path, seed=1)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 8, {"x": 1}, [1, 2], 3, {"identity": 1}])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: Any) -> None:
    file = tmp_path / CHECKPOINT
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt: .*remove the file to start anew"):
        run(Line(), tmp_path)


@pytest.mark.parametrize("change", [{"best": {}}, {"last": {"layers": 3}}, {"curve": [1]}, {"optimizer": {}}, {"schedule": None}])
def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Line(dies=1), tmp_path)
    file = tmp_path / CHECKPOINT
    torch.save(torch.load(file, weights_only=True) | change, file)
    with pytest.raises(ConfigError, match=r"no checkpoint of such a run; remove the file to start anew"):
        run(Line(), tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc", "/proc/below"])
def test_a_folder_that_cannot_be_written_to_is_said_before_training(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    model = Line()
    with pytest.raises(ConfigError, match=r"--out: cannot write in the folder .*: \w"):
        run(model, tmp_path / place)
    assert model.scored == 0 and model.slope.item() == 0
