"""docs/results/training.md, from what benchmarks/training.py left. Nothing is trained or asked here: the same folders give the same bytes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from training_runs import Trained, series
from training_spent import Journal
from training_systems import AGAINST, Comparison, Where, comparison, words

from visa_proxy.evaluation import plots, report
from visa_proxy.evaluation.report import About, Result, shown, table
from visa_proxy.evaluation.stats import ROUNDS, Bootstrap, Ratio
from visa_proxy.training.rewards.bounds import Bounds

PAGE: Final = "training.md"
METHODS: Final = ("sft", "grpo", "dpo", "simpo")
OURS: Final = "grpo"
BOUNDS: Final = Bounds()
HELD: Final = {"success": "joint success rate", "value": "value cosine", "consistency": "consistency"}


def write(where: Where, out: Path) -> str:
    """The page, and its plots beside it. Raises ConfigError for files that are not what they should be."""
    out.mkdir(parents=True, exist_ok=True)
    trained = {name: Trained(name, where.runs / name) for name in METHODS}
    judges = {name: Trained(name, where.runs / "judge" / name) for name in ("detector", "facts")}
    journal = Journal(where.runs)
    lines = [
        "# Rewriters, trained and compared",
        "",
        "Written by `make training DATA=…` (benchmarks/training.py): VCR-mini, SFT, GRPO from SFT's weights, DPO and SimPO from the",
        "same as baselines, judges of another seed than the reward's, and the comparison. [Training](../training.md) says how, and what the",
        "rewards are.",
        "",
        *_commands(where, {**trained, **judges}),
        *_stages(where, {**trained, **judges}, journal),
        *_settings(trained),
        *_curves(trained, out),
        *_compared(comparison(where, BOUNDS), judges, out),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    draft = out / f"{PAGE}.part"
    draft.write_text(text, encoding="utf-8")
    draft.replace(out / PAGE)
    return text


def mini(where: Where) -> dict[str, Any]:
    """What the data set says of itself; empty without one."""
    file = where.runs / "mini.jsonl.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def _commands(where: Where, runs: dict[str, Trained]) -> list[str]:
    """As they were given, by what they left."""
    data = mini(where)
    made = [f"visa-proxy data mini --data DATA --size {data['size']} --seed {data['seed']}"] if data else []
    made += [run.command for run in runs.values() if run.card]
    if (where.out / report.REPORT).is_file():
        made.append(shlex.join(["visa-proxy", *words(where, shown=True)]))
    missing = [name for name, run in runs.items() if not run.card] + ([] if data else ["mini"])
    said = [f"Not there, and so not on this page or not finished: {', '.join(missing)}.", ""] if missing else []
    return ["## Commands", "", "```", *made, "```", "", *said]


def _stages(where: Where, runs: dict[str, Trained], journal: Journal) -> list[str]:
    head = [
        "stage",
        "parameters",
        "rows (left out)",
        "steps (kept)",
        "seed",
        "minutes",
        "peak memory, MB",
        "runs of the command",
        "machine",
    ]
    data = mini(where)
    rows = [["mini", "–", str(data["triplets"]), "–", str(data["seed"]), *_spent(None, "mini", journal)]] if data else []
    for name, run in runs.items():
        if run.card or run.curve:
            size = run.parameters if name in METHODS else None
            count = "–" if run.rows is None else f"{run.rows[0]} ({run.rows[1]})"
            kept = "not finished" if not run.card else f"{run.kept}" if run.kept is not None else "the last"
            steps = f"{run.steps} ({kept})" if run.curve else "–"
            cells = [name, f"{size:,}".replace(",", " ") if size else "–", count, steps, run.seed]
            rows.append([*cells, *_spent(run, name, journal)])
    if "eval" in journal.stages:
        rows.append(["eval", "–", "–", "–", "0", *_spent(None, "eval", journal)])
    if not rows:
        return []
    said = "Minutes are of the whole command; ≥: of steps and scores in the curve alone, where nobody measured the command."
    return ["## Stages", "", *table(head, rows), "", said, ""]


def _spent(run: Trained | None, name: str, journal: Journal) -> list[str]:
    """Minutes, memory, runs of the command, machine."""
    spent = journal.stages.get(name)
    curve_s = None if run is None else run.curve_s
    minutes = "–" if curve_s is None else f"≥ {curve_s / 60:.1f}"
    memory = None if run is None else run.memory_mb
    if spent is None:
        return [minutes, "–" if memory is None else f"{memory:.0f}", "–", "–"]
    memory = spent.peak_mb if memory is None else memory
    return [f"{spent.seconds / 60:.1f}", "–" if memory is None else f"{memory:.0f}", str(spent.runs), spent.machine]


def _settings(runs: dict[str, Trained]) -> list[str]:
    """What each recipe said for its method, and of the reward where the method has one."""

    def said(section: dict[str, Any]) -> str:
        return "; ".join(f"{key} {_plain(value)}" for key, value in section.items())

    rows = [
        [name, said(run.recipe.get(name, {})), "–" if name == "sft" else said(run.recipe.get("reward", {}))]
        for name, run in runs.items()
        if run.recipe
    ]
    return ["## Settings", "", *table(["stage", "trainer", "reward"], rows), ""] if rows else []


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _curves(runs: dict[str, Trained], out: Path) -> list[str]:
    """Held-out scores of all stages, rewards and time of those that sample; the plots are written."""
    scored = {name: run for name, run in runs.items() if run.of_kind("held")}
    rewarded = {name: run for name, run in runs.items() if run.rewards}
    lines = ["## Curves", ""] if scored or rewarded else []
    if scored:
        plots.save(out / "training-held.svg", lambda figure: held(figure, scored), (10, 3.6))
        lines += [
            "Greedy rewrites of held-out rows, graded by the reward's instruments; a dot marks the weights that were kept.",
            "",
            "![Held-out scores by step](training-held.svg)",
            "",
        ]
    for name, run in rewarded.items():
        plots.save(out / f"training-rewards-{name}.svg", lambda figure, run=run: rewards(figure, run), (10, 3.6))  # type: ignore[misc]
        lines += [f"![Rewards of {name} by step](training-rewards-{name}.svg)", ""]
        if (shares := run.shares) is not None:
            parts = {"generation": shares.generation, "reward": shares.reward, "update and the rest": shares.update}
            said = ", ".join(f"{part} {seconds:.1f} s ({seconds / shares.step:.1%})" for part, seconds in parts.items())
            lines += [f"A step of {name} takes {shares.step:.1f} s in the mean: {said}.", ""]
    return lines


def held(figure: Any, runs: dict[str, Trained]) -> None:
    """A panel for each score, a line for each stage."""
    for axes, (key, title) in zip(figure.subplots(1, len(HELD)), HELD.items(), strict=True):
        for name, run in runs.items():
            steps, figures = series(run.of_kind("held"), key)
            (line,) = axes.plot(steps, figures, marker=".", markersize=3, linewidth=1, label=name)
            if run.kept in steps:
                axes.plot(run.kept, figures[steps.index(run.kept)], "o", color=line.get_color())
        axes.set(xlabel="step", title=title)
    figure.axes[0].legend(frameon=False)


def rewards(figure: Any, run: Trained) -> None:
    """What is maximised, with the deviation that the trainer logs; and each part of it by its name."""
    whole, parts = figure.subplots(1, 2)
    rows = run.of_kind("train")
    steps, mean = series(rows, "reward")
    around = series(rows, "reward_std")
    whole.plot(steps, mean, linewidth=1)
    if around[0] == steps:
        low, high = np.array(mean) - np.array(around[1]), np.array(mean) + np.array(around[1])
        whole.fill_between(steps, low, high, alpha=0.2, linewidth=0)
    whole.set(xlabel="step", title=f"{run.name}: reward")
    for name in run.rewards:
        found = series(rows, f"rewards/{name}/mean")
        # A product of them all is logged under a name of its own too.
        if found[0] != steps or not np.allclose(found[1], mean, atol=1e-4):
            parts.plot(*found, linewidth=1, label=name)
    parts.set(xlabel="step", title="by name")
    parts.legend(frameon=False)


def _compared(compared: Comparison, judges: dict[str, Trained], out: Path) -> list[str]:
    missing = [f"Not compared: {'; '.join(compared.missing)}.", ""] if compared.missing else []
    if not compared.found:
        return ["## Comparison", "", *missing]
    cases = compared.cases
    bootstrap = Bootstrap([case.topic for case in cases])
    about = About("", [], against=AGAINST, bounds=BOUNDS)
    plots.save(out / "training-pareto.svg", lambda figure: plots.pareto(figure.add_subplot(), compared.found, bootstrap))
    return [
        "## Comparison",
        "",
        f"{len(cases)} cases on {len({case.topic for case in cases})} topics. Intervals are 95 %, from {ROUNDS} bootstrap draws of whole "
        "topics (seed 0).",
        "`answer` is the answer itself, `before` the rewriter that was bundled when this was begun, `shield` the whole flow around the GRPO",
        "weights: what cannot be verified stays the answer.",
        "",
        *_judge(compared, judges),
        "",
        *missing,
        *report.tables(compared.found, about, bootstrap),
        f"## {OURS.upper()} beside {AGAINST.upper()}",
        "",
        *_gap(compared.found, about, bootstrap),
        "![Consistency against value cosine](training-pareto.svg)",
        "",
        f"On the Pareto front: {', '.join(front(compared.found)) or 'nobody'}.",
        "",
        *report.NOTES,
    ]


def _judge(compared: Comparison, judges: dict[str, Trained]) -> list[str]:
    """Who judged, and whom that may flatter."""
    same = compared.judge.bundled()
    named = {"detector": "detector", "facts": "fact analyzer"}
    own = [f"{named[name]} of seed {judges[name].seed}" for name in named if name not in same]
    lexicon = "a lexicon" if compared.judge.lexicon is not None else "no lexicon"
    bundled = [f"the bundled {named[name]}" for name in same]
    lines = [f"Judge: {', '.join([*own, *bundled])}, and {lexicon} (digest {compared.judge.digest()})."]
    if same:
        lines.append(
            f"The training reward is made of {' and '.join(bundled)} too, so that figures of what was trained are flattered."
        )
    return lines


def closed(ours: Result, theirs: Result) -> Ratio:
    """The share of their gap to 1 in joint success that ours closes: Σ (ours − theirs) / Σ (1 − theirs), over all cases."""
    our, their = ours.figures["success"], theirs.figures["success"]
    return Ratio.of(our.over - their.over, 1 - their.over, their.rows)


def _gap(found: Sequence[Result], about: About, bootstrap: Bootstrap) -> list[str]:
    pair = [each for name in (AGAINST, OURS) for each in found if each.name == name]
    if len(pair) < 2:
        return [f"There is nothing to compare: {AGAINST} and {OURS} are not both among the systems.", ""]
    theirs, ours = pair
    estimate = shown(bootstrap.estimate(closed(ours, theirs)))
    tests = [line.replace("## ", "### ", 1) for line in report.tests(pair, about, bootstrap)]
    said = f"Share of {AGAINST}'s gap to 1 in joint success rate that {OURS} closes: **{estimate}**."
    return [said, "", *tests]


def front(found: Sequence[Result]) -> list[str]:
    """Names of the systems that no other is at least as good as in consistency and value cosine, and better in one."""
    measured = [each for each in found if each.measured.answered.any()]
    x, y = ([each.figures[name].value for each in measured] for name in ("cosine", "consistency"))
    return [measured[i].name for i in plots.on_front(x, y)]
