"""A profile that is tried out before it is in any policy, and the YAML that puts it there."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from visa_proxy.errors import ConfigError, NotFound, RequestError
from visa_proxy.policy.document import parse_document
from visa_proxy.policy.load import build_tenant
from visa_proxy.policy.resolve import PolicySet, Profile, Tenant
from visa_proxy.policy.schema import Level
from visa_proxy.server.surfaces.base import json_object
from visa_proxy.values import Space, Target, ValueVector

TRIED: Final = "(playground)"
"""What metrics call the profile that is tried out; no policy can have one of this name."""
_FILE: Final = Path("profile")

Model = TypeVar("Model", bound=BaseModel)
Words = Annotated[str, StringConstraints(max_length=2000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Sketch(_Body):
    """A profile as the sliders and the instruction box say it."""

    tenant: str
    mode: Literal["offset", "target"] = "offset"
    values: dict[str, Level] = {}
    instruction: Words = ""

    @property
    def spec(self) -> dict[str, Any]:
        """What stands in a policy file; {} for a profile that changes nothing."""
        values = {name: level for name, level in self.values.items() if level}
        spec: dict[str, Any] = {"mode": self.mode, "values": values} if values else {}
        return {**spec, "instruction": self.instruction.strip()} if self.instruction.strip() else spec


class Question(Sketch):
    """A sketch and what to ask."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=8000, pattern=r"\S")]
    model: Annotated[str, StringConstraints(max_length=200)] = ""
    """Of the base; "": its default."""


class Named(Sketch):
    """A sketch to keep."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=63)]


def read(raw: bytes, model: type[Model]) -> Model:
    """Raises RequestError naming the first problem."""
    try:
        return model.model_validate(json_object(raw))
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise RequestError(f"{name}: {first['msg']}", param=name) from error


def tenant_of(policies: PolicySet, name: str) -> Tenant:
    """Raises NotFound."""
    if name not in policies.tenants:
        raise NotFound(f"There is no tenant {name[:80]!r}", param="tenant", code="tenant_not_found")
    return policies.tenants[name]


def profile_of(sketch: Sketch, space: Space) -> Profile:
    """What the policy file with this profile would mean. Raises RequestError with what the file's reader says.

    A sketch that changes nothing is a profile too, as one may want to hear the base alone.
    """
    if sketch.spec:
        return _loaded(TRIED.strip("()"), sketch, space)
    return Profile(TRIED, target=Target("offset", ValueVector.zero(space.covering(()))))


def _loaded(name: str, sketch: Sketch, space: Space) -> Profile:
    policy = {
        "tenant": "playground",
        "api_keys": [f"sha256:{'0' * 64}"],
        "default_profile": name,
        "profiles": {name: sketch.spec},
    }
    try:
        found = build_tenant(parse_document(_FILE, yaml.safe_dump(policy)), space=space).default_profile
    except ConfigError as error:
        # Without file and line: nobody wrote that file.
        raise RequestError(error.problems[0].partition(": ")[2], code="invalid_profile") from error
    return Profile(TRIED, target=found.target, instruction=found.instruction)


@dataclass(frozen=True)
class Kept:
    """All that it takes to use a sketch."""

    yaml: str
    """For below `profiles:`."""
    permission: str
    """For the policy file, where callers may not choose this profile yet; else ""."""
    curl: str
    python: str


def kept(sketch: Named, tenant: Tenant, space: Space, *, url: str, model: str | None) -> Kept:
    """`url`: of the proxy, without /v1; `model`: that requests usually name. Raises RequestError for what no policy may hold."""
    if not sketch.spec:
        raise RequestError("this profile changes nothing: move a slider, or write an instruction", param="values")
    _loaded(sketch.name, sketch, space)
    entry = yaml.safe_dump({sketch.name: sketch.spec}, sort_keys=False, allow_unicode=True, width=100)
    allowed = sorted(tenant.request_profiles)
    permission = yaml.safe_dump({"request": {"profiles": [*allowed, sketch.name]}}, default_flow_style=None)
    body = {"model": model or "your-model", "messages": [{"role": "user", "content": "How should I plan my working day?"}]}
    return Kept(
        yaml=textwrap.indent(entry, "  "),
        permission="" if sketch.name in allowed else permission,
        curl=_curl(f"{url}/v1/chat/completions", sketch.name, orjson.dumps(body).decode()),
        python=_python(f"{url}/v1", sketch.name, body),
    )


def _curl(url: str, profile: str, body: str) -> str:
    return (
        f'curl -s {shlex.quote(url)} \\\n  -H "Authorization: Bearer $VISA_KEY" \\\n'
        f'  -H "Content-Type: application/json" \\\n  -H "X-Visa-Profile: {profile}" \\\n  -d {shlex.quote(body)}\n'
    )


def _python(url: str, profile: str, body: dict[str, Any]) -> str:
    return (
        "import os\n\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{url}", api_key=os.environ["VISA_KEY"])\n'
        "reply = client.chat.completions.create(\n"
        f"    model={body['model']!r},\n    messages={body['messages']!r},\n"
        f'    extra_headers={{"X-Visa-Profile": "{profile}"}},\n)\n'
        "print(reply.choices[0].message.content)\n"
    )
