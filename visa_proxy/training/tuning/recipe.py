"""Recipes: one YAML file for all stages of one way to train a rewriter."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need
from visa_proxy.policy.problems import refusal
from visa_proxy.rewriter.prompt import Style
from visa_proxy.training.heads import load_recipe
from visa_proxy.training.rewards.bounds import Bounds
from visa_proxy.training.rewards.scalar import RewardRecipe
from visa_proxy.training.tuning.arguments import METHODS, OURS, Method, arguments, config_class, given

FOLDER: Final = Path(__file__).parent.parent / "recipes" / "tuning"
RANKS: Final = (1, 8, 16, 32, 64, 128, 256)
"""Of LoRA adapters that vLLM loads."""
BUNDLED: Final = ("bundled", "paper", "lora-single-gpu")


class Section(BaseModel):
    """Frozen, and refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Lora(Section):
    """A low-rank adapter instead of all weights."""

    rank: int = 16
    """One that vLLM can serve, see `RANKS`."""
    alpha: int = Field(default=32, ge=1, le=4096)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Layers it goes to; the output layer cannot be one."""

    @field_validator("rank")
    @classmethod
    def _served(cls, rank: int) -> int:
        if rank not in RANKS:
            raise refusal(f"found {rank}, allowed: {', '.join(map(str, RANKS))}")
        return rank


class Held(Section):
    """The score while training: greedy rewrites of rows that are not trained on."""

    rows: int = Field(default=64, ge=0, le=10_000)
    """0: no score, and the last weights are kept."""
    every: int = Field(default=50, ge=1, le=1_000_000)
    """Steps between two scores; a checkpoint follows each."""
    value: float = Field(default=Bounds.value, ge=-1, le=1)
    """A joint success has at least this cosine …"""
    consistency: float = Field(default=Bounds.consistency, ge=0, le=1)
    """… this consistency …"""
    nearer: float = Field(default=Bounds.nearer, ge=0, le=10)
    """… and an L2 to the target that is this much less than that of the answer."""
    batch: int = Field(default=32, ge=1, le=4096)

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.value, self.consistency, self.nearer)


class Pairs(Section):
    """Pairs for DPO and SimPO: sampled, then ranked by the reward."""

    prompts: int = Field(default=2000, ge=1, le=10_000_000)
    """So many rows are sampled for, the first in an order by hash."""
    samples: int = Field(default=8, ge=2, le=256)
    """Of each."""
    temperature: float = Field(default=0.9, gt=0, le=5)
    margin: float = Field(default=0.1, ge=0, le=100)
    """Between the best and the worst reward; prompts with less make no pair."""
    batch: int = Field(default=64, ge=1, le=4096)
    """Texts being sampled at the same time."""


class RecipeBase(Section):
    """What all stages share."""

    prompt: Style = "full"
    """Which prompt the rewriter is served with: compact for the small one."""
    max_prompt_tokens: int = Field(default=512, ge=16, le=1_000_000)
    """Rows with longer prompts are left out; the system message, the same for all rows, is not counted."""
    max_completion_tokens: int = Field(default=1536, ge=8, le=1_000_000)
    chat_template: dict[str, Any] = {}
    """Arguments of the model's chat template, such as enable_thinking: false."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    lora: Lora | None = None
    """None: all weights are trained, but for a tenant."""
    reward: RewardRecipe = RewardRecipe()
    held: Held = Held()
    pairs: Pairs = Pairs()


def schema(method: Method) -> type[RecipeBase]:
    """With the section of `method` checked against its trainer; those of the others are checked when they are trained."""
    sections: dict[str, Any] = {name: (dict[str, Any], {}) for name in METHODS if name != method}
    sections[method] = (arguments(method), ...)
    return create_model("Recipe", __base__=RecipeBase, **sections)


def recipe_path(name: str) -> Path:
    """Of a bundled recipe, or the file `name`."""
    return FOLDER / f"{name}.yaml" if name in BUNDLED else Path(name)


def load(name: str, method: Method) -> RecipeBase:
    """The recipe `name`. Raises ConfigError naming file, line, column and key; MissingExtra without TRL."""
    path = recipe_path(name)
    try:
        recipe = load_recipe(path, schema(method))
    except ConfigError as error:
        raise ConfigError([_explained(problem, method) for problem in error.problems]) from error
    return recipe


def trainer_arguments(recipe: RecipeBase, method: Method, name: str, **ours: Any) -> Any:
    """TRL's config. `ours`: what is not the recipe's to say. Raises ConfigError with TRL's reason for values that do not go together."""
    cls = config_class(method)
    try:
        return cls(**{"use_cpu": on_cpu(recipe, method), **given(getattr(recipe, method)), **ours})
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:400]
        raise ConfigError([f"{recipe_path(name)}: {method}: {reason}"]) from error


def on_cpu(recipe: RecipeBase, method: Method) -> bool:
    """What the recipe says of `use_cpu`, else whether there is nothing but a CPU: unless TRL is told, it refuses bf16 there."""
    said: bool | None = getattr(getattr(recipe, method), "use_cpu", None)
    return not need("torch", extra="train").accelerator.is_available() if said is None else said


def _explained(problem: str, method: Method) -> str:
    """The line for an unknown argument of a trainer, without the two hundred that are allowed; and what is ours is no typing error."""
    head, unknown, tail = problem.partition("unknown key; ")
    place = head.rpartition(" ")[0] if head.endswith(" ") else head
    name = place.rpartition(".")[2].rstrip(":")
    if not unknown or f" {method}." not in head:
        return problem
    if name in OURS:
        return f"{head}it is set by the command, or by another key of the recipe"
    return f"{head}{unknown}{tail.partition('allowed: ')[0]}allowed: the arguments of TRL's {config_class(method).__name__}"
