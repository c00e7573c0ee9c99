"""Which systems the trained rewriters are compared with, the command that asks them, and what it left.

`before` is a copy of the bundled rewriter from the time of the first run: what is trained here may become the bundled one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training_runs import Trained

from visa_proxy.evaluation.cases import Case, bundled, read_cases
from visa_proxy.evaluation.judge import JudgeFiles, digest_of
from visa_proxy.evaluation.report import Result, results
from visa_proxy.evaluation.run import Evaluation, Settings
from visa_proxy.evaluation.specs import parse_systems
from visa_proxy.server.components import standalone
from visa_proxy.training.rewards.bounds import Bounds

SPECS: Final = {
    "answer": "echo",
    "before": "model:{runs}/before",
    "sft": "model:{runs}/sft",
    "dpo": "model:{runs}/dpo",
    "simpo": "model:{runs}/simpo",
    "grpo": "model:{runs}/grpo",
    "shield": "shield:{runs}/shield.yaml",
}
"""By name, in the order of the tables."""
AGAINST: Final = "sft"
AT_ONCE: Final = 16
_SHIELD: Final = """\
# The whole flow around the GRPO weights, {digest}. Nobody is asked for a base's answer.
bases: {{default: {{url: "http://127.0.0.1:1/v1"}}}}
rewriter: {{launch: {{model: ./grpo}}, style: compact}}
"""
_REASONS: Final = {"shield": "there is no shield.yaml around the GRPO weights that are here"}


@dataclass(frozen=True)
class Where:
    """The folders of a comparison, as they are given."""

    runs: Path
    data: Path
    cases: Path | None = None
    """None: the bundled ones."""

    @property
    def out(self) -> Path:
        return self.runs / "eval"

    @property
    def read_cases(self) -> list[Case]:
        """Raises ConfigError."""
        return read_cases(self.cases or bundled())

    @property
    def judge(self) -> JudgeFiles:
        """What was trained to judge, where it was; else the bundled instruments, which are the reward too."""
        found = {name: Trained(name, self.runs / "judge" / name) for name in ("detector", "facts")}
        given = {name: trained.folder for name, trained in found.items() if trained.card}
        if (self.data / "pyvalues-dictionary" / "en.json").is_file():
            given["lexicon"] = self.data
        return JudgeFiles(**given)


@dataclass(frozen=True)
class Comparison:
    """Rows on disk, measured."""

    cases: Sequence[Case]
    found: Sequence[Result]
    missing: Sequence[str]
    """A line for each system that is not in it."""
    judge: JudgeFiles


def shield_text(runs: Path) -> str | None:
    """The config of a shield around the GRPO weights; None where they are none that the proxy serves by itself."""
    trained = Trained("grpo", runs / "grpo")
    weights = trained.folder / "model.safetensors"
    if not trained.card or trained.recipe.get("prompt") != "compact" or not weights.is_file():
        return None
    return _SHIELD.format(digest=digest_of(weights))


def there(runs: Path) -> dict[str, str]:
    """Of the systems that can be asked, by name the spec; of the others, an empty text."""
    found = {}
    for name, spec in SPECS.items():
        if name == "shield":
            file = runs / "shield.yaml"
            good = file.is_file() and file.read_text(encoding="utf-8") == shield_text(runs)
        else:
            folder = runs / name
            whole = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
            good = name == "answer" or (whole and (name == "before" or bool(Trained(name, folder).card)))
        found[name] = spec.format(runs=runs) if good else ""
    return found


def words(where: Where, *, shown: bool = False) -> list[str]:
    """Of `visa-proxy`. `shown`: with RUNS and DATA for the folders, as a page has it."""
    runs, data = ("RUNS", "DATA") if shown else (str(where.runs), str(where.data))
    names = [name for name, spec in there(where.runs).items() if spec]
    systems = [part for name in names for part in ("--system", f"{name}={SPECS[name].format(runs=runs)}")]
    judge = where.judge
    trained = [name for name in ("detector", "facts") if getattr(judge, name) == where.runs / "judge" / name]
    judges = [part for name in trained for part in (f"--judge-{name}", f"{runs}/judge/{name}")]
    lexicon = [] if judge.lexicon is None else ["--lexicon", data]
    cases = [] if where.cases is None else ["--cases", where.cases.name if shown else str(where.cases)]
    against = ["--against", AGAINST] if AGAINST in names else []
    out = ["--out", f"{runs}/eval", "--concurrency", str(AT_ONCE)]
    return ["eval", "rewrite", *systems, *judges, *lexicon, *cases, *against, *out]


def evaluation(where: Where, names: Sequence[str]) -> Evaluation:
    """Of what `names` have been asked so far. Raises ConfigError."""
    systems = there(where.runs)
    specs = parse_systems([f"{name}={systems[name]}" for name in names])
    return Evaluation(Settings(specs, where.read_cases, where.out, where.judge, standalone))


def complete(where: Where) -> bool:
    """Whether there is nothing left to ask, and the report is there. Raises ConfigError."""
    found = evaluation(where, [name for name, spec in there(where.runs).items() if spec])
    return (where.out / "report.md").is_file() and not any(found.pending(spec) for spec in found.settings.specs)


def comparison(where: Where, bounds: Bounds) -> Comparison:
    """Of all systems whose cases have all been asked. Raises ConfigError."""
    systems = there(where.runs)
    missing = [
        f"{name}: {_REASONS.get(name, 'its folder holds no finished model')}" for name, spec in systems.items() if not spec
    ]
    found = evaluation(where, [name for name, spec in systems.items() if spec])
    rows = {}
    for spec in found.settings.specs:
        try:
            rows[spec.name] = (SPECS[spec.name].format(runs="RUNS"), found.rows(spec))
        except KeyError:
            missing.append(f"{spec.name}: {len(found.pending(spec))} of {len(found.settings.cases)} cases are still to be asked")
    return Comparison(found.settings.cases, results(found.settings.cases, rows, bounds), missing, where.judge)
