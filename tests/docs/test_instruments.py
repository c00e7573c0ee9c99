"""The configs of docs/instruments.md are taken as they stand there."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.pages import files
from tests.fakes.policies import policy, write
from visa_proxy.policy.config import load_config
from visa_proxy.policy.load import load_policies
from visa_proxy.policy.spaces import measured_space, named_spaces
from visa_proxy.training.annotated import bundled
from visa_proxy.values import load_space

PAGE = Path(__file__).parents[2] / "docs" / "instruments.md"


def test_a_judge_and_an_llm_translator(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, files(PAGE)["judge.yaml"], "visa.yaml"))
    assert (config.detector.kind, config.translator.kind, config.detector.explain) == ("judge", "llm", True)


def test_the_spaces_are_known_to_policies(tmp_path: Path) -> None:
    config = write(tmp_path, files(PAGE)["spaces.yaml"], "visa.yaml")
    (tmp_path / "policies").mkdir()
    text = policy().replace("  off: passthrough\n", "  odd: {values: {stimulation: 1, formality: -0.5}}\n  off: passthrough\n")
    write(tmp_path / "policies", text)
    found = load_policies([tmp_path / "policies" / "acme.yaml"], space=measured_space(named_spaces(config)))
    target = found.tenants["acme"].profiles["odd"].target
    assert target is not None and (target.values["stimulation"], target.values["formality"]) == (1.0, -0.5)


def test_every_space_it_names_has_a_corpus() -> None:
    assert all(len(bundled(load_space(name))) >= 300 for name in ("schwartz", "tone", "inglehart-welzel"))
