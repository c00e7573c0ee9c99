"""The small rewriter's tokenizer: byte-level BPE, placeholders ⟦0⟧ … ⟦63⟧ as single tokens, chat template."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from visa_proxy.optional import need

PAD: Final = "<|pad|>"
END: Final = "<|end|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
PLACEHOLDERS: Final = 64
MAX_LENGTH: Final = 1024
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set content = message['content'] %}"
    "{% else %}{% set content = message['content'] | map(attribute='text') | join('') %}{% endif %}"
    "{{ ('<|assistant|>' if message['role'] == 'assistant' else '<|user|>') + '\\n' + content + '<|end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Any:
    """A `PreTrainedTokenizerFast` of exactly `vocab_size` entries at most, placeholders and chat tokens included."""
    tokenizers = need("tokenizers", extra="train")
    transformers = need("transformers", extra="train")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - PLACEHOLDERS,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_tokens([tokenizers.AddedToken(f"⟦{n}⟧", normalized=False, special=False) for n in range(PLACEHOLDERS)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def prompt_text(content: str) -> str:
    """What `CHAT_TEMPLATE` makes of one user message and the generation prompt; a test holds the two together."""
    return f"{USER}\n{content}{END}\n{ASSISTANT}\n"
