"""Curve, checkpoints and identity of a run, as a kill leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.training.tuning.record import Curve, best_folder, identify, last_checkpoint, prune_best


def checkpoint(run: Path, step: int, state: str | None) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    if state is not None:
        (folder / "trainer_state.json").write_text(state, encoding="utf-8")
    return folder


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) == (None, 0)
    whole = checkpoint(tmp_path, 20, json.dumps({"global_step": 20}))
    checkpoint(tmp_path, 3, json.dumps({"global_step": 3}))
    checkpoint(tmp_path, 40, None)  # killed while it was written
    checkpoint(tmp_path, 60, '{"global_st')
    checkpoint(tmp_path, 80, json.dumps({"global_step": 79}))
    assert last_checkpoint(tmp_path) == (whole, 20)


def test_a_curve_is_cut_where_the_run_goes_on(tmp_path: Path) -> None:
    curve = Curve(tmp_path)
    assert curve.held() == []
    for step in (0, 2, 4):
        curve.append({"kind": "held", "step": step, "success": 0.1 * step})
        curve.append({"kind": "train", "step": step, "loss": 1.0})
    with curve.path.open("ab") as file:
        file.write(b'{"kind": "held", "st')
    assert [row["step"] for row in curve.held()] == [0, 2, 4]
    curve.cut(2)
    assert [(row["kind"], row["step"]) for row in curve.rows()] == [("held", 0), ("train", 0), ("held", 2), ("train", 2)]
    curve.append({"kind": "held", "step": 4})
    assert [row["step"] for row in curve.held()] == [0, 2, 4]


def test_only_the_best_weights_are_kept(tmp_path: Path) -> None:
    for step in (0, 20, 40):
        best_folder(tmp_path, step).mkdir()
    (tmp_path / "best-of-all").mkdir()
    prune_best(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-20", "best-of-all"]


def test_a_run_does_not_go_on_as_another(tmp_path: Path) -> None:
    run = tmp_path / "run"
    identify(run, {"method": "grpo", "data": "a"}, resume=True)
    checkpoint(run, 5, "{}")
    identify(run, {"method": "grpo", "data": "a"}, resume=True)
    with pytest.raises(ConfigError, match="the run here was begun with another data; --fresh begins anew"):
        identify(run, {"method": "grpo", "data": "b"}, resume=True)
    assert (run / "checkpoint-5").is_dir()
    (run / "notes.txt").write_text("mine", encoding="utf-8")
    identify(run, {"method": "grpo", "data": "b"}, resume=False)
    assert sorted(path.name for path in run.iterdir()) == ["notes.txt", "run.json"]


def test_a_run_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be written to"):
        identify(tmp_path / "run", {}, resume=True)
