"""docs/experiments.md: its policy loads, and its output and figures are what a reader gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.command import ROOT
from tests.fakes.pages import blocks, files
from visa_proxy.policy.assign import Arm, Experiment, Units
from visa_proxy.policy.load import load_policy
from visa_proxy.policy.resolve import choose_profile

PAGE = ROOT / "docs" / "experiments.md"


def policy(folder: Path) -> Path:
    path = folder / "policies" / "shop.yaml"
    path.parent.mkdir()
    path.write_text(files(PAGE)["policies/shop.yaml"])
    return path


def test_check_says_what_the_page_says(tmp_path: Path) -> None:
    policy(tmp_path)
    _, command, output = blocks(PAGE)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-e", "-c", command.text], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == output.text


def test_the_layer_and_the_times_of_the_page_hold(tmp_path: Path) -> None:
    shop = load_policy(policy(tmp_path))
    users = [choose_profile(shop, units=Units(user=str(i)))[1] for i in range(2000)]
    names = [None if found is None else found.experiment for found in users]
    assert 700 < names.count("bold-or-calm") < 900 and 320 < names.count("same-twice") < 480
    assert len({str(found) for found in users}) == 6, "three arms, two, and none"
    session = Units(headers={"x-visa-unit": "s"})
    assert choose_profile(shop, units=session)[1] is None
    assert choose_profile(shop, units=session, now=1_742_000_000)[1] is not None, "in March 2025"


def test_from_half_to_three_fifths_one_in_ten_moves() -> None:
    def arms(bold: float) -> list[str]:
        running = Experiment("bold-or-calm", "user", (Arm("bold", "bold", bold), Arm("calm", "calm", 100 - bold)))
        found = (running.assign(Units(user=str(i)), 0.0) for i in range(20_000))
        return [each.arm for each in found if each is not None]

    moves = [pair for pair in zip(arms(50), arms(60), strict=True) if pair[0] != pair[1]]
    assert set(moves) == {("calm", "bold")} and 1800 < len(moves) < 2200
