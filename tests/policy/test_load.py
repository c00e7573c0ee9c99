"""Policies from text to tenants: what loads, and ten ways in which it does not."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.policy.samples import EXAMPLES, GOOD, HASH, write
from visa_proxy.errors import ConfigError
from visa_proxy.policy.load import load_policies, load_policy, policy_files
from visa_proxy.policy.schema import PolicyFile, Preserve, Shield
from visa_proxy.shield.preserve import KINDS


def problems_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    return caught.value.problems


def test_defaults_are_the_contracts(tmp_path: Path) -> None:
    tenant = load_policy(write(tmp_path, GOOD))
    assert tenant.name == "acme" and tenant.base == "default"
    target = tenant.default_profile.target
    assert target is not None and target.mode == "offset"
    assert (target.values["stimulation"], target.values["security"], target.values["power"]) == (1, -0.5, 0)
    assert tenant.profiles["off"].passthrough and tenant.profiles["off"].target is None
    assert tenant.shield == Shield(min_consistency=0.6, skip_above=0.95, candidates=1, retries=1, timeout_s=20)
    assert (tenant.limits.requests_per_minute, tenant.limits.concurrent, tenant.limits.body_mb) == (600, 64, 4)
    limits = tenant.limits
    assert (limits.header_kb, limits.upload_s, limits.idle_s, limits.total_s) == (32, 30, 120, 600)
    assert (tenant.shield.streaming, tenant.shield.json_fields, tenant.failover) == ("full", (), None)
    assert not tenant.request_profiles and not tenant.request_instruction


def test_extends_merges_and_what_is_said_here_wins(tmp_path: Path) -> None:
    text = GOOD + "  calm: {extends: bold, values: {security: 1, tradition: 0.5}, instruction: Slow down.}\n"
    calm = load_policy(write(tmp_path, text + "  fixed: {extends: bold, mode: target}\n")).profiles["calm"]
    assert calm.instruction == "Slow down." and calm.target is not None
    levels = {name: level for name, level in calm.target.values.to_dict().items() if level}
    assert levels == {"stimulation": 1, "security": 1, "tradition": 0.5}


def test_instruction_only_has_no_target(tmp_path: Path) -> None:
    kind = load_policy(write(tmp_path, GOOD + "  kind: {instruction: Be kinder.}\n")).profiles["kind"]
    assert (kind.target, kind.instruction, kind.passthrough) == (None, "Be kinder.", False)


BROKEN = [
    ("unknown_key", GOOD + "shild: {}\n", "7:1: shild: unknown key; did you mean 'shield'?"),
    ("missing", GOOD.replace("tenant: acme\n", ""), "1:1: tenant: required key is missing"),
    (
        "range",
        GOOD.replace("stimulation: 1,", "stimulation: 1.5,"),
        "5:32: profiles.bold.values.stimulation: found 1.5",
    ),
    ("bool", GOOD.replace("stimulation: 1,", "stimulation: true,"), "profiles.bold.values.stimulation: found true"),
    ("dimension", GOOD.replace("stimulation", "warmth"), "5:19: profiles.bold.values.warmth: unknown value 'warmth'"),
    (
        "profile",
        GOOD.replace("profile: bold", "profile: blod"),
        "3:18: default_profile: no profile 'blod'; did you mean",
    ),
    ("word", GOOD.replace("passthrough", "pass"), "6:8: profiles.off: found 'pass', allowed: 'passthrough'"),
    (
        "cycle",
        GOOD + "  a: {extends: b}\n  b: {extends: a}\n",
        "7:16: profiles.a.extends: extends goes round in a circle",
    ),
    ("hash", GOOD.replace(HASH, "sk-visa-oops"), "2:12: api_keys[0]: this is no key hash"),
    (
        "streaming",
        GOOD + "shield: {streaming: windows}\n",
        "7:21: shield.streaming: found 'windows', allowed: 'window' or 'full'",
    ),
    (
        "late_error",
        GOOD + "shield: {streaming: window, on_failure: error}\n",
        "7:41: shield.on_failure: error with streaming window",
    ),
    ("long_idle", GOOD + "limits: {idle_s: 601}\n", "7:18: limits.idle_s: found 601, but limits.total_s ends"),
    ("long_upload", GOOD + "limits: {total_s: 2, upload_s: 2.5}\n", "7:32: limits.upload_s: found 2.5, but limits.total_s ends"),
    ("long_rewrite", GOOD + "limits: {total_s: 9}\nshield: {timeout_s: 10}\n", "8:21: shield.timeout_s: found 10, but"),
    (
        "same_unit",
        GOOD + "experiments:\n"
        "- {name: a, unit: session, arms: {bold: 1, off: 1}}\n- {name: b, unit: header:X-Visa-Unit, arms: {bold: 1, off: 1}}\n",
        "9:19: experiments[1].unit: the experiment 'a' already takes every request with this unit",
    ),
    (
        "starved_by_a_layer",
        GOOD + "experiments:\n"
        "- {name: a, unit: user, layer: l, traffic: 0.4, arms: {bold: 1, off: 1}}\n"
        "- {name: b, unit: user, layer: l, traffic: 0.6, arms: {bold: 1, off: 1}}\n"
        "- {name: c, unit: user, arms: {bold: 1, off: 1}}\n",
        "10:19: experiments[2].unit: the experiments 'a', 'b' already take every request with this unit",
    ),
    (
        "overfull",
        GOOD + "experiments:\n"
        "- {name: a, unit: user, layer: l, traffic: 0.6, arms: {bold: 1, off: 1}}\n"
        "- {name: b, unit: user, layer: l, traffic: 0.5, arms: {bold: 1, off: 1}}\n",
        "9:44: experiments[1].traffic: the experiments of layer 'l' add up to 1.1 here, of which 0.6 go to those before; "
        "allowed: at most 0.4",
    ),
    (
        "overlap",
        GOOD + "experiments:\n"
        "- {name: a, unit: user, layer: l, traffic: [0.2, 0.6], arms: {bold: 1, off: 1}}\n"
        "- {name: b, unit: user, layer: l, traffic: [0.5, 1], arms: {bold: 1, off: 1}}\n",
        "9:44: experiments[1].traffic: takes 0.5 to 1 of layer 'l', of which 'a' has 0.2 to 0.6 at the same time",
    ),
    (
        "two_units_in_a_layer",
        GOOD + "experiments:\n"
        "- {name: a, unit: user, layer: l, traffic: 0.5, arms: {bold: 1, off: 1}}\n"
        "- {name: b, unit: session, layer: l, traffic: 0.5, arms: {bold: 1, off: 1}}\n",
        "9:19: experiments[1].unit: the layer 'l' shares out other units: 'a' has unit user",
    ),
    (
        "part",
        GOOD + "experiments: [{name: e, unit: user, traffic: [0.5, 0.5], arms: {bold: 1, off: 1}}]\n",
        "7:46: experiments[0].traffic: found [0.5, 0.5], allowed: two numbers, [from, to], of 0 … 1",
    ),
    (
        "no_traffic",
        GOOD + "experiments: [{name: e, unit: user, traffic: 0, arms: {bold: 1, off: 1}}]\n",
        "7:46: experiments[0].traffic: found 0, allowed: a number > 0 and ≤ 1",
    ),
    (
        "all_held_out",
        GOOD + "experiments: [{name: e, unit: user, holdout: 1, arms: {bold: 1, off: 1}}]\n",
        "7:46: experiments[0].holdout: found 1, allowed: a number ≥ 0 and < 1",
    ),
    (
        "reserved_arm",
        GOOD + "experiments: [{name: e, unit: user, arms: {bold: 1, holdout: {profile: off, weight: 1}}}]\n",
        "7:53: experiments[0].arms.holdout: 'holdout' is the arm of units held back",
    ),
    (
        "arm_of_no_profile",
        GOOD + "experiments: [{name: e, unit: user, arms: {bold: 1, b: {profile: blod, weight: 1}}}]\n",
        "7:66: experiments[0].arms.b.profile: no profile 'blod'; did you mean 'bold'?",
    ),
    (
        "arm_without_weight",
        GOOD + "experiments: [{name: e, unit: user, arms: {bold: 1, b: {profile: bold}}}]\n",
        "experiments[0].arms.b.weight: required key is missing",
    ),
    (
        "arm_key",
        GOOD + "experiments: [{name: e, unit: user, arms: {bold: 1, b: {profile: bold, wieght: 1}}}]\n",
        "experiments[0].arms.b.wieght: unknown key; did you mean 'weight'? allowed: profile, weight",
    ),
    (
        "offset",
        GOOD + "experiments: [{name: e, unit: user, start: 2026-01-01T00:00:00, arms: {bold: 1, off: 1}}]\n",
        "7:44: experiments[0].start: found '2026-01-01T00:00:00', allowed: a time with its offset from UTC",
    ),
    (
        "no_time",
        GOOD + "experiments: [{name: e, unit: user, stop: 20260101, arms: {bold: 1, off: 1}}]\n",
        "7:43: experiments[0].stop: found 20260101, allowed: a time with its offset from UTC",
    ),
    (
        "stop_first",
        GOOD + "experiments: [{name: e, unit: user, start: 2026-02-01T00:00:00Z, stop: 2026-02-01T01:00:00+01:00, "
        "arms: {bold: 1, off: 1}}]\n",
        "7:72: experiments[0].stop: found 2026-02-01T01:00:00+01:00, which is not after start; allowed: later than 2026-02-01",
    ),
    ("same_base", GOOD + "failover: default\n", "7:11: failover: 'default' is the base itself"),
    ("header_kb", GOOD + "limits: {header_kb: 65}\n", "7:21: limits.header_kb: found 65, allowed: a number > 0 and ≤ 64"),
    ("total_s", GOOD + "limits: {total_s: 0}\n", "7:19: limits.total_s: found 0, allowed: a number > 0"),
    ("whole", GOOD + "shield: {json_fields: ['']}\n", "7:24: shield.json_fields[0]: found '', allowed: a JSON pointer"),
    ("no_slash", GOOD + "shield: {json_fields: [a/b]}\n", "7:24: shield.json_fields[0]: found 'a/b', allowed: a JSON pointer"),
    ("tilde", GOOD + "shield: {json_fields: [/a, /b~2]}\n", "7:28: shield.json_fields[1]: found '/b~2', allowed: a JSON"),
    ("last_tilde", GOOD + "shield: {json_fields: [/b~]}\n", "7:24: shield.json_fields[0]: found '/b~', allowed: a JSON"),
    ("pointer_twice", GOOD + "shield: {json_fields: [/a, /b, /a]}\n", "7:23: shield.json_fields: '/a' is listed twice"),
    (
        "too_many",
        GOOD + f"shield: {{json_fields: [{', '.join(f'/{i}' for i in range(51))}]}}\n",
        "7:23: shield.json_fields: found a list, allowed: it should have at most 50 items",
    ),
    ("twice", GOOD + "tenant: other\n", "7:1: tenant: this key is already set at line 1, column 1"),
    ("syntax", GOOD + "shield: {", "8:1: not valid YAML"),
    ("empty_profile", GOOD + "  none: {}\n", "7:9: profiles.none: this profile changes nothing"),
    (
        "target",
        GOOD + "  t: {mode: target, values: {power: 1}, instruction: Hm.}\n",
        "7:6: profiles.t: mode target with an",
    ),
    (
        "arm",
        GOOD + "experiments: [{name: e, unit: user, arms: {bold: 1, of: 1}}]\n",
        "experiments[0].arms.of: no profile",
    ),
    (
        "weight",
        GOOD + "experiments: [{name: e, unit: user, arms: {bold: 1, off: 0}}]\n",
        "arms.off: found 0, allowed: a number > 0",
    ),
    (
        "unit",
        GOOD + "experiments: [{name: e, unit: me, arms: {bold: 1, off: 1}}]\n",
        "7:31: experiments[0].unit: found 'me'",
    ),
    ("anchor", GOOD + "limits: &l {concurrent: 1}\n", "7:9: anchors (&name) and aliases (*name) are not allowed"),
    ("tag", GOOD + "base: !!python/name:os.system x\n", "7:7: base: the tag tag:yaml.org,2002:python/name:os.system"),
    (
        "passthrough_base",
        GOOD + "  x: {extends: off, values: {power: 1}}\n",
        "7:16: profiles.x.extends: 'off' is passthrough",
    ),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken_files_are_named_with_place_key_and_reason(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    problems = problems_of(path)
    assert any(expected in problem for problem in problems), problems
    assert all(problem.startswith(f"{path}:") for problem in problems)
    assert not any("sk-visa-oops" in problem for problem in problems)


def test_unknown_dimension_lists_the_ten(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, GOOD.replace("stimulation", "stimulaton")))
    assert "did you mean 'stimulation'?" in problem
    assert problem.count(", ") == 9


def test_all_problems_of_a_file_at_once_from_top_to_bottom(tmp_path: Path) -> None:
    text = GOOD.replace("tenant: acme", "tenant: Acme").replace("profile: bold", "profile: gone") + "limits: {concurrent: 0}\n"
    assert [problem.split(": ")[1] for problem in problems_of(write(tmp_path, text))] == [
        "tenant",
        "default_profile",
        "limits.concurrent",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"x: \x00",
        b"[" * 5000,
        b"- " * 5000,
        b"a: " + b"x" * 1_000_001,
        b"[1, 2]",
        b"--- a\n--- b\n",
        b"? [a]\n: b",
    ],
)
def test_hostile_files_are_config_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert problems_of(path)[0].startswith(f"{path}:")


def test_unreadable_file_is_a_config_error(tmp_path: Path) -> None:
    assert "cannot be read" in problems_of(tmp_path / "none.yaml")[0]


def test_two_files_may_not_share_tenant_or_key(tmp_path: Path) -> None:
    paths = [write(tmp_path, GOOD, "a.yaml"), write(tmp_path, GOOD, "b.yaml")]
    with pytest.raises(ConfigError) as caught:
        load_policies(paths)
    by_name, by_key = caught.value.problems
    assert f"{paths[1]}:1:9: tenant: tenant 'acme' is already claimed at {paths[0]}:1:9" in by_name
    assert f"{paths[1]}:2:12: api_keys: this API key is already claimed at {paths[0]}:2:12" in by_key


def test_base_must_be_one_of_the_server_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="7:7: base: no base 'defualt' in the server config; did you mean 'default'"):
        load_policy(write(tmp_path, GOOD + "base: defualt\n"), bases=["default", "claude"])


def test_failover_is_a_second_base_of_the_server_config(tmp_path: Path) -> None:
    assert load_policy(write(tmp_path, GOOD)).failover is None
    path = write(tmp_path, GOOD + "failover: claude\n")
    assert load_policy(path, bases=["default", "claude"]).failover == "claude"
    with pytest.raises(ConfigError, match="7:11: failover: no base 'claude' in the server config; allowed: default"):
        load_policy(path, bases=["default"])


def test_pointers_come_as_they_were_written(tmp_path: Path) -> None:
    pointers = ("/summary", "/steps/*/text", "/a~1b", "/m~0n", "/", "/ a")
    listed = ", ".join(f"'{pointer}'" for pointer in pointers)
    assert load_policy(write(tmp_path, GOOD + f"shield: {{json_fields: [{listed}]}}\n")).shield.json_fields == pointers


@pytest.mark.parametrize(
    "more",
    [
        "shield: {streaming: window}",
        "shield: {streaming: window, on_failure: original}",
        "shield: {streaming: full, on_failure: error}",
        "limits: {total_s: 1}",
        "limits: {total_s: 90, idle_s: 90, upload_s: 90}",
        "experiments: [{name: a, unit: session, arms: {bold: 1, off: 1}}, {name: b, unit: user, arms: {bold: 1, off: 1}}]",
        "experiments: [{name: a, unit: user, traffic: 0.9, arms: {bold: 1, off: 1}}, {name: b, unit: user, arms: {bold: 1, off: 1}}]",
        "experiments: [{name: a, unit: user, stop: 2026-02-01T00:00:00Z, arms: {bold: 1, off: 1}},\n"
        "{name: b, unit: user, start: 2026-02-01T00:00:00Z, arms: {bold: 1, off: 1}}]",
        "experiments: [{name: a, unit: user, layer: l, traffic: 0.7, arms: {bold: 1, off: 1}},\n"
        "{name: b, unit: user, layer: l, traffic: 0.2, arms: {bold: 1, off: 1}},\n"
        "{name: c, unit: user, layer: l, traffic: 0.1, arms: {bold: 1, off: 1}}]",
        "experiments: [{name: a, unit: user, layer: l, stop: 2026-02-01T00:00:00Z, traffic: [0, 1], arms: {bold: 1, off: 1}},\n"
        "{name: b, unit: user, layer: l, start: 2026-02-01T00:00:00Z, traffic: [0, 1], arms: {bold: 1, off: 1}}]",
        "experiments: [{name: a, unit: user, arms: {a1: {profile: bold, weight: 1}, a2: {profile: bold, weight: 2.5}}}]",
    ],
)
def test_combinations_that_can_be_honoured(tmp_path: Path, more: str) -> None:
    """Among them a short total with longer waits that are only defaults: nobody asked for those."""
    assert load_policy(write(tmp_path, GOOD + more + "\n")).name == "acme"


def test_examples_load_and_open_with_their_published_keys() -> None:
    policies = load_policies(policy_files(EXAMPLES), bases=["default"])
    assert len(policies.tenants) == 3
    for name, tenant in policies.tenants.items():
        assert policies.tenant_for_key(f"sk-{name}-demo") is tenant
        target = tenant.default_profile.target
        assert target is not None and target.mode == "offset"
        assert 3 <= sum(bool(level) for level in target.values.array) <= 4
        assert tenant.profiles["off"].passthrough
        assert any(profile.instruction for profile in tenant.profiles.values())


def test_preserve_kinds_are_the_shields() -> None:
    assert get_args(Preserve) == KINDS == PolicyFile.model_fields["shield"].default.preserve
