"""What a policy says by name: profiles and bases that exist, chains of `extends` that end.

Works on the plain data, not on the validated model, so that these problems show together with pydantic's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from visa_proxy.policy.document import Document, KeyPath, did_you_mean
from visa_proxy.policy.schema import MAX_PROFILES


def broken_references(document: Document, bases: Collection[str] | None = None) -> list[str]:
    """Problem lines for names that lead nowhere. `bases`: those of the server config, None where it is not known."""
    data = _mapping(document.data)
    profiles = _mapping(data.get("profiles"))
    if len(profiles) > MAX_PROFILES:
        return []
    problems: list[str] = []
    for path, name, at_key in _profile_names(data, profiles):
        # What is no text, and what is missing, the schema has already said.
        if isinstance(name, str) and name not in profiles:
            listed = ", ".join(profiles) or "none is defined"
            message = f"no profile {name!r}; {did_you_mean(name, profiles)}allowed: {listed}"
            problems.append(document.problem(path, message, at_key=at_key))
    problems += _bad_bases(document, data, bases)
    return problems + _bad_chains(document, profiles) + _repeated_experiments(document, data)


def _bad_bases(document: Document, data: dict[str, Any], bases: Collection[str] | None) -> list[str]:
    """Bases that the server config does not have, and a failover to the same one."""
    problems: list[str] = []
    base, failover = data.get("base", "default"), data.get("failover")
    for key, name in (("base", base), ("failover", failover)):
        if bases is not None and isinstance(name, str) and name not in bases:
            message = f"no base {name!r} in the server config; {did_you_mean(name, bases)}allowed: {', '.join(bases)}"
            problems.append(document.problem((key,), message))
    if isinstance(failover, str) and failover == base:
        problems.append(document.problem(("failover",), f"{failover!r} is the base itself; a failover is another base"))
    return problems


def _profile_names(data: dict[str, Any], profiles: dict[str, Any]) -> Iterator[tuple[KeyPath, Any, bool]]:
    """(where, name, whether the name is a key) for everything that names a profile."""
    yield ("default_profile",), data.get("default_profile"), False
    for i, name in enumerate(_list(_mapping(data.get("request")).get("profiles"))):
        yield ("request", "profiles", i), name, False
    for i, experiment in enumerate(_list(data.get("experiments"))):
        for name, arm in _mapping(_mapping(experiment).get("arms")).items():
            if isinstance(arm, dict):
                yield ("experiments", i, "arms", name, "profile"), arm.get("profile"), False
            else:
                yield ("experiments", i, "arms", name), name, True
    for profile, spec in profiles.items():
        yield ("profiles", profile, "extends"), _mapping(spec).get("extends"), False


def _bad_chains(document: Document, profiles: dict[str, Any]) -> list[str]:
    """Cycles, each named once, and profiles that extend passthrough."""
    problems: list[str] = []
    cyclic: set[str] = set()
    for name in profiles:
        chain = [name]
        while True:
            parent = _mapping(profiles.get(chain[-1])).get("extends")
            if not isinstance(parent, str) or parent not in profiles or chain[-1] in cyclic:
                break
            chain.append(parent)
            if parent in chain[:-1]:
                cycle = chain[chain.index(parent) :]
                cyclic.update(cycle)
                message = f"extends goes round in a circle: {' -> '.join(cycle)}"
                problems.append(document.problem(("profiles", cycle[0], "extends"), message))
                break
        if len(chain) > 1 and profiles[chain[1]] == "passthrough":
            message = f"{chain[1]!r} is passthrough: it has nothing to extend"
            problems.append(document.problem(("profiles", name, "extends"), message))
    return problems


def _repeated_experiments(document: Document, data: dict[str, Any]) -> list[str]:
    seen: set[str] = set()
    problems: list[str] = []
    for i, experiment in enumerate(_list(data.get("experiments"))):
        name = _mapping(experiment).get("name")
        if isinstance(name, str) and name in seen:
            message = f"a second experiment called {name!r}: its units would fall into the same arms; names must differ"
            problems.append(document.problem(("experiments", i, "name"), message))
        seen.add(str(name))
    return problems


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
