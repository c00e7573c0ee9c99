"""How good is a rewriter: teacher-forced figures while it trains, greedy rewrites when it is done."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from visa_proxy.encoder.sentences import split_sentences
from visa_proxy.rewriter.prompt import render
from visa_proxy.shield.preserve import protect
from visa_proxy.training.phrases import Phrase
from visa_proxy.training.sft import Batch, answer_logits, collate, encode
from visa_proxy.training.synthesis import Synthesizer
from visa_proxy.training.tokenizer import END, prompt_text
from visa_proxy.values import Space, ValueVector


@dataclass(frozen=True)
class Held:
    """Held-out pairs, ready for `measure`."""

    rewrites: list[Batch]
    copies: list[Batch]
    """One row each: the answer is the source."""


def held(synthesizer: Synthesizer, tokenizer: Any, *, count: int = 64, seed: int = 2**31) -> Held:
    """`count` pairs that change the text and `count` that copy it."""
    rng = random.Random(seed)
    changed: list[tuple[list[int], int]] = []
    copied: list[tuple[list[int], int]] = []
    while len(changed) < count or len(copied) < count:
        pair = synthesizer.pair(rng)
        (copied if pair.answer == pair.source else changed).append(encode(tokenizer, pair))
    changed = sorted(changed[:count], key=lambda row: len(row[0]))
    pad = tokenizer.pad_token_id
    return Held([collate(changed[i : i + 16], pad) for i in range(0, count, 16)], [collate([row], pad) for row in copied[:count]])


@torch.no_grad()
def measure(model: Any, data: Held) -> dict[str, float]:
    """loss: nats a token on rewrites; copy_exact: share of copies greedy decoding would write without any error.

    Greedy decoding reproduces an answer exactly when under teacher forcing every token of it is the most likely one.
    """
    model.eval()
    total, tokens = 0.0, 0
    for batch in data.rewrites:
        logits, labels = answer_logits(model, batch)
        total += float(torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum"))
        tokens += len(labels)
    copies = (answer_logits(model, batch) for batch in data.copies)
    exact = [bool((logits.argmax(-1) == labels).all()) for logits, labels in copies]
    return {"loss": total / tokens, "copy_exact": sum(exact) / len(exact)}


@dataclass(frozen=True)
class Figures:
    """Shares over greedy rewrites."""

    rewrites: int
    placeholders_intact: float
    sentences_kept: float
    """Source sentences that stand in the rewrite, leads, tails and reframes aside."""
    all_kept: float
    """Rewrites that lost no sentence."""
    wanted_present: float
    """Wanted (value, level) pairs of which a known phrase stands in the rewrite."""
    any_wanted: float
    unwanted_present: float
    """Rewrites with a known phrase nobody asked for."""

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def probe(
    model: Any,
    tokenizer: Any,
    space: Space,
    phrases: Sequence[Phrase],
    texts: Sequence[str],
    targets: Sequence[Mapping[str, float]],
) -> tuple[Figures, list[tuple[str, str, str]]]:
    """Greedy rewrites of every text for every target; also (control line + text, rewrite, verdict) of each."""
    rows: list[tuple[str, str, str]] = []
    sums = [0.0] * 6
    for text in texts:
        for target in targets:
            source = protect(text)
            message = render("compact", query="", text=source.text, target=ValueVector.of(space, target))[0]["content"]
            rewrite = generate(model, tokenizer, message)
            added = [p for p in phrases if p.text in rewrite and p.text not in source.text]
            said = {(p.value, p.level) for p in added if p.form != "reframe" or p.text + " " in rewrite}
            kept = [_body(s) in rewrite for s in split_sentences(source.text)]
            wanted = set(target.items())
            found = (
                source.intact(rewrite),
                sum(kept) / max(1, len(kept)),
                all(kept),
                len(said & wanted) / max(1, len(wanted)),
                bool(said & wanted),
                bool({name for name, _ in said} - {name for name, _ in wanted}),
            )
            sums = [total + float(value) for total, value in zip(sums, found, strict=True)]
            rows.append((message, rewrite, " ".join(f"{float(value):.2f}" for value in found)))
    count = max(1, len(rows))
    return Figures(len(rows), *(round(total / count, 3) for total in sums)), rows


def generate(model: Any, tokenizer: Any, content: str) -> str:
    """The greedy answer to one user message."""
    model.eval()
    ids = tokenizer(prompt_text(content), return_tensors="pt", add_special_tokens=False)["input_ids"]
    room = min(int(ids.shape[1] * 1.8) + 60, model.config.max_position_embeddings - ids.shape[1])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max(1, room),
        do_sample=False,
        prompt_lookup_num_tokens=16,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.pad_token_id,
    )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def _body(sentence: str) -> str:
    """What of a sentence no rewrite may change: without its first two words, which a reframe replaces, and its end."""
    words = sentence.rstrip(".!?").split(" ")
    return " ".join(words[2:] if len(words) > 3 else words)
