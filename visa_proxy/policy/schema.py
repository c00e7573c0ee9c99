"""The tenant policy as its YAML file says it. `resolve` holds what the server uses at run time."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
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


def _pair(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """One problem for a pair, whatever is wrong in it: its numbers mean something together only."""
    try:
        return handler(value)
    except ValidationError:
        found = f"[{', '.join(map(shown, value))}]" if isinstance(value, list) and len(value) <= 4 else shown(value)
        message = "two numbers, [least, greatest]: the least -1 … 0, the greatest 0 … 1 (no shift at all must stay possible)"
        raise refusal(f"found {found}, allowed: {message}") from None


def _key_hash(value: Any) -> str:
    """Never repeats its input: it may be the key itself."""
    text = value if isinstance(value, str) else ""
    digest = text.removeprefix("sha256:")
    if digest == text or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise refusal("this is no key hash; allowed: sha256: and 64 lower-case hex digits (`visa-proxy keys create`)")
    return text


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
    WrapValidator(_pair),
]
"""The least and the greatest offset; 0 is among them."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
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


def _profile_tag(value: Any) -> str:
    return "<word>" if isinstance(value, str) else "<profile>"


ProfileEntry = Annotated[
    Annotated[ProfileSpec, Tag("<profile>")] | Annotated[Literal["passthrough"], Tag("<word>")],
    Discriminator(_profile_tag),
]


class ExperimentSpec(Strict):
    """Requests that name no profile are shared out among arms."""

    name: Name
    """Part of the hash that assigns: renaming an experiment shuffles its units."""
    unit: Annotated[str, StringConstraints(pattern=r"^(user|session|header:[A-Za-z0-9-]+)$")]
    """What sticks to an arm: user (the request's `user`), session (header X-Visa-Unit) or header:<name>."""
    arms: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=2)
    """Profile to weight; weights are relative to their sum."""


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
    experiments: Annotated[tuple[ExperimentSpec, ...], Field(strict=False)] = ()
    """A request takes part in the first experiment whose unit it carries."""
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

    @field_validator("api_keys")
    @classmethod
    def _distinct(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(keys)) != len(keys):
            raise refusal("the same key hash is listed twice; list each once")
        return keys
