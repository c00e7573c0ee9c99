"""Runtime policy: what a request needs to know about its tenant, computed when the file is read and never again."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from visa_proxy.errors import ConfigError, NotFound, PermissionDenied
from visa_proxy.policy.assign import NOBODY, Assignment, Experiment, Units
from visa_proxy.policy.schema import Limits, Shield, StoreSettings
from visa_proxy.values import Target


@dataclass(frozen=True)
class Profile:
    """What one named profile does to an answer. Passthrough, or a target, or an instruction, or both of the latter."""

    name: str
    passthrough: bool = False
    """The base model's own answer, byte for byte; `target` and `instruction` are None."""
    target: Target | None = None
    """Levels given in the file, merged along `extends`; None when the profile has an instruction only."""
    instruction: str | None = None
    """Translated per answer; its offset is added to `target`'s (whose mode is then "offset") and the sum is clipped."""


@dataclass(frozen=True)
class Tenant:
    """One policy file, resolved."""

    name: str
    key_digests: tuple[bytes, ...] = field(repr=False)
    """SHA-256 digests (32 bytes) of the API keys that belong to this tenant."""
    base: str
    """Name of a base of the server config."""
    profiles: Mapping[str, Profile]
    default_profile: Profile
    failover: str | None = None
    """Name of the base that is asked when `base` cannot be reached."""
    experiments: tuple[Experiment, ...] = ()
    request_profiles: frozenset[str] = frozenset()
    """Profiles a caller may name per request."""
    request_instruction: bool = False
    """Whether a caller may send an instruction of its own (X-Visa-Instruction)."""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Dimension to the least and the greatest offset that one instruction may ask for, -1 … 0 and 0 … 1; those not named: no bound."""
    shield: Shield = field(default_factory=Shield)
    limits: Limits = field(default_factory=Limits)
    store: StoreSettings = field(default_factory=StoreSettings)
    rewriter_model: str | None = None
    """Model or LoRA adapter name on the rewriter endpoint; None: the server's own."""
    source: str = "<memory>"
    """The file this came from, for messages."""
    places: Mapping[str, str] = field(default_factory=dict, repr=False)
    """`file:line:column` of "tenant" and of every "sha256:…", for messages about conflicts between files."""


class PolicySet:
    """All tenants in force. Immutable: a reload builds a new one and swaps the reference."""

    __slots__ = ("_by_digest", "tenants")

    def __init__(self, tenants: Iterable[Tenant] = ()) -> None:
        """Raises ConfigError, naming both places, when two policies claim one tenant name or one API key."""
        listed = list(tenants)
        problems = [problem for _, _, problem in conflicts(listed)]
        if problems:
            raise ConfigError(problems)
        self.tenants: Mapping[str, Tenant] = MappingProxyType({tenant.name: tenant for tenant in listed})
        self._by_digest = {digest: (digest, tenant) for tenant in listed for digest in tenant.key_digests}

    def tenant_for_key(self, key: str) -> Tenant | None:
        """The tenant that owns the presented API key, or None.

        The key is hashed before anything is compared, so all that the timing of the dict look-up could tell is about
        a SHA-256 digest, whose bytes a caller can neither steer nor invert; the last comparison, of the whole digest,
        takes constant time. Unlike comparing with every digest, the cost does not grow with the number of tenants.
        """
        presented = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = self._by_digest.get(presented)
        return found[1] if found is not None and hmac.compare_digest(found[0], presented) else None


def conflicts(tenants: Iterable[Tenant]) -> list[tuple[Tenant, Tenant, str]]:
    """Pairs (earlier, later) that claim one tenant name or one key, each with its problem line."""
    owners: dict[str, Tenant] = {}
    found: list[tuple[Tenant, Tenant, str]] = []
    for tenant in tenants:
        claims = [("tenant", f"tenant {tenant.name!r}", f"tenant:{tenant.name}")]
        claims += [(f"sha256:{digest.hex()}", "this API key", digest.hex()) for digest in tenant.key_digests]
        for place, what, claim in claims:
            owner = owners.setdefault(claim, tenant)
            if owner is not tenant:
                here, there = (t.places.get(place, t.source) for t in (tenant, owner))
                key = "tenant" if place == "tenant" else "api_keys"
                found.append((owner, tenant, f"{here}: {key}: {what} is already claimed at {there}; it must be unique"))
    return found


def choose_profile(
    tenant: Tenant,
    header: str | None = None,
    model_suffix: str | None = None,
    *,
    units: Units = NOBODY,
    now: float | None = None,
) -> tuple[Profile, Assignment | None]:
    """The profile of one request, and the experiment arm where one decided.

    Header before model suffix before experiment before default. `header` is X-Visa-Profile, `model_suffix` what follows
    "@" in the model name; `now`: seconds since 1970, default the clock's.
    Raises NotFound (profile_not_found) or PermissionDenied (profile_not_allowed).
    """
    for name, param in ((header, "X-Visa-Profile"), (model_suffix, "model")):
        if name:
            return _requested(tenant, name, param), None
    now = time.time() if now is None else now
    for experiment in tenant.experiments:
        assignment = experiment.assign(units, now)
        if assignment is not None:
            profile = tenant.default_profile if assignment.profile is None else tenant.profiles[assignment.profile]
            return profile, assignment
    return tenant.default_profile, None


def _requested(tenant: Tenant, name: str, param: str) -> Profile:
    if name in tenant.request_profiles:
        return tenant.profiles[name]
    allowed = ", ".join(sorted(tenant.request_profiles)) or "none"
    if name in tenant.profiles:
        raise PermissionDenied(
            f"Profile {name!r} may not be chosen per request; allowed: {allowed}",
            param=param,
            code="profile_not_allowed",
        )
    raise NotFound(f"There is no profile {name[:80]!r}; allowed: {allowed}", param=param, code="profile_not_found")
