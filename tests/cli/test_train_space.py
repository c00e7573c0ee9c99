"""A space of one's own from a YAML file and forty labelled lines, as docs/instruments.md says, and a policy that uses it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.base import QUESTION, FakeBase
from tests.fakes.pages import files
from tests.fakes.policies import policy, write
from tests.fakes.proxy import running
from tests.fakes.rewriter import FakeRewriter
from visa_proxy.detector.weights import load_encoder_detector
from visa_proxy.policy.config import load_config

PAGE = Path(__file__).parents[2] / "docs" / "instruments.md"
ANSWERS = Path(__file__).parents[1] / "fakes" / "brand.jsonl"
TEXTS = (
    "Repair it at home, and keep what a new one would cost.",
    "Stay safe, take a helmet, and enjoy the ride.",
    "The bus leaves at ten. A ticket costs two euros.",
)


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "visa_proxy", "train", "space", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture(scope="module")
def brand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the trained space."""
    folder = tmp_path_factory.mktemp("brand")
    (folder / "brand.yaml").write_text(files(PAGE)["brand.yaml"], encoding="utf-8")
    started = time.monotonic()
    done = train("--space", folder / "brand.yaml", "--data", ANSWERS, "--out", folder / "brand")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 60
    assert "mean cosine" in done.stdout and "thrift" in done.stdout
    return folder / "brand"


async def test_it_measures_and_leaves_schwartz_alone_to_the_bit(brand: Path) -> None:
    alone, beside = load_encoder_detector(), load_encoder_detector(spaces=[str(brand)])
    assert beside.space.names == (*alone.space.names, "thrift", "local_pride")
    for text in TEXTS:
        before, after = await alone.detect(QUESTION, text), await beside.detect(QUESTION, text)
        assert after.values.within(alone.space).array.tobytes() == before.values.array.tobytes()
    saving, plain = await beside.detect("", TEXTS[0]), await beside.detect("", TEXTS[2])
    assert saving.values["thrift"] > plain.values["thrift"]


async def test_a_policy_aims_at_it(brand: Path, tmp_path: Path, base: FakeBase, rewriter: FakeRewriter) -> None:
    rewriter.rule = lambda text: f"{text} Our own makers in this town are the best, and we love them."
    (tmp_path / "policies").mkdir()
    house = policy(default="house", shield="{retries: 0, min_consistency: 0}").replace(
        "  off: passthrough\n", "  house: {values: {local_pride: 1}}\n  off: passthrough\n"
    )
    write(tmp_path / "policies", house)
    text = f"""\
policies: ./policies
bases: {{default: {{url: "{base.url}"}}}}
rewriter: {{url: "{rewriter.url}", model: fake}}
detector: {{spaces: [{brand}]}}
"""
    async with running(load_config(write(tmp_path, text, "visa.yaml"))) as proxy:
        reply = await proxy.post({"model": "sample", "messages": [{"role": "user", "content": QUESTION}]})
    visa = reply.json["visa"]
    assert visa["status"] == "adapted", visa
    assert visa["values"]["after"]["local_pride"] > visa["values"]["before"]["local_pride"]
    assert reply.json["choices"][0]["message"]["content"].endswith("we love them.")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            '{"answer": "Save it.", "values": {"thrft": 1}}',
            "line 43: values.thrft: no dimension of brand; allowed: thrift, local_pride",
        ),
        ('{"answer": "Save it.", "values": {"thrift": 2}}', "line 43: values.thrift: found 2, allowed: -1 … 1"),
        ('{"answer": "", "values": {}}', "line 43: answer: a text with at least one sentence is needed"),
        ('{"answer": "Save it.", "values": {"thrift": 1}, "mood": 1}', "line 43: mood: unknown key; allowed: "),
        ("{answer}", "line 43: no JSON: "),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_trained(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "brand.yaml").write_text(files(PAGE)["brand.yaml"], encoding="utf-8")
    (tmp_path / "answers.jsonl").write_text(ANSWERS.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    done = train("--space", tmp_path / "brand.yaml", "--data", tmp_path / "answers.jsonl", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_too_few_answers_or_none_of_a_dimension(tmp_path: Path) -> None:
    (tmp_path / "brand.yaml").write_text(files(PAGE)["brand.yaml"], encoding="utf-8")
    rows = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    cases = (
        (rows[:10], "10 answers; at least 20 are needed"),
        (rows[:18] * 2, "none has a level other than 0 for local_pride"),
    )
    for kept, said in cases:
        (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        done = train("--space", tmp_path / "brand.yaml", "--data", tmp_path / "answers.jsonl", "--out", tmp_path / "out")
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
