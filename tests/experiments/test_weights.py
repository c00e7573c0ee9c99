"""What a policy says of the arms' shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.policies import policy, write
from visa_proxy.errors import ConfigError
from visa_proxy.experiments.weights import policy_of
from visa_proxy.policy.assign import Arm, Experiment
from visa_proxy.values import load_space

SPACE = load_space("schwartz")


def test_the_weights_of_a_policy_hold_the_holdout() -> None:
    arms = (Arm("calm", "calm", 30.0), Arm("bold", "bold", 10.0))
    assert Experiment("voice", "user", arms).shares == {"calm": 0.75, "bold": 0.25}
    found = Experiment("voice", "user", arms, holdout=0.2).shares
    assert list(found) == ["calm", "bold", "holdout"] and list(found.values()) == pytest.approx([0.6, 0.2, 0.2])


def test_the_policy_of_a_tenant_is_found_beside_broken_ones(tmp_path: Path) -> None:
    broken = [write(tmp_path, "tenant: [", "a.yaml"), write(tmp_path, policy(tenant="other", default="gone"), "b.yaml")]
    extra = "experiments: [{name: voice, unit: user, arms: {off: 1, bold: 3}}]"
    good = write(tmp_path, policy(extra=extra))
    found = policy_of("acme", [*broken, good], SPACE)
    assert found is not None and found.experiments[0].shares == {"off": 0.25, "bold": 0.75}
    assert policy_of("nobody", [*broken, good], SPACE) is None
    with pytest.raises(ConfigError):
        policy_of("other", [*broken, good], SPACE)
