"""One stage from data to a model folder: checked, trained, scored, resumed, exported."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need
from visa_proxy.policy.resolve import Tenant
from visa_proxy.training.loop import check_writable
from visa_proxy.training.rewards.scorer import Instruments, Scorer
from visa_proxy.training.tuning import adapters, models, preflight
from visa_proxy.training.tuning.arguments import Method
from visa_proxy.training.tuning.prompts import fitting
from visa_proxy.training.tuning.recipe import Lora, RecipeBase, load, on_cpu, recipe_path
from visa_proxy.training.tuning.record import CURVE, Curve, best_folder, identify, last_checkpoint
from visa_proxy.training.tuning.stage import Stage
from visa_proxy.training.tuning.targets import Aims
from visa_proxy.training.tuning.tasks import Task, for_tenant, parted, read_tasks

WEIGHTS: Final = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""What of a saved model is needed to serve it: no optimizer, no pickle."""


@dataclass(frozen=True)
class Job:
    """What the command was told."""

    method: Method
    recipe: str
    """bundled, paper, lora-single-gpu, or a file."""
    data: Path
    model: str
    out: Path
    tenant: Tenant | None = None
    resume: bool = True
    report_to: str = "none"
    instruments: Instruments = field(default_factory=Instruments)


@dataclass(frozen=True)
class Result:
    """What came out."""

    rows: int
    """Trained on."""
    left_out: int
    """Too long, or without one of their own verbatim spans."""
    first: dict[str, Any] | None
    """Held-out figures before training; None without held-out rows."""
    best: dict[str, Any] | None
    """And of the weights that were kept."""
    card: Path | None = None
    """What was written last; None from a process that is not the main one."""


def tune(job: Job) -> Result:
    """Train, and leave a model (or adapter) in `job.out`, the run in `job.out/run`.

    Raises ConfigError and MissingExtra, before training starts, for what is wrong with recipe, data, model, output or servers.
    """
    recipe = load(job.recipe, job.method)
    lora = recipe.lora or (Lora() if job.tenant is not None else None)
    preflight.check(recipe, job.method, job.recipe, job.report_to, lora=lora is not None)
    if job.method == "sft" and job.tenant is not None:
        raise ConfigError(
            ["--tenant: sft learns from written rewrites, which a policy has none of; allowed with grpo, dpo, simpo"]
        )
    tasks = read_tasks(job.data, need_rewrite=job.method == "sft")
    if job.tenant is not None:
        tasks = for_tenant(tasks, job.tenant)
    _speakable(tasks, recipe)
    check_writable(job.out)
    run = job.out / "run"
    # As the trainer will make it: without being told, several processes on CPUs each take themselves for the only one.
    here = need("accelerate", extra="train").PartialState(cpu=on_cpu(recipe, job.method))
    with here.main_process_first():
        # Of several processes one writes; the others find what it wrote.
        if here.is_main_process:
            identify(run, _identity(job, recipe), resume=job.resume)
        begin = models.start(job.model, run, recipe.seed)
    stage, held, left_out = _staged(job, recipe, lora, tasks, begin)
    trainer = _built(stage, held)
    checkpoint, step = last_checkpoint(run)
    here.wait_for_everyone()
    if here.is_main_process:
        stage.curve.cut(step if checkpoint is not None else -1)
    here.wait_for_everyone()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    rows = stage.curve.held()
    result = Result(len(stage.train), left_out, rows[0] if rows else None, _best(rows))
    trained = best_folder(run, result.best["step"]) if result.best is not None else _last(trainer, run)
    stage.scorer.close()
    if not here.is_main_process:
        return result
    _export(stage, trained, job.out)
    return replace(result, card=_card(job, result))


def _staged(
    job: Job, recipe: RecipeBase, lora: Lora | None, tasks: list[Task], begin: models.Start
) -> tuple[Stage, list[Task], int]:
    from visa_proxy.translator.load import load_translator

    tokenizer = models.tokenizer_of(begin)
    scorer = Scorer(job.instruments.open)
    aims = Aims(scorer.grader.detector, load_translator, job.tenant)
    limits = (recipe.max_prompt_tokens, recipe.max_completion_tokens)
    fit = fitting(tasks, aims, recipe.prompt, tokenizer, recipe.chat_template, limits)
    train, held = parted(fit, recipe.held.rows)
    if not train:
        raise ConfigError(
            [f"{job.data}: no row to train on fits: {len(tasks)} rows, max_prompt_tokens is {limits[0]} in the recipe"]
        )
    curve = Curve(job.out / "run")
    stage = Stage(
        job.method, recipe, job.recipe, begin, tokenizer, train, aims, scorer, job.out / "run", curve, lora, job.report_to
    )
    return stage, held, len(tasks) - len(fit)


def _built(stage: Stage, held: list[Task]) -> Any:
    """The trainer of the method, with callbacks."""
    import datasets
    from transformers import PrinterCallback

    from visa_proxy.training.tuning import grpo, preference, sft
    from visa_proxy.training.tuning.heldout import HeldOut, Log
    from visa_proxy.training.tuning.progress import Table

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    # It would tell that rows made on the fly cannot be cached; they are not to be.
    datasets.logging.set_verbosity_error()
    table = Table()
    score = HeldOut(stage.scorer.run(stage.aims.cases(held)), stage.scorer, stage.recipe, stage.curve, table, stage.run)
    stage.callbacks.extend([Log(stage.curve, table), *([score] if held else [])])
    trainer = {"sft": sft.build, "grpo": grpo.build, "dpo": preference.build, "simpo": preference.build}[stage.method](stage)
    trainer.remove_callback(PrinterCallback)
    score.trainer = trainer
    return trainer


def _speakable(tasks: list[Task], recipe: RecipeBase) -> None:
    """Raises ConfigError for a target that the prompt cannot say."""
    for task in tasks:
        if recipe.prompt == "compact" and task.target is not None and task.target.values.space.name != "schwartz":
            names = ", ".join(name for name in task.target.values.space.names[10:])
            raise ConfigError(
                [f"{task.id}: the compact prompt knows Schwartz's values only, not {names}; use a recipe with prompt: full"]
            )


def _identity(job: Job, recipe: RecipeBase) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    files = sorted(job.data.glob("*.jsonl")) if job.data.is_dir() else [job.data]
    data = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()
    tenant = "" if job.tenant is None else f"{job.tenant.name}: {dict(job.tenant.profiles)}"
    return {
        "method": job.method,
        "recipe": json.loads(recipe.model_dump_json(exclude_unset=True)),
        "data": data,
        "model": job.model,
        "tenant": tenant,
    }


def _best(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    from visa_proxy.training.tuning.heldout import rank

    return max(rows, key=rank) if rows else None


def _last(trainer: Any, run: Path) -> Path:
    trainer.save_model(str(run / "last"))
    return run / "last"


def _export(stage: Stage, trained: Path, out: Path) -> None:
    """A folder that vLLM and `transformers serve` load: an adapter, or a model with its tokenizer."""
    if stage.lora is not None or stage.begin.adapter:
        adapters.export(trained, out)
        return
    if stage.recipe.prompt == "compact":
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from visa_proxy.training.bundle import write_model

        model, trained = AutoModelForCausalLM.from_pretrained(trained), stage.run / "export"
        write_model(model, AutoTokenizer.from_pretrained(stage.begin.model), trained)
    for file in trained.iterdir():
        if file.suffix in WEIGHTS:
            shutil.copyfile(file, out / file.name)


def _card(job: Job, result: Result) -> Path:
    """MODEL_CARD.md of the folder: the command, the data, the figures."""
    from visa_proxy.training.cards import write_card

    command = ["visa-proxy", "train", job.method, "--recipe", job.recipe, "--data", "DATA", "--model", Path(job.model).name]
    command += ["--tenant", job.tenant.name] if job.tenant is not None else []
    lines = [
        f"| {name} | {row['step']} | {_cells(row)} |" for name, row in (("before", result.first), ("kept", result.best)) if row
    ]
    lines.append(
        f"\n{result.rows} rows trained on, {result.left_out} left out as too long or without a span of their own; curve: run/{CURVE}"
    )
    return write_card(job.out, "tuning_card", command, lines, recipe_path(job.recipe).read_text(encoding="utf-8"))


def _cells(row: dict[str, Any]) -> str:
    return " | ".join(f"{row[name]:.3f}" for name in ("success", "value", "consistency", "intact", "length"))
