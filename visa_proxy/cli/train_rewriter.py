"""`visa-proxy train rewriter`: train the bundled small rewriter from public text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from visa_proxy.training.sft import Recipe, Trainer
    from visa_proxy.training.synthesis import Synthesizer

RECIPE = Path(__file__).parent.parent / "training" / "recipes" / "rewriter.yaml"


@click.command("rewriter")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder that holds dolly/*.json.")
@click.option("--recipe", type=click.Path(path_type=Path, exists=True), default=RECIPE, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("rewriter"), show_default=True, help="Model folder.")
@click.option("--run", type=click.Path(path_type=Path), default=Path("runs/rewriter"), help="Checkpoints. [runs/rewriter]")
@click.option("--resume/--fresh", default=True, show_default=True, help="Go on from the run's checkpoint, if any.")
@click.option("--minutes", type=click.FloatRange(min=0), help="Training time; replaces the recipe's budget.")
@click.option("--threads", type=click.IntRange(min=1), default=None, help="CPU threads; default: all cores.")
def rewriter(data: Path, recipe: Path, out: Path, run: Path, resume: bool, minutes: float | None, threads: int | None) -> None:
    """Train the small rewriter from scratch and write a model folder that vLLM and `transformers serve` load."""
    from visa_proxy.errors import VisaError
    from visa_proxy.optional import need
    from visa_proxy.training.phrases import phrases

    try:
        need("torch", extra="train").set_num_threads(threads or need("torch", extra="train").get_num_threads())
        need("transformers", extra="train").utils.logging.set_verbosity_error()
        from visa_proxy.training.sft import Recipe

        settings = Recipe.load(recipe)
        if minutes is not None:
            settings = dataclasses.replace(settings, minutes=minutes, steps=None)
        trainer, held_synthesizer = _build(settings, data, run, resume)
        _train(trainer, held_synthesizer)
        # Imported late: a long run then exports with the code of its end, not of its start.
        from visa_proxy.training.bundle import export

        command = f"visa-proxy train rewriter --data DATA --recipe {recipe.name} --minutes {settings.minutes or 0:g}"
        export(trainer, data, phrases(), out, command=command)
    except VisaError as error:
        raise click.UsageError(error.message) from error
    click.echo(f"model written to {out}")


def _build(recipe: Recipe, data: Path, run: Path, resume: bool) -> tuple[Trainer, Synthesizer]:
    """The trainer, at its checkpoint if there is one, and the synthesizer of the held-out texts."""
    import random

    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    from visa_proxy.training.corpus import read_dolly
    from visa_proxy.training.phrases import phrases
    from visa_proxy.training.sft import Trainer
    from visa_proxy.training.sources import Sources
    from visa_proxy.training.synthesis import Synthesizer
    from visa_proxy.training.tokenizer import train_tokenizer
    from visa_proxy.values import load_space

    space = load_space("schwartz")
    synthesizer = Synthesizer(space, Sources.of([a.text for a in read_dolly(data, "train")]), phrases())
    heldout = Synthesizer(space, Sources.of([a.text for a in read_dolly(data, "heldout")]), phrases())
    tokenizer: Any
    if resume and (run / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(run)
    else:
        click.echo("training the tokenizer")
        rng = random.Random(recipe.seed)  # noqa: S311 - a seed, not a secret
        pairs = (synthesizer.pair(rng) for _ in range(12_000))
        texts = (text for pair in pairs for text in (pair.prompt, pair.answer))
        tokenizer = train_tokenizer(texts, vocab_size=recipe.vocab_size)
        tokenizer.save_pretrained(run)
    torch.manual_seed(recipe.seed)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **ids, **recipe.model))
    trainer = Trainer(model, tokenizer, synthesizer, recipe, run)
    if resume and trainer.restore():
        click.echo(f"resuming {run} at step {trainer.step}")
    return trainer, heldout


def _train(trainer: Trainer, heldout: Synthesizer) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from visa_proxy.training.probe import held, measure

    data = held(heldout, trainer.tokenizer)
    share = TextColumn("{task.percentage:.0f} %")
    columns = (TextColumn("{task.description}"), BarColumn(), share, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("rewriter", total=1.0)

        def report(state: Trainer, loss: float) -> None:
            bar.update(task, completed=min(1.0, state.progress), description=f"step {state.step}  loss {loss:.3f}")
            if state.step % state.recipe.evaluate_every == 0:
                figures = measure(state.model, data)
                bar.console.print(
                    f"step {state.step}  {state.elapsed / 60:.1f} min  held-out loss {figures['loss']:.3f}  "
                    f"exact copies {figures['copy_exact']:.2f}"
                )

        trainer.train(report)
