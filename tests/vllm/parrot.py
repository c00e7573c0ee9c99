"""A model that says given sentences: Qwen3-shaped, random weights, but an embedding and a head that spell the sentences out.

Real enough for a real engine (attention, cache, tokenizer, chat template, end token), and its answers are known beforehand on
every CPU: the head scores each token's successor far above all others, so neither rounding nor sampling changes a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

MAX_LENGTH: Final = 8192
"""Tokens; a prompt has one per byte."""

_END: Final = "<|end|>"
_PIECE: Final = 7
_WIDTH: Final = 128
_SEED: Final = 7


@dataclass(frozen=True)
class Saying:
    """What is said when `cue` occurs in the conversation. The first saying whose cue does is taken; an empty cue always does."""

    cue: str
    text: str
    endless: bool = False
    """Start again instead of ending."""


def write_parrot(folder: Path, sayings: Sequence[Saying]) -> None:
    """A model directory as `transformers` and vLLM load it."""
    chains = _chains(sayings)
    tokenizer = _tokenizer(chains, _template(sayings))
    ids = tokenizer.get_vocab()
    model = _model(len(ids), tokenizer.eos_token_id)
    _spell(model, ((ids[a], ids[b]) for chain in chains for a, b in pairwise(chain)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def opening(i: int) -> str:
    """The token that begins saying number `i`."""
    return f"<|say-{i}|>"


def _chains(sayings: Sequence[Saying]) -> list[list[str]]:
    """Per saying the tokens from its opening to the end. A token has one successor, so no piece occurs twice."""
    from tokenizers.pre_tokenizers import ByteLevel

    spelling = ByteLevel(add_prefix_space=False, use_regex=False)
    used: set[str] = set()
    chains = []
    for i, saying in enumerate(sayings):
        pieces = [spelling.pre_tokenize_str(piece)[0][0] for piece in _cut(saying.text, used)]
        chains.append([opening(i), *pieces, pieces[0] if saying.endless else _END])
    return chains


def _cut(text: str, used: set[str]) -> list[str]:
    """`text` in pieces of seven characters, or as many more as it takes to be unlike all in `used`, where they are added."""
    pieces = []
    while text:
        size = _PIECE
        while text[:size] in used or len(text) - size < _PIECE:
            size += 1
            if size >= len(text):
                break
        assert text[:size] not in used, f"{text!r} ends like another saying: change a word"
        used.add(text[:size])
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def _template(sayings: Sequence[Saying]) -> str:
    """The conversation as plain lines, then the opening of the saying that fits it."""
    lines = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    said = "{% set said = messages | map(attribute='content') | join('\n') %}"
    cases = "".join(f"{{% elif {saying.cue!r} in said %}}{opening(i)}" for i, saying in enumerate(sayings))
    return f"{said}{lines}{cases.replace('{% elif', '{% if', 1)}{{% endif %}}"


def _tokenizer(chains: Iterable[Sequence[str]], template: str) -> Any:
    """One token per byte for whatever is read, and the chains' own tokens for what is said."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    pieces = [piece for chain in chains for piece in chain[1:-1]]
    openings = [chain[0] for chain in chains]
    vocabulary = dict.fromkeys([*sorted(ByteLevel.alphabet()), *pieces])
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_END, extra_special_tokens=openings)
    fast.chat_template = template
    return fast


def _model(vocabulary: int, end: int) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(_SEED)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        eos_token_id=end,
        pad_token_id=end,
    )
    return Qwen3ForCausalLM(config).eval()


def _spell(model: Any, successions: Iterable[tuple[int, int]]) -> None:
    """Random signs as embeddings: nearly orthogonal, and the head finds the successor of the one it sees."""
    import torch

    with torch.no_grad():
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embedding.copy_(torch.randint(0, 2, embedding.shape) * 2.0 - 1.0)
        head.zero_()
        for token, successor in successions:
            head[successor] += embedding[token]
