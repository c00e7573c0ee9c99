"""Rewrites in batches, greedy or sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from visa_proxy.optional import need


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    limit: int,
    batch: int,
    template: dict[str, Any],
    temperature: float = 0.0,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """A text for each of `prompts` (lists of messages), in order, of at most `limit` tokens; greedy at temperature 0.

    Prompts of similar length are sampled together. `advance` is told how many are done.
    """
    torch = need("torch", extra="train")
    ids = tokenizer.apply_chat_template(list(prompts), add_generation_prompt=True, tokenize=True, return_dict=True, **template)[
        "input_ids"
    ]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    texts = [""] * len(ids)
    how: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    how["pad_token_id"] = tokenizer.pad_token_id
    how["eos_token_id"] = model.generation_config.eos_token_id or tokenizer.eos_token_id
    training = model.training
    model.eval()
    # Whoever trains goes on with the random numbers that were before.
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            inputs = tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, padding_side="left", return_tensors="pt").to(
                model.device
            )
            width = inputs["input_ids"].shape[1]
            # A rewrite is about as long as its source: one that is not has lost its way, and would hold up the batch.
            out = model.generate(**inputs, max_new_tokens=min(limit, 2 * width + 64), **how)
            written = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
            for i, text in zip(chosen, written, strict=True):
                texts[i] = text.strip()
            advance(len(chosen))
    model.train(training)
    return texts
