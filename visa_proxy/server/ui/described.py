"""Policies as the page shows them: plain data, without keys or hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visa_proxy.policy.resolve import Profile, Tenant
from visa_proxy.values import Space, ValueVector

Json = dict[str, Any]


def axes(space: Space) -> list[Json]:
    """Name and title of each dimension."""
    return [{"name": dimension.name, "title": dimension.title} for dimension in space.dimensions]


def circle_of(space: Space) -> Space:
    """The part that is a circumplex: Schwartz's values, which every detector measures first."""
    return space.joined[0] if space.joined else space


def opposites(circle: Space) -> list[list[Json]]:
    """Each dimension of the first half of the circle with the one across."""
    named = {each["name"]: each for each in axes(circle)}
    return [[named[name], named[circle.opposite(name)]] for name in circle.names[: len(circle) // 2]]


def profile(of: Profile) -> Json:
    """Values other than 0, mode and instruction."""
    values = {} if of.target is None else _levels(of.target.values)
    mode = "passthrough" if of.passthrough else of.target.mode if of.target is not None else ""
    return {"name": of.name, "mode": mode, "values": values, "instruction": of.instruction or ""}


def policy(tenant: Tenant, problems: list[str]) -> Json:
    """One policy in force; `problems`: of all files, to tell whether this one's file has any."""
    return {
        "name": tenant.name,
        "file": Path(tenant.source).name,
        "broken": any(problem.startswith(f"{tenant.source}:") for problem in problems),
        "base": tenant.base,
        "streaming": tenant.shield.streaming,
        "on_failure": tenant.shield.on_failure,
        "rewriter": tenant.rewriter_model,
        "profiles": [{**profile(each), "uses": _uses(tenant, each)} for each in tenant.profiles.values()],
    }


def voice(tenant: Tenant, model: str | None) -> Json:
    """What the playground needs of a tenant. `model`: what its base is asked for by default.

    A profile that passes answers through is one whose sliders are all at 0 there.
    """
    profiles = [profile(each) for each in tenant.profiles.values()]
    return {
        "name": tenant.name,
        "file": Path(tenant.source).name,
        "model": model,
        "profile": tenant.default_profile.name,
        "allowed": sorted(tenant.request_profiles),
        "profiles": [{**each, "mode": "target" if each["mode"] == "target" else "offset"} for each in profiles],
    }


def _uses(tenant: Tenant, of: Profile) -> list[str]:
    arms = [experiment.name for experiment in tenant.experiments if any(arm.profile == of.name for arm in experiment.arms)]
    uses = ["default"] if of is tenant.default_profile else []
    uses += ["callers"] if of.name in tenant.request_profiles else []
    return uses + [f"experiment {name}" for name in arms]


def _levels(vector: ValueVector) -> dict[str, float]:
    return {name: level for name, level in vector.to_dict().items() if level}
