"""`visa-proxy eval`: how well rewriters work."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visa_proxy.errors import ConfigError

if TYPE_CHECKING:
    from visa_proxy.evaluation.judge import JudgeFiles
    from visa_proxy.evaluation.run import Evaluation
    from visa_proxy.evaluation.specs import Spec

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


@click.group("eval")
def evaluate() -> None:
    """Compare rewriters on frozen cases."""


@evaluate.command("cases")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write.")
@click.option("--seed", default=0, show_default=True, help="Draws answers, targets and what is to be preserved.")
def cases(out: Path, seed: int) -> None:
    """Write the frozen cases again: seed 0 gives the bundled file, byte for byte."""
    from visa_proxy.evaluation.cases import dumps
    from visa_proxy.evaluation.draw import drawn

    found = drawn(seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(dumps(found))
    except OSError as error:
        raise ConfigError([f"{out}: cannot write to it: {error.strerror}"]) from error
    click.echo(f"wrote {out}: {len(found)} cases on {len({case.topic for case in found})} topics")


@evaluate.command("rewrite")
@click.option("--system", "systems", multiple=True, required=True, metavar="NAME=SPEC", help="What to compare; see below.")
@click.option("--cases", "file", type=FILE, help="Cases, JSON Lines; default: the bundled ones.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/eval"), show_default=True)
@click.option("--limit", type=click.IntRange(min=1), help="The first N cases alone.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True, help="Cases at a time.")
@click.option("--judge-detector", type=FOLDER, help="Detector weights that judge; default: the bundled ones.")
@click.option("--judge-facts", type=FOLDER, help="Fact analyzer weights that judge; default: the bundled ones.")
@click.option("--lexicon", type=FOLDER, help="Judge by words too: the data folder that holds pyvalues-dictionary/en.json.")
@click.option("--fluency", type=FOLDER, help="Measure perplexity under this causal language model.")
@click.option("--against", metavar="NAME", help="Test the other systems against this one.")
@click.option("--min-value", type=click.FloatRange(-1, 1), default=0.5, show_default=True, help="Joint success: value cosine.")
@click.option(
    "--min-nearer", type=click.FloatRange(0), default=0.25, show_default=True, help="Joint success: how much L2 gets less."
)
@click.option(
    "--min-consistency", type=click.FloatRange(0, 1), default=0.6, show_default=True, help="Joint success: consistency."
)
@click.option(
    "--api-key-env", "keys", multiple=True, metavar="[NAME=]VARIABLE", help="Environment variable with the key of a system's URL."
)
@click.option(
    "--timeout-s", type=click.FloatRange(0, 600, min_open=True), default=60.0, show_default=True, help="Of one rewrite."
)
@click.option("--retry-failed", is_flag=True, help="Ask again about what ended in an error.")
def rewrite(
    systems: tuple[str, ...],
    file: Path | None,
    limit: int | None,
    seed: int,
    against: str | None,
    min_nearer: float,
    min_value: float,
    min_consistency: float,
    keys: tuple[str, ...],
    judge_detector: Path | None,
    judge_facts: Path | None,
    lexicon: Path | None,
    fluency: Path | None,
    **options: Any,
) -> None:
    """Ask systems to rewrite the same answers, judge what they made, and write report.md.

    \b
    SPEC is one of
      echo                    the answer itself
      shield                  the bundled shield; shield:visa.yaml: that of a config
      rewriter:bundled        the bundled rewriter, unverified
      model:FOLDER            a rewriter in a folder as transformers saves it, unverified
      rewriter:URL#MODEL      any rewriter, unverified
      compact:URL#MODEL       one that is prompted as the bundled one is
      simple:URL#MODEL        a chat model, told in one sentence
      rules:URL#MODEL         … told rules and definitions
      cot:URL#MODEL           … told to think first
    The last three also take a FOLDER. A NAME such as grpo@0.6B puts a system into the plot of joint success by size.

    A run that was stopped, or killed, goes on where it was: what was answered is not asked again.
    """
    from visa_proxy.evaluation.cases import bundled, read_cases
    from visa_proxy.evaluation.report import About, results, write
    from visa_proxy.evaluation.run import Evaluation, Settings
    from visa_proxy.evaluation.specs import parse_systems
    from visa_proxy.server.components import standalone
    from visa_proxy.training.rewards.bounds import Bounds

    specs = parse_systems(systems)
    if against is not None and against not in [spec.name for spec in specs]:
        raise ConfigError([f"--against: found {against!r}, allowed: {', '.join(spec.name for spec in specs)}"])
    found = read_cases(file or bundled())[:limit]
    judge = _judge(detector=judge_detector, facts=judge_facts, lexicon=lexicon, fluency=fluency)
    settings = Settings(specs=specs, cases=found, judge=judge, open_shield=standalone, keys=_keys(keys, specs), **options)
    evaluation = Evaluation(settings)
    _run(evaluation, specs)
    bounds = Bounds(min_value, min_consistency, min_nearer)
    measured = results(found, {spec.name: (spec.text, evaluation.rows(spec)) for spec in specs}, bounds)
    name = "the bundled ones" if file is None else f"`{file.name}`"
    write(settings.out, found, measured, About(name, _about(judge), against, bounds, seed))
    for each in measured:
        errors = int((~each.measured.answered).sum())
        click.echo(f"{each.name}: joint success {each.figures['success'].value:.3f}" + (f", {errors} errors" if errors else ""))
    click.echo(f"wrote {settings.out / 'report.md'}")


def _judge(**given: Path | None) -> JudgeFiles:
    """The files that were given, and the bundled ones. Raises ConfigError for a folder that holds no language model."""
    from visa_proxy.evaluation.causal import check_folder
    from visa_proxy.evaluation.judge import JudgeFiles

    if (fluency := given["fluency"]) is not None:
        check_folder(fluency, "--fluency")
    return JudgeFiles(**{name: path for name, path in given.items() if path is not None})


def _keys(given: tuple[str, ...], specs: list[Spec]) -> dict[str, str]:
    """By name of a system. Raises ConfigError for a name nobody has, and for a variable that holds nothing."""
    keys: dict[str, str] = {}
    urls = {spec.name: spec.url for spec in specs if spec.remote}
    for each in given:
        name, found, variable = each.rpartition("=")
        # Without a name it is for all, unless that would show one server's key to another.
        names = [name] if found else list(urls)
        if not urls or (found and name not in urls) or (not found and len(set(urls.values())) > 1):
            allowed = f"NAME=VARIABLE, NAME one of {', '.join(urls)}" if urls else "none, since no system has a URL"
            raise ConfigError([f"--api-key-env: found {f'the name {name!r}' if found else 'no name'}, allowed: {allowed}"])
        if not (key := os.environ.get(variable, "").strip()):
            raise ConfigError([f"--api-key-env: the environment variable {variable} is not set"])
        keys |= dict.fromkeys(names, key)
    return keys


def _about(judge: JudgeFiles) -> list[str]:
    """Who judged, and why that may flatter somebody."""
    bundled = judge.bundled()
    lines = [
        f"Judge: detector {'bundled' if 'detector' in bundled else f'`{judge.detector.name}`'}, "
        f"fact analyzer {'bundled' if 'facts' in bundled else f'`{judge.facts.name}`'} (digest {judge.digest()})."
    ]
    if judge.lexicon is not None:
        lines[0] += f" Lexicon: `{judge.lexicon.name}`."
    if judge.fluency is not None:
        lines[0] += f" Fluency: `{judge.fluency.name}`."
    if bundled:
        named = " and ".join({"detector": "detector", "facts": "fact analyzer"}[name] for name in bundled)
        lines += [
            f"The bundled {named} also verify what the bundled shield lets pass, and are the reward that rewriters are trained with:",
            "whoever was trained on or verified by them is flattered. `--judge-detector` and `--judge-facts` take others, of another seed",
            "and split of the data.",
        ]
    return lines


def _run(evaluation: Evaluation, specs: list[Spec]) -> None:
    """With a bar for each system on standard error; Ctrl-C ends the command."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as progress:
        bars = {}
        for spec in specs:
            total, left = len(evaluation.settings.cases), len(evaluation.pending(spec))
            bars[spec.name] = progress.add_task(spec.name, total=total, completed=total - left)
        try:
            asyncio.run(evaluation.run(lambda name: progress.advance(bars[name])))
            return
        except KeyboardInterrupt:
            pass  # the bars are left first, so that what is said stands below them
    total = len(specs) * len(evaluation.settings.cases)
    done = total - sum(len(evaluation.pending(spec)) for spec in specs)
    click.echo(f"stopped: {done} of {total} rows are done and kept; the same command goes on from there", err=True)
    click.get_current_context().exit(INTERRUPTED)
