"""A model in this process: whoever asks at the same time is answered in one batch, greedily."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visa_proxy.errors import ConfigError, RewriterError
from visa_proxy.evaluation.causal import Causal, load_causal
from visa_proxy.rewriter.base import RewriteRequest, Rewrites
from visa_proxy.rewriter.chat import REACH, budget, without_thoughts
from visa_proxy.rewriter.prompt import Message, Style, render

BATCH: Final = 32
"""Prompts at a time."""
FAILURES: Final = (RuntimeError, ValueError, TypeError, IndexError)
"""What computing may end in, out of memory among them: those who asked are to hear of it."""
PLACEHOLDER: Final = "⟦1⟧"


@dataclass(frozen=True)
class _Asked:
    tokens: list[int]
    most: int
    """Tokens of the answer."""
    answer: asyncio.Future[list[int] | None]
    """None: it did not come to an end."""


class LocalModel:
    """Safe to call concurrently; `close` when done."""

    def __init__(self, causal: Causal) -> None:
        self._causal = causal
        self._window = int(getattr(causal.model.config, "max_position_embeddings", 0) or 1 << 20)
        given = causal.model.generation_config.eos_token_id or causal.tokenizer.eos_token_id
        self._ends = set(given if isinstance(given, list) else [given])
        pad = causal.tokenizer.pad_token_id
        self._pad = min(self._ends) if pad is None else pad
        # Nothing is left of the model's own settings: they may sample, or look tokens up in a way that takes no batch.
        self._settings = type(causal.model.generation_config)
        causal.model.generation_config = self._settings()
        self._waiting: list[_Asked] = []
        self._working: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, folder: Path, place: str) -> LocalModel:
        """Takes seconds. Raises what `load_causal` raises, and ConfigError for a model that cannot be talked to."""
        causal = await asyncio.to_thread(load_causal, folder, place)
        if not causal.tokenizer.chat_template:
            raise ConfigError(
                [f"{place}: found a tokenizer without a chat template in {folder}, allowed: an instruction-tuned model"]
            )
        return cls(causal)

    @property
    def style(self) -> Style:
        """compact for a model whose vocabulary was made for it, with placeholders as tokens; full for any other."""
        number = self._causal.tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        return "full" if number is None or number == self._causal.tokenizer.unk_token_id else "compact"

    async def ask(self, messages: list[Message], most: int, *, timeout_s: float) -> str:
        """The greedy answer of at most `most` tokens, without its thoughts. Raises RewriterError when there is none."""
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._asked(messages, most)
        except TimeoutError:
            raise RewriterError("timeout", f"the model did not answer within {timeout_s:.1f} s") from None
        if found is None:
            raise RewriterError("endless", "the model did not come to an end")
        text = without_thoughts(self._causal.tokenizer.decode(found, skip_special_tokens=True))
        if not text:
            raise RewriterError("empty", "the model's answer is empty")
        return text

    async def close(self) -> None:
        """Waits for a batch under way, whose answers nobody wants any more."""
        if self._working is not None:
            self._waiting.clear()
            await asyncio.wait([self._working])

    async def _asked(self, messages: list[Message], most: int) -> list[int] | None:
        tokens = await asyncio.to_thread(self._encoded, messages)
        if (room := self._window - len(tokens)) < 1:
            raise RewriterError("too-long", "the prompt is longer than the model's window")
        asked = _Asked(tokens, min(most, room), asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await asked.answer

    def _encoded(self, messages: list[Message]) -> list[int]:
        # Models that think when nobody forbids it are told not to; templates that know no such word ignore it.
        prompt = self._causal.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, enable_thinking=False
        )
        tokens: list[int] = self._causal.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return tokens

    async def _work(self) -> None:
        while waiting := [asked for asked in self._waiting if not asked.answer.done()]:  # without those who have given up
            batch, self._waiting = waiting[:BATCH], waiting[BATCH:]
            try:
                answers = await asyncio.to_thread(self._generated, batch)
            except FAILURES as error:
                failure = RewriterError("error", f"the model failed: {type(error).__name__}")
                for asked in batch:
                    if not asked.answer.done():
                        asked.answer.set_exception(failure)
                continue
            for asked, answer in zip(batch, answers, strict=True):
                if not asked.answer.done():
                    asked.answer.set_result(answer)

    def _generated(self, batch: list[_Asked]) -> list[list[int] | None]:
        """Up to the end mark of each row; None for a row that has none within what it may take."""
        torch, model = self._causal.torch, self._causal.model
        width = max(len(asked.tokens) for asked in batch)
        ids = torch.full((len(batch), width), self._pad)
        mask = torch.zeros_like(ids)
        for row, asked in enumerate(batch):
            ids[row, width - len(asked.tokens) :] = torch.tensor(asked.tokens)
            mask[row, width - len(asked.tokens) :] = 1
        most = min(max(asked.most for asked in batch), self._window - width)
        greedy = self._settings(max_new_tokens=most, do_sample=False, eos_token_id=sorted(self._ends), pad_token_id=self._pad)
        with torch.inference_mode():
            found = model.generate(ids.to(model.device), attention_mask=mask.to(model.device), generation_config=greedy)
        rows: list[list[int]] = found[:, width:].tolist()
        return [_until(self._ends, row[: asked.most]) for row, asked in zip(rows, batch, strict=True)]


def _until(ends: set[int], tokens: list[int]) -> list[int] | None:
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[:place]
    return None


class LocalRewriter:
    """A rewriter in this process; see `visa_proxy.rewriter.base.Rewriter`."""

    def __init__(self, model: LocalModel, name: str) -> None:
        self._model = model
        self.model = name
        self.reach = REACH[model.style]

    async def rewrite(self, request: RewriteRequest, *, timeout_s: float) -> Rewrites:
        """The greedy candidate, whatever `request` says of others."""
        style = self._model.style
        messages = render(style, query=request.query, text=request.text, target=request.target, context=request.context)
        text = await self._model.ask(messages, budget(request.text), timeout_s=timeout_s)
        return Rewrites((text,), 0, 0)
