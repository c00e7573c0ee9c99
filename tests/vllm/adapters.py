"""LoRA adapters for a parrot: one that was about to say one thing says another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.vllm.parrot import opening

LAYER: Final = 1
PART: Final = f"model.layers.{LAYER}.mlp.down_proj"


def write_adapter(folder: Path, parrot: Path, *, instead_of: int, says: int, prompts: Sequence[str]) -> None:
    """An adapter of rank 1 as PEFT writes it: saying number `says` where the parrot would begin number `instead_of`.

    `prompts`: conversations that end with the opening of `instead_of`, to learn from what the model makes of it.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(parrot)
    model = AutoModelForCausalLM.from_pretrained(parrot, dtype=torch.float32).eval()
    features = _features(model, tokenizer, prompts)
    is_opening = torch.tensor([token == opening(instead_of) for token, _ in features], dtype=torch.float32)
    seen = torch.stack([feature for _, feature in features])
    # The direction in which openings of that saying answer 1 and all else 0 (least squares, a little ridge).
    direction = torch.linalg.solve(seen.T @ seen + 1e-4 * torch.eye(seen.shape[1]), seen.T @ is_opening)
    embedding = model.get_input_embeddings().weight.detach()
    old, new = (embedding[tokenizer.convert_tokens_to_ids(opening(i))] for i in (instead_of, says))
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(parrot),
        "r": 1,
        "lora_alpha": 1,
        "target_modules": ["down_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    name = f"base_model.model.{PART}"
    weights = {f"{name}.lora_A.weight": direction[None, :], f"{name}.lora_B.weight": (2 * (new - old))[:, None]}
    save_file({key: value.contiguous() for key, value in weights.items()}, folder / "adapter_model.safetensors")


def _features(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[tuple[str, Any]]:
    """(token, what goes into PART there) of every place of the prompts, and of every token of the vocabulary alone."""
    import torch

    rows: list[Any] = []
    hook = model.get_submodule(PART).register_forward_pre_hook(lambda _, given: rows.append(given[0][0].detach()))
    alone = [[number] for number in range(len(tokenizer))]
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], return_dict=False, tokenize=True)
        for prompt in prompts
    ]
    with torch.no_grad():
        for ids in [*alone, *texts]:
            model(torch.tensor([ids]))
    hook.remove()
    tokens = [tokenizer.convert_ids_to_tokens(number) for ids in [*alone, *texts] for number in ids]
    return list(zip(tokens, torch.cat(rows), strict=True))
