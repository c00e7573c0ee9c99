"""The training results, by one command: VCR-mini, SFT, GRPO, DPO, SimPO, judges of another seed, the comparison, and the page.

    make training DATA=folder          or          python benchmarks/training.py --data DATA [--runs runs/training] [--recipe FILE]

Runs the commands of `visa-proxy` one after the other; what is finished is left out, and what was stopped or killed goes on where it was.
RUNS/stages.json keeps what each took. A stage is done anew when its folder is removed. Writes docs/results/training.md and its plots.
`--only-report` writes them from what is there, and says what is missing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import training_page
from proxy import ROOT
from rich.console import Console
from training_runs import CARD
from training_spent import Journal
from training_systems import Where, complete, shield_text, words

from visa_proxy.errors import ConfigError
from visa_proxy.rewriter.chat import BUNDLED_MODEL

RESULTS: Final = ROOT / "docs" / "results"
JUDGE_SEED: Final = "1"
"""The bundled instruments, which are the reward, have 0."""
NAMES: Final = ("mini", "sft", "grpo", "dpo", "simpo", "detector", "facts", "eval", "shield")
console = Console()


@dataclass(frozen=True)
class Stage:
    """One command of `visa-proxy`."""

    name: str
    out: Path
    """What it makes: a file or a folder."""
    made: Path
    """What it writes last."""
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    """Stages whose results it needs."""
    reads: tuple[str, ...] = ()
    """What it needs of the data folder."""

    @property
    def done(self) -> bool:
        return self.made.is_file()


def stages(where: Where, recipe: str, model: str) -> list[Stage]:
    """All but the comparison, in their order."""
    runs, data = where.runs, where.data
    mini = runs / "mini.jsonl"
    given = ("--data", str(mini), "--recipe", recipe)
    found = [
        Stage("mini", mini, runs / "mini.jsonl.json", ("data", "mini", "--data", str(data), "--out", str(mini)), reads=("dolly",))
    ]
    for name in ("sft", "grpo", "dpo", "simpo"):
        out = runs / name
        start, after = (model, ()) if name == "sft" else (str(runs / "sft"), ("sft",))
        found.append(Stage(name, out, out / CARD, ("train", name, *given, "--model", start, "--out", str(out)), ("mini", *after)))
    for name, reads in (
        ("detector", ("dolly", "fulcra", "touche23-valueeval")),
        ("facts", ("dolly", "e-snli", "mnli-llmsknow", "conjnli")),
    ):
        out = runs / "judge" / name
        options = ("train", name, "--data", str(data), "--seed", JUDGE_SEED, "--out", str(out))
        found.append(Stage(name, out, out / CARD, options, reads=reads))
    return found


def problems(found: Sequence[Stage], left_out: Sequence[str], data: Path) -> list[str]:
    """What would end a stage that is to be run, hours from now."""
    lines = []
    there = {stage.name for stage in found if stage.done}
    asked = [stage for stage in found if not stage.done and stage.name not in left_out]
    for stage in asked:
        missing = [name for name in stage.after if name in left_out and name not in there]
        lines += [f"--leave-out {name}: {stage.name} needs it, and it is not there; allowed: both or none" for name in missing]
        lines += [
            f"--data {data}: no {part}/ in it, which {stage.name} needs" for part in stage.reads if not (data / part).is_dir()
        ]
    return lines


def run(where: Where, recipe: str, model: str, left_out: Sequence[str]) -> None:
    """Everything that is not there yet. Raises ConfigError, and SystemExit for a command that failed."""
    found = stages(where, recipe, model)
    if wrong := problems(found, left_out, where.data):
        raise ConfigError(wrong)
    where.runs.mkdir(parents=True, exist_ok=True)
    _keep_bundled(where.runs / "before")
    journal = Journal(where.runs)
    for number, stage in enumerate(found, 1):
        if stage.done or stage.name in left_out:
            console.print(f"{stage.name}: {f'done, in {stage.out}' if stage.done else 'left out'}", highlight=False)
        else:
            _run(journal, stage.name, stage.words, f"{number} of {len(found) + 1}", anew=not stage.out.exists())
    if "eval" in left_out:
        return
    if "shield" not in left_out and (text := shield_text(where.runs)) is not None:
        (where.runs / "shield.yaml").write_text(text, encoding="utf-8")
    if complete(where):
        console.print(f"eval: done, in {where.out}", highlight=False)
    else:
        _run(journal, "eval", words(where), f"{len(found) + 1} of {len(found) + 1}", anew=not where.out.exists())


def _run(journal: Journal, name: str, arguments: Sequence[str], place: str, *, anew: bool) -> None:
    console.rule(f"{name} ({place})")
    if status := journal.run(name, list(arguments), anew=anew):
        sys.exit(
            f"{name}: visa-proxy {arguments[0]} {arguments[1]} ended with status {status}; the same command goes on from there"
        )


def _keep_bundled(folder: Path) -> None:
    """A copy of the bundled rewriter, once; it is there when it is whole."""
    if folder.is_dir():
        return
    draft = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(BUNDLED_MODEL, draft)
    draft.replace(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/training"), help="where models, curves and rows go")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the page")
    parser.add_argument("--recipe", default="bundled", help="of sft, grpo, dpo and simpo")
    parser.add_argument("--model", default="bundled", help="what sft begins with")
    parser.add_argument("--cases", type=Path, help="of the comparison; default: the bundled ones")
    parser.add_argument("--leave-out", nargs="+", choices=NAMES, default=[], metavar="STAGE", help=", ".join(NAMES))
    parser.add_argument("--only-report", action="store_true", help="train and ask nothing")
    options = parser.parse_args()
    where = Where(options.runs, options.data, options.cases)
    try:
        if not options.only_report:
            run(where, options.recipe, options.model, options.leave_out)
        text = training_page.write(where, options.out)
    except ConfigError as error:
        sys.exit("\n".join(error.problems))
    except KeyboardInterrupt:
        sys.exit("stopped: what is done is kept; the same command goes on from there")
    console.print(text, markup=False, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
