"""`visa-proxy train sft|grpo|dpo|simpo`: a rewriter, or a tenant's adapter, on TRL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from visa_proxy.yaml_problems import visible

if TYPE_CHECKING:
    from visa_proxy.policy.resolve import Tenant
    from visa_proxy.training.tuning.arguments import Method

FOLDER: Final = click.Path(path_type=Path, file_okay=False)
EXISTING: Final = click.Path(path_type=Path, exists=True)
HELP: Final = {
    "sft": "Train a rewriter on written rewrites: the cold start.",
    "grpo": "Train a rewriter on rewards: values near the target, and the same facts.",
    "dpo": "Train a rewriter on pairs of its own rewrites, ranked by the reward: DPO.",
    "simpo": "Train a rewriter on pairs of its own rewrites, ranked by the reward: SimPO.",
}


def command(method: str) -> click.Command:
    """The command of `method`; all take the same options."""

    def run(**options: Any) -> None:
        _train(cast("Method", method), **options)

    text = f"{HELP[method]}\n\nA run that was killed goes on from its last checkpoint with the same command."
    made: Any = click.command(method, help=text)(run)
    for option in reversed(
        (
            click.option(
                "--data",
                type=EXISTING,
                required=True,
                help="JSON Lines of triplets or instructions, or a folder that `data build` wrote.",
            ),
            click.option(
                "--model", default="bundled", show_default=True, help="Folder, owner/name, bundled, or scratch-2m | -6m | -15m."
            ),
            click.option(
                "--recipe", default="bundled", show_default=True, help="bundled, paper, lora-single-gpu, or a YAML file."
            ),
            click.option("--out", type=FOLDER, required=True, help="Model folder; checkpoints and curve go to its run/."),
            click.option("--tenant", help="Train an adapter for the profiles of this tenant."),
            click.option("--policies", type=EXISTING, help="Where the tenant's file is.  [default: policies]"),
            click.option("--detector", type=FOLDER, help="Weights of another detector than the bundled one."),
            click.option("--facts", type=FOLDER, help="Weights of another fact analyzer than the bundled one."),
            click.option("--resume/--fresh", default=True, show_default=True, help="Go on from the last checkpoint, if any."),
            click.option("--report-to", type=click.Choice(["tensorboard", "wandb", "none"]), default="none", show_default=True),
            click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all cores."),
        )
    ):
        made = option(made)
    return cast("click.Command", made)


def _train(
    method: Method,
    *,
    data: Path,
    model: str,
    recipe: str,
    out: Path,
    tenant: str | None,
    policies: Path | None,
    detector: Path | None,
    facts: Path | None,
    resume: bool,
    report_to: str,
    threads: int | None,
) -> None:
    import warnings

    from visa_proxy.optional import need
    from visa_proxy.training.rewards.scorer import Instruments
    from visa_proxy.training.tuning import run

    # What will change in libraries that are pinned is of no use to whoever trains.
    warnings.simplefilter("ignore", FutureWarning)
    torch = need("torch", extra="train")
    if threads is not None:
        torch.set_num_threads(threads)
    need("transformers", extra="train").utils.logging.set_verbosity_error()
    owner, spaces = (None, ()) if tenant is None else _tenant(tenant, policies or Path("policies"))
    instruments = Instruments.of(detector, facts, spaces)
    job = run.Job(method, recipe, data, model, out, owner, resume, report_to, instruments)
    result = run.tune(job)
    if result.card is None:
        return
    click.echo(f"trained on {result.rows} rows, {result.left_out} left out")
    for name, row in (("before", result.first), ("kept", result.best)):
        if row is not None:
            figures = "  ".join(f"{key} {row[key]:.3f}" for key in ("success", "value", "consistency", "intact"))
            click.echo(f"held out, {name} (step {row['step']}): {figures}")
    click.echo(f"wrote {visible(str(out))}: {result.card.name} and weights")


def _tenant(name: str, policies: Path) -> tuple[Tenant, tuple[str, ...]]:
    """The tenant, and the bundled spaces beside Schwartz's that its profiles speak of. Raises ConfigError."""
    from visa_proxy.errors import ConfigError
    from visa_proxy.policy.load import load_policies, policy_files
    from visa_proxy.values import bundled_spaces, join, load_spaces

    files = policy_files(policies) if policies.is_dir() else [policies]
    others = [space for space in bundled_spaces() if space != "schwartz"]
    found = load_policies(files, space=join(load_spaces(others))).tenants
    if name not in found:
        raise ConfigError([f"{policies}: no tenant {name!r}; allowed: {', '.join(found) or 'none'}"])
    wanted = {part for p in found[name].profiles.values() if p.target for part in p.target.values.space.name.split("+")}
    return found[name], tuple(space for space in others if space in wanted)
