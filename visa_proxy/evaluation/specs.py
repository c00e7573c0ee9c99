"""NAME=SPEC: which systems are compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from yarl import URL

from visa_proxy.errors import ConfigError
from visa_proxy.evaluation.causal import check_folder
from visa_proxy.evaluation.judge import digest_of
from visa_proxy.evaluation.prompts import BASELINES
from visa_proxy.policy.problems import shown

REWRITERS: Final = ("rewriter", "compact")
REMOTE: Final = (*REWRITERS, *BASELINES)
LOCAL: Final = ("model", *BASELINES)
ALLOWED: Final = (
    "echo, shield, shield:visa.yaml, rewriter:bundled, model:FOLDER; rewriter or compact with :URL#MODEL; simple, rules or cot with "
    ":URL#MODEL or :FOLDER; such as rules:http://127.0.0.1:8001/v1#qwen3-4b"
)
ASSETS: Final = Path(__file__).parent.parent / "assets"
MAX_SYSTEMS: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. +-]{0,39}(?:@(?P<size>\d{1,6}(?:\.\d{1,3})?)(?P<unit>[KMB]))?")
_UNITS: Final = {"K": 1e3, "M": 1e6, "B": 1e9}


@dataclass(frozen=True)
class Spec:
    """One system, not opened."""

    name: str
    text: str
    """As it was given, behind the name."""
    kind: str
    """echo, shield, bundled, model, or one of `REMOTE`."""
    url: str = ""
    model: str = ""
    config: Path | None = None
    """A visa.yaml; None: the bundled shield."""
    folder: Path | None = None
    """Of a model that runs in this process."""

    @property
    def remote(self) -> bool:
        """It is asked over HTTP, and there is nothing to start."""
        return self.kind in REMOTE and self.folder is None

    def identity(self) -> str:
        """What tells its answers from those of any other system: the spec, and the contents of the files that it stands for.

        The name is no part of it. Raises ConfigError for a file that cannot be read.
        """
        if self.config is not None:
            return f"shield {digest_of(self.config)}"
        if self.folder is not None:
            return f"{self.kind} {digest_of(self.folder)}"
        if self.kind in ("shield", "bundled"):
            return f"{self.kind} {digest_of(ASSETS if self.kind == 'shield' else ASSETS / 'rewriter')}"
        return f"{self.kind}:{self.url}#{self.model}" if self.remote else self.kind


def parse_systems(given: Sequence[str]) -> list[Spec]:
    """At least one, and each name once. Raises ConfigError with everything that is wrong."""
    specs: list[Spec] = []
    problems: list[str] = []
    for each in given:
        try:
            spec = parse_system(each)
        except ConfigError as error:
            problems += error.problems
            continue
        if any(spec.name == other.name for other in specs):
            problems.append(f"--system: the name {spec.name!r} is given twice; allowed: a name for each")
        specs.append(spec)
    if not 1 <= len(given) <= MAX_SYSTEMS:
        problems.append(f"--system: found {len(given)}, allowed: 1 … {MAX_SYSTEMS}")
    if problems:
        raise ConfigError(problems)
    return specs


def parse_system(given: str) -> Spec:
    """Raises ConfigError, which repeats no address: it may hold a password."""
    name, found, text = given.partition("=")
    if not found or not _NAME.fullmatch(name):
        allowed = (
            "NAME=SPEC, the name of at most 40 letters, digits, _ . + - and blanks, and with @8B or the like a size behind it"
        )
        raise ConfigError([f"--system: found {shown(name)} as the name, allowed: {allowed}"])
    kind, found, rest = text.partition(":")
    if text in ("echo", "shield"):
        return Spec(name, text, text)
    if text == "rewriter:bundled":
        return Spec(name, text, "bundled")
    if kind == "shield" and rest:
        if not Path(rest).is_file():
            raise ConfigError([f"--system {name}: there is no file {shown(rest)}; allowed: the path of a visa.yaml"])
        return Spec(name, text, "shield", config=Path(rest).resolve())
    if kind in LOCAL and rest and "://" not in rest and (kind == "model" or "#" not in rest):
        check_folder(Path(rest), f"--system {name}")
        return Spec(name, text, kind, folder=Path(rest).resolve())
    if kind in REMOTE and found:
        url, _, model = rest.partition("#")
        if not _good(url) or not model.strip():
            what = "no URL in front of the #" if model.strip() else "no model behind a #"
            raise ConfigError([f"--system {name}: found {what}, allowed: {kind}:http(s)://…/v1#MODEL"])
        return Spec(name, text, kind, url=url.rstrip("/"), model=model.strip())
    raise ConfigError([f"--system {name}: found {shown(kind)}, allowed: {ALLOWED}"])


def sized(name: str) -> tuple[str, float] | None:
    """Method and parameters of a system that is named METHOD@SIZE, such as grpo@0.6B; None for any other."""
    found = _NAME.fullmatch(name)
    if found is None or found["size"] is None:
        return None
    return name.rpartition("@")[0], float(found["size"]) * _UNITS[found["unit"]]


def _good(url: str) -> bool:
    try:
        address = URL(url)
        return address.scheme in ("http", "https") and bool(address.host) and address.user is None and address.password is None
    except ValueError:
        return False
