"""The tenant policy as its YAML file says it. `resolve` holds what the server uses at run time."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from visa_proxy.policy.assign import HOLDOUT
from visa_proxy.policy.document import did_you_mean
from visa_proxy.policy.problems import NOT_BLANK, refusal, shown
from visa_proxy.values import load_space

Preserve = Literal["code", "urls", "numbers", "quotes", "names"]
"""The kinds of shield.preserve, which this layer may not import; a test holds the two equal."""

MAX_PROFILES: Final = 200
"""Per tenant; bounds the length of `extends` chains."""

TENANT_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"


class Strict(BaseModel):
    """Frozen; unknown keys are errors; text is no number, and true is no 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def _known_dimension(name: str, info: ValidationInfo) -> str:
    """Validation context "dimensions": the names the configured detector measures."""
    known = (info.context or {}).get("dimensions") or load_space("schwartz").names
    if name not in known:
        raise refusal(f"unknown value {name!r}; {did_you_mean(name, known)}allowed: {', '.join(known)}")
    return name


def _pair(allowed: str, *, rising: bool = False) -> WrapValidator:
    """One problem for a pair, whatever is wrong in it: its numbers mean something together only."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            pair = handler(value)
        except ValidationError:
            pair = None
        if pair is not None and (not rising or pair[0] < pair[1]):
            return pair
        found = f"[{', '.join(map(shown, value))}]" if isinstance(value, list) and len(value) <= 4 else shown(value)
        raise refusal(f"found {found}, allowed: two numbers, {allowed}")

    return WrapValidator(check)


def _key_hash(value: Any) -> str:
    """Never repeats its input: it may be the key itself."""
    text = value if isinstance(value, str) else ""
    digest = text.removeprefix("sha256:")
    if digest == text or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise refusal("this is no key hash; allowed: sha256: and 64 lower-case hex digits (`visa-proxy keys create`)")
    return text


def _moment(value: Any) -> datetime:
    """Within the years that all clocks and formats have."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.utcoffset() is None or not 1970 < moment.year < 9999:
        raise refusal(f"found {shown(value)}, allowed: a time with its offset from UTC, such as 2026-01-31T09:00:00Z")
    return moment


def _arm_name(name: str) -> str:
    if name == HOLDOUT:
        raise refusal(f"{HOLDOUT!r} is the arm of units held back; allowed: any other name (`name: {{profile: {HOLDOUT}, …}}`)")
    return name


def _json_pointer(value: str) -> str:
    """RFC 6901, but for the whole document (""): that is no string field."""
    if not value.startswith("/") or re.search(r"~(?![01])", value):
        raise ValueError("allowed: a JSON pointer that starts with / (~ and / in a name as ~0 and ~1), such as /steps/*/text")
    return value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Level = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
DimensionName = Annotated[str, AfterValidator(_known_dimension)]
Bounds = Annotated[
    tuple[Annotated[float, Field(ge=-1, le=0, allow_inf_nan=False)], Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]],
    Field(strict=False),
    _pair("[least, greatest]: the least -1 … 0, the greatest 0 … 1 (no shift at all must stay possible)"),
]
"""The least and the greatest offset; 0 is among them."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Part = Annotated[tuple[Share, Share], Field(strict=False), _pair("[from, to], of 0 … 1, from less than to", rising=True)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=NOT_BLANK)]
KeyHash = Annotated[str, BeforeValidator(_key_hash)]
JsonPointer = Annotated[str, StringConstraints(max_length=500), AfterValidator(_json_pointer)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class ProfileSpec(Strict):
    """One way to speak: levels of values, an instruction, or both (their offsets add up and are clipped)."""

    mode: Literal["offset", "target"] | None = None
    """offset: v* = v + values; target: v* = values. Default: that of the extended profile, else offset."""
    values: dict[DimensionName, Level] = Field(default_factory=dict)
    """Level per value, or dimension of another configured space, -1 (argue against) … 1 (promote); those not named are 0."""
    instruction: Text | None = None
    """Plain words, translated into an offset for every answer. Not with mode target."""
    extends: Name | None = None
    """Another profile of this file to start from; what is said here wins."""


def _kind_tag(*kinds: tuple[type, str], otherwise: str) -> Discriminator:
    """By what a value looks like, so that a problem is told of the one kind that was meant."""

    def tag(value: Any) -> str:
        return next((name for kind, name in kinds if isinstance(value, kind)), otherwise)

    return Discriminator(tag)


ProfileEntry = Annotated[
    Annotated[ProfileSpec, Tag("<profile>")] | Annotated[Literal["passthrough"], Tag("<word>")],
    _kind_tag((str, "<word>"), otherwise="<profile>"),
]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ArmName = Annotated[Name, AfterValidator(_arm_name)]
Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]


class ArmSpec(Strict):
    """An arm with a name of its own, so that two arms may have one profile (an A/A test)."""

    profile: str
    """A profile of this file."""
    weight: Weight
    """Relative to the sum of the weights."""


ArmEntry = Annotated[
    Annotated[ArmSpec, Tag("<arm>")] | Annotated[Weight, Tag("<weight>")],
    _kind_tag((dict, "<arm>"), (ArmSpec, "<arm>"), otherwise="<weight>"),
]
Traffic = Annotated[
    Annotated[Part, Tag("<part>")] | Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), Tag("<share>")],
    _kind_tag((list, "<part>"), (tuple, "<part>"), otherwise="<share>"),
]


class ExperimentSpec(Strict):
    """Requests that name no profile are shared out among arms."""

    name: Name
    """Part of the hash that assigns: renaming an experiment shuffles its units."""
    unit: Annotated[str, StringConstraints(pattern=r"^(user|session|conversation|header:[A-Za-z0-9-]+)$")]
    """What sticks to an arm: user, session (header X-Visa-Unit), conversation, or header:<name>."""
    arms: dict[ArmName, ArmEntry] = Field(min_length=2, max_length=50)
    """Profile to weight, or a name of its own to profile and weight; weights are relative to their sum."""
    holdout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    """Share of the units that are in no arm, 0 … 1: they get the default profile, and are counted as the arm "holdout"."""
    layer: Name | None = None
    """Experiments of one layer never take the same unit. Default: a layer of its own, independent of all others."""
    traffic: Traffic = 1.0
    """The share of the layer's units that take part, behind that of the experiment before it there; or the part itself, [from, to]."""
    start: Moment | None = None
    """When it begins: a time with its offset from UTC. Default: at once."""
    stop: Moment | None = None
    """When it is over. Default: never."""


class RequestPermissions(Strict):
    """What a caller may choose per request."""

    profiles: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Profiles that X-Visa-Profile or `model@profile` may name. Default: none."""
    instruction: bool = False
    """Whether X-Visa-Instruction is taken."""


class Shield(Strict):
    """How a rewrite is made and what it must pass before it leaves."""

    streaming: Literal["window", "full"] = "full"
    """full: a streamed answer is rewritten, then sent at once; window: in windows, each rewritten, verified and sent by itself."""
    min_consistency: Share = 0.6
    """Entailment both ways, 0 … 1, that a rewrite must reach."""
    min_gain: Share = 0.0
    """How much closer (cosine) to v* than the answer the rewrite must be, 0 … 1."""
    skip_above: Level = 0.95
    """Answers whose cosine with v* is above this are left alone."""
    candidates: Annotated[int, Field(ge=1, le=16)] = 1
    """Rewrites asked for at once; the best verified one is taken. Of a window: the first, and the others when it is refused."""
    retries: Annotated[int, Field(ge=0, le=5)] = 1
    """Further rounds when no candidate passes."""
    on_failure: Literal["original", "error"] = "original"
    """When nothing passes: the base model's own answer, or an error (which streaming window, once it has sent, cannot give)."""
    preserve: Annotated[tuple[Preserve, ...], Field(strict=False)] = ("code", "urls", "numbers", "quotes", "names")
    """What comes back byte for byte."""
    glossary: Annotated[tuple[Annotated[Text, StringConstraints(max_length=200)], ...], Field(strict=False)] = ()
    """Terms of the house that come back byte for byte."""
    json_fields: Annotated[tuple[JsonPointer, ...], Field(strict=False, max_length=50)] = ()
    """String fields of JSON answers that are rewritten: JSON pointers, in which * is every element or member. Default: none."""
    timeout_s: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 20.0
    """Seconds to rewrite and verify an answer, or each part of one; after that the failure rule applies."""

    @field_validator("json_fields")
    @classmethod
    def _each_once(cls, pointers: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((pointer for i, pointer in enumerate(pointers) if pointer in pointers[:i]), None)
        if twice is not None:
            raise refusal(f"{twice!r} is listed twice; list each once")
        return pointers


class RewriterChoice(Strict):
    """Which rewriter speaks for this tenant."""

    model: Text | None = None
    """vLLM model or LoRA adapter name; default: the server's rewriter."""


class Limits(Strict):
    """What one tenant may use of one `visa-proxy serve`, however many workers it has."""

    requests_per_minute: Annotated[int, Field(ge=1)] = 600
    """Requests a minute."""
    concurrent: Annotated[int, Field(ge=1)] = 64
    """Requests at the same time."""
    body_mb: Annotated[float, Field(gt=0, le=64, allow_inf_nan=False)] = 4.0
    """Request body in MiB; the server's own limit holds as well."""
    header_kb: Annotated[float, Field(gt=0, le=64, allow_inf_nan=False)] = 32.0
    """Request line and headers in KiB; the server itself takes 64."""
    upload_s: Seconds = 30.0
    """Seconds to receive the request's body."""
    idle_s: Seconds = 120.0
    """Seconds an answer may stand still: the base sends nothing more, or the client does not read."""
    total_s: Seconds = 600.0
    """Seconds for the whole request, from its headers to the last byte of the answer."""


class StoreSettings(Strict):
    """What is kept of this tenant's answers, where the server has a store. Numbers always are."""

    text: bool = False
    """Whether questions, answers and comments are kept, too."""
    retention_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30.0
    """Days until those texts are deleted; numbers stay."""


class PolicyFile(Strict):
    """A visa-proxy tenant policy."""

    tenant: Annotated[str, StringConstraints(pattern=TENANT_PATTERN)]
    """Lower-case letters, digits and dashes; appears in headers and metrics."""
    api_keys: Annotated[tuple[KeyHash, ...], Field(strict=False, min_length=1)]
    """Hashes of the tenant's keys, as `visa-proxy keys create` prints them."""
    base: Name = "default"
    """A base of visa.yaml."""
    failover: Name | None = None
    """A second base, asked when the first cannot be reached or answers 502, 503 or 504. Default: none."""
    default_profile: str
    """The profile of requests that name none."""
    profiles: dict[Name, ProfileEntry] = Field(min_length=1, max_length=MAX_PROFILES)
    """Profile by name; the word passthrough means the base model's own answer, byte for byte."""
    experiments: Annotated[tuple[ExperimentSpec, ...], Field(strict=False, max_length=100)] = ()
    """A request takes part in the first running experiment whose unit it carries, and whose part of its layer has the unit."""
    request: RequestPermissions = RequestPermissions()
    """What a caller may choose per request."""
    bounds: dict[DimensionName, Bounds] = Field(default_factory=dict)
    """Value to [least, greatest] offset, -1 … 0 and 0 … 1, that any one instruction may ask for, a caller's or a profile's.

    An instruction that asks for more gets that much. Values not named: [-1, 1]. The `values` of profiles are not bounded.
    """
    shield: Shield = Shield()
    """How a rewrite is made and verified."""
    rewriter: RewriterChoice = RewriterChoice()
    """Which rewriter speaks for this tenant."""
    limits: Limits = Limits()
    """What this tenant may use."""
    store: StoreSettings = StoreSettings()
    """What is kept of its answers."""

    @field_validator("api_keys")
    @classmethod
    def _distinct(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(keys)) != len(keys):
            raise refusal("the same key hash is listed twice; list each once")
        return keys
