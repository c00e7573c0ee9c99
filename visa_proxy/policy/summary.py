"""The experiments of policies, for people: who takes part, in what, when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from visa_proxy.policy.assign import SESSION_HEADER, WHOLE, Experiment
from visa_proxy.policy.resolve import PolicySet, Tenant

Summary = dict[str, Any]
"""JSON: tenant, name, unit, layer, slot, start, stop, state (waiting | running | over), and arms, each with name, profile and share."""


def summaries(policies: PolicySet, now: float) -> list[Summary]:
    """All experiments; `now`: seconds since 1970."""
    return [_summary(tenant, each, now) for tenant in policies.tenants.values() for each in tenant.experiments]


def _summary(tenant: Tenant, experiment: Experiment, now: float) -> Summary:
    waiting, over = now < experiment.start, now >= experiment.stop
    return {
        "tenant": tenant.name,
        "name": experiment.name,
        "unit": _unit(experiment),
        "arms": list(_arms(tenant, experiment)),
        "layer": experiment.layer,
        "slot": list(experiment.slot),
        "start": _time(experiment.start),
        "stop": _time(experiment.stop),
        "state": "waiting" if waiting else "over" if over else "running",
    }


def _unit(experiment: Experiment) -> str:
    """As a policy says it."""
    if experiment.unit != "header":
        return experiment.unit
    return "session" if experiment.header == SESSION_HEADER else f"header:{experiment.header}"


def _arms(tenant: Tenant, experiment: Experiment) -> Iterator[Summary]:
    profiles = {arm.name: arm.profile for arm in experiment.arms}
    for name, share in experiment.shares.items():
        yield {"name": name, "profile": profiles.get(name, tenant.default_profile.name), "share": share}


def _time(seconds: float) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z") if math.isfinite(seconds) else None


def line(summary: Summary) -> str:
    """One line of text."""
    arms = ", ".join(_arm(arm) for arm in summary["arms"])
    parts = [f"unit {summary['unit']}", arms]
    begin, end = summary["slot"]
    if summary["layer"] is not None:
        parts.append(f"{_percent(begin)} to {_percent(end)} of layer {summary['layer']}")
    elif (begin, end) != WHOLE:
        parts.append(f"{_percent(begin)} to {_percent(end)} of all units")
    parts += [f"{word} {summary[key]}" for word, key in (("from", "start"), ("until", "stop")) if summary[key]]
    return f"{summary['tenant']}: experiment {summary['name']} ({summary['state']}): {'; '.join(parts)}"


def _arm(arm: Summary) -> str:
    profile = "" if arm["profile"] == arm["name"] else f" (profile {arm['profile']})"
    return f"{arm['name']} {_percent(arm['share'])}{profile}"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
