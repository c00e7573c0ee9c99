"""A small good policy, for tests to break."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "policies"
HASH = "sha256:" + "ab" * 32
GOOD = f"""\
tenant: acme
api_keys: ["{HASH}"]
default_profile: bold
profiles:
  bold: {{values: {{stimulation: 1, security: -0.5}}}}
  off: passthrough
"""


def write(folder: Path, text: str, name: str = "acme.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
