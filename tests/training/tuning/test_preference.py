"""DPO and SimPO on pairs sampled from the model and ranked by the reward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("trl")

from tests.fakes.tuning import curve, recipe_file, tiny_model, triplets_file
from visa_proxy.errors import ConfigError
from visa_proxy.server.components import Instruments
from visa_proxy.training.rewards.grader import Grader
from visa_proxy.training.rewards.scorer import Instruments as Graders
from visa_proxy.training.tuning import pairs, sampling
from visa_proxy.training.tuning.arguments import Method
from visa_proxy.training.tuning.run import Job, tune


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def job(method: Method, folder: Path, model: Path, *changes: tuple[str, str]) -> Job:
    recipe = recipe_file(folder / "recipe.yaml", *changes)
    return Job(method, str(recipe), triplets_file(folder / "t.jsonl"), str(model), folder / "out")


@pytest.fixture(autouse=True)
def loaded(instruments: Instruments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Graders, "open", lambda self: Grader(instruments.detector, instruments.facts))


@pytest.mark.parametrize("method", ["dpo", "simpo"])
def test_a_run(method: Method, tmp_path: Path, model: Path) -> None:
    asked = job(method, tmp_path, model)
    tune(asked)
    rows = [json.loads(line) for line in (asked.out / "run" / pairs.FILE).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4 and all(row["best"] > row["worst"] for row in rows)
    # The written rewrite is one of the candidates, and a new model has none that is better.
    written = {row["id"]: row["rewrite"] for row in map(json.loads, asked.data.read_text(encoding="utf-8").splitlines())}
    assert all(row["chosen"].split()[0].strip("⟦1⟧") in written[row["id"]] for row in rows)
    steps = [row for row in curve(asked.out, "train") if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2] and "rewards/margins" in steps[0]
    assert (asked.out / "model.safetensors").is_file()


def test_nothing_is_sampled_twice(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = job("dpo", tmp_path, model)
    tune(asked)
    file = asked.out / "run" / pairs.FILE
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(whole[:3]) + whole[3][:20])  # killed while it wrote the last
    sampled: list[int] = []

    def counted(model: object, tokenizer: object, prompts: list[object], **more: object) -> list[str]:
        sampled.append(len(prompts))
        return sampling.sample(model, tokenizer, prompts, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(pairs, "sample", counted)
    tune(asked)
    assert sampled == [3]  # three samples of one prompt


def test_no_pair(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match=r"pairs.jsonl: no pair: .* margin 50; allowed: a smaller pairs.margin"):
        tune(job("simpo", tmp_path, model, ("margin: 0.001", "margin: 50")))
