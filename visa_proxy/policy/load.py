"""Policy files to tenants."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from types import MappingProxyType

from visa_proxy.errors import ConfigError
from visa_proxy.policy.combinations import contradictions
from visa_proxy.policy.document import Document, by_place, read_document
from visa_proxy.policy.layers import experiments_of
from visa_proxy.policy.problems import validate
from visa_proxy.policy.references import broken_references
from visa_proxy.policy.resolve import PolicySet, Profile, Tenant
from visa_proxy.policy.schema import PolicyFile, ProfileSpec
from visa_proxy.values import Space, Target, ValueVector, load_space


def policy_files(directory: Path) -> list[Path]:
    """The *.yaml and *.yml files of a directory, sorted, without hidden ones (..data of a ConfigMap, swap files).

    Raises ConfigError when the directory cannot be read.
    """
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise ConfigError([f"{directory}:1:1: cannot be read: {error.strerror or error}"]) from error
    return [path for path in entries if path.suffix in {".yaml", ".yml"} and not path.name.startswith(".")]


def load_policies(paths: Iterable[Path], *, bases: Collection[str] | None = None, space: Space | None = None) -> PolicySet:
    """All tenants of `paths`. Raises ConfigError with every problem of every file and every conflict between files.

    `bases`: names in the server config, None where not known; `space`: what the detector measures, default schwartz.
    A target lives in the smallest part of it that its values need, see `Space.covering`.
    """
    tenants: list[Tenant] = []
    problems: list[str] = []
    for path in paths:
        try:
            tenants.append(load_policy(path, bases=bases, space=space))
        except ConfigError as error:
            problems += error.problems
    try:
        policies = PolicySet(tenants)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return policies


def load_policy(path: Path, *, bases: Collection[str] | None = None, space: Space | None = None) -> Tenant:
    """One tenant. Raises ConfigError with all problems of the file."""
    return build_tenant(read_document(path), bases=bases, space=space)


def build_tenant(document: Document, *, bases: Collection[str] | None = None, space: Space | None = None) -> Tenant:
    """A tenant from a parsed file. Raises ConfigError."""
    space = space or load_space("schwartz")
    file, problems = validate(document, PolicyFile, {"dimensions": space.names})
    problems += broken_references(document, bases)
    problems += contradictions(document, file) if file is not None else []
    if file is None or problems:
        raise ConfigError(by_place(problems))
    profiles = _profiles(document, file, space)
    key_places = {key: document.where(("api_keys", i)) for i, key in enumerate(file.api_keys)}
    return Tenant(
        name=file.tenant,
        key_digests=tuple(bytes.fromhex(key.removeprefix("sha256:")) for key in file.api_keys),
        base=file.base,
        failover=file.failover,
        profiles=MappingProxyType(profiles),
        default_profile=profiles[file.default_profile],
        experiments=experiments_of(file),
        request_profiles=frozenset(file.request.profiles),
        request_instruction=file.request.instruction,
        bounds=MappingProxyType(file.bounds),
        shield=file.shield,
        limits=file.limits,
        store=file.store,
        rewriter_model=file.rewriter.model,
        source=str(document.path),
        places={"tenant": document.where(("tenant",)), **key_places},
    )


def _profiles(document: Document, file: PolicyFile, space: Space) -> dict[str, Profile]:
    """Every profile, merged along `extends`. Raises ConfigError for those that are empty or contradict themselves."""
    problems: list[str] = []
    profiles: dict[str, Profile] = {}
    for name, entry in file.profiles.items():
        if entry == "passthrough":
            profiles[name] = Profile(name, passthrough=True)
            continue
        merged = _merged(file, entry)
        message = _contradiction(merged)
        if message:
            problems.append(document.problem(("profiles", name), message))
            continue
        # Only the dimensions it names: what else is measured changes nothing for it.
        vector = ValueVector.of(space.covering(merged.values), merged.values)
        target = Target(merged.mode or "offset", vector) if vector.norm else None
        profiles[name] = Profile(name, target=target, instruction=merged.instruction)
    if problems:
        raise ConfigError(problems)
    return profiles


def _merged(file: PolicyFile, spec: ProfileSpec) -> ProfileSpec:
    """`spec` on top of what it extends; references and cycles are already checked."""
    parent = file.profiles[spec.extends] if spec.extends is not None else "passthrough"
    if parent == "passthrough":
        return spec
    below = _merged(file, parent)
    # A copy, not a new one: what it holds has been checked against the configured spaces, of which a new one would not know.
    return spec.model_copy(
        update={
            "mode": spec.mode or below.mode,
            "values": {**below.values, **spec.values},
            "instruction": spec.instruction or below.instruction,
        }
    )


def _contradiction(spec: ProfileSpec) -> str:
    if spec.mode == "target" and spec.instruction is not None:
        return (
            "mode target with an instruction: a target is absolute (v* = values), so there is nothing that the "
            "instruction's offset could be added to; allowed: mode offset, or one of the two alone"
        )
    if spec.instruction is None and not any(spec.values.values()):
        return (
            "this profile changes nothing: it has no instruction and no value other than 0; "
            "allowed: values, instruction, or the word passthrough"
        )
    return ""
