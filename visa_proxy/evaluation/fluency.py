"""Fluency: how surprised a causal language model is that was trained on none of the rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from visa_proxy.evaluation.causal import load_causal

MAX_TOKENS: Final = 1024
"""The rest of a longer text is not read."""


class Fluency:
    """A folder as transformers saves it."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError when there is no causal model in it, MissingExtra without transformers."""
        self._causal = load_causal(folder, "--fluency")
        bos = self._causal.tokenizer.bos_token_id
        self._start = bos if bos is not None else self._causal.tokenizer.eos_token_id

    def surprise(self, text: str) -> tuple[float, int]:
        """Negative log-likelihood of `text` in nats, and the tokens it is the sum of."""
        torch = self._causal.torch
        tokens = self._causal.tokenizer(text, add_special_tokens=False)["input_ids"][:MAX_TOKENS]
        given = tokens if self._start is None else [self._start, *tokens]
        if len(given) < 2:
            return 0.0, 0
        ids = torch.tensor([given], device=self._causal.device)
        with torch.inference_mode():
            scores = self._causal.model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        found = scores.gather(1, ids[0, 1:, None])
        return -float(found.sum()), len(given) - 1
