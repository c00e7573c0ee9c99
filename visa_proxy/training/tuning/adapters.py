"""LoRA: a tenant's rewriter as a small adapter on a model that other tenants share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need
from visa_proxy.training.tuning.recipe import Lora

FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
"""What vLLM loads: `--lora-modules name=folder`, or at run time."""


def config(lora: Lora) -> Any:
    """PEFT's config. Raises MissingExtra without PEFT."""
    peft = need("peft", extra="train")
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )


def export(trained: Path, out: Path) -> None:
    """The adapter in `trained`, to `out`. Raises ConfigError when there is none."""
    missing = [name for name in FILES if not (trained / name).is_file()]
    if missing:
        raise ConfigError([f"{trained}: {', '.join(missing)} missing: the trained adapter was not saved"])
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(trained / name, out / name)
