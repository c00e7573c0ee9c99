"""A tenant to test with."""

from __future__ import annotations

from pathlib import Path

from visa_proxy.policy.keys import hash_key

KEY = "sk-test-acme"
BOLD = "{stimulation: 1.0, hedonism: 0.5}"


def policy(
    *,
    tenant: str = "acme",
    key: str = KEY,
    default: str = "bold",
    shield: str = "{retries: 0}",
    limits: str = "{}",
    request: str = "{profiles: [bold, off, kind, aim], instruction: true}",
    extra: str = "",
) -> str:
    """The YAML of a policy. `bold` rewrites, `off` passes through, `kind` has an instruction, `aim` an absolute target.

    Callers may not choose `secret`.
    """
    return f"""\
tenant: {tenant}
api_keys: ["{hash_key(key)}"]
default_profile: {default}
profiles:
  bold: {{values: {BOLD}}}
  kind: {{instruction: "Make it kinder and more caring."}}
  aim: {{mode: target, values: {BOLD}}}
  secret: {{values: {{power: 1}}}}
  off: passthrough
request: {request}
shield: {shield}
limits: {limits}
{extra}
"""


def plain(*, limits: str = "{}", request: str = "{profiles: [off]}") -> str:
    """A tenant whose answers are never rewritten: it needs no models."""
    return f"""\
tenant: plain
api_keys: ["{hash_key(KEY)}"]
default_profile: off
profiles: {{off: passthrough}}
request: {request}
limits: {limits}
"""


def write(folder: Path, text: str, name: str = "acme.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
