"""What a stage begins with: a folder, a model of the hub, the bundled rewriter, or a small model with new weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need
from visa_proxy.rewriter.chat import BUNDLED_MODEL
from visa_proxy.training import jsonl

SIZES: Final[dict[str, dict[str, int]]] = {
    "2m": {
        "hidden_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 448,
    },
    "6m": {
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 1152,
    },
    "15m": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "intermediate_size": 1344,
    },
}
"""Qwen3 shapes of about so many million parameters, with the bundled rewriter's vocabulary."""
SCRATCH: Final = "scratch-"
_HUB: Final = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


@dataclass(frozen=True)
class Start:
    """Where weights and tokenizer are."""

    model: str
    """A folder, or a name of the hub."""
    base: str = ""
    """Where the folder holds a LoRA adapter, which is trained on: the model that it is for."""

    @property
    def adapter(self) -> bool:
        return bool(self.base)

    @property
    def tokenizer(self) -> str:
        return self.base or self.model


def start(name: str, run: Path, seed: int) -> Start:
    """`name`: bundled, scratch-2m, scratch-6m, scratch-15m (new weights, written below `run`), a folder, or a name of the hub.

    Raises ConfigError for a folder without a model, and for an adapter that names no base.
    """
    if name == "bundled":
        return Start(str(BUNDLED_MODEL))
    if name.startswith(SCRATCH):
        return Start(str(_new(name.removeprefix(SCRATCH), run / "initial", seed)))
    folder = Path(name)
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            return Start(str(folder), _base(folder / "adapter_config.json"))
        if not (folder / "config.json").is_file():
            raise ConfigError([f"--model {name}: neither config.json nor adapter_config.json in this folder: it holds no model"])
        return Start(str(folder))
    if _HUB.fullmatch(name) and not name.startswith("."):
        return Start(name)
    sizes = ", ".join(SCRATCH + size for size in SIZES)
    raise ConfigError([f"--model {name}: no such folder; allowed: a folder, owner/name of the hub, bundled, {sizes}"])


def _base(file: Path) -> str:
    data = jsonl.row(str(file), jsonl.parse(file, jsonl.text(file)))
    if not (name := data.text("base_model_name_or_path").strip()):
        raise data.wrong("base_model_name_or_path", name, "a folder, or owner/name of the hub")
    return name


def _new(size: str, folder: Path, seed: int) -> Path:
    if size not in SIZES:
        raise ConfigError([f"--model {SCRATCH}{size}: allowed sizes: {', '.join(SIZES)}"])
    if (folder / "model.safetensors").is_file():
        return folder
    torch, transformers = need("torch", extra="train"), need("transformers", extra="train")
    tokenizer = transformers.AutoTokenizer.from_pretrained(BUNDLED_MODEL)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    torch.manual_seed(seed)
    shape = {**SIZES[size], "head_dim": 64, "max_position_embeddings": 1024, "tie_word_embeddings": True}
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(vocab_size=len(tokenizer), **ids, **shape))
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    model.save_pretrained(folder)
    return folder


def tokenizer_of(begin: Start) -> Any:
    """With padding on the left, as sampling needs it. Raises ConfigError when there is none, or none with a chat template."""
    transformers = need("transformers", extra="train")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(begin.tokenizer, padding_side="left")
    except (OSError, ValueError) as error:
        raise ConfigError(
            [f"--model {begin.tokenizer}: no tokenizer can be loaded: {str(error).splitlines()[0][:200]}"]
        ) from error
    if not tokenizer.chat_template:
        raise ConfigError([f"--model {begin.model}: its tokenizer has no chat template; an instruction-tuned model is needed"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Ways to take a reply apart are for servers; what is graded is all that the model wrote.
    for attribute in ("response_template", "response_schema"):
        if getattr(tokenizer, attribute, None) is not None:
            setattr(tokenizer, attribute, None)
    return tokenizer


def model_of(begin: Start, options: dict[str, Any] | None) -> Any:
    """The model, ready to be trained; `options` of from_pretrained, float32 unless they say otherwise. Raises ConfigError."""
    torch, transformers = need("torch", extra="train"), need("transformers", extra="train")
    asked = {"dtype": torch.float32, **(options or {})}
    try:
        if begin.adapter:
            peft = need("peft", extra="train")
            model = peft.AutoPeftModelForCausalLM.from_pretrained(begin.model, is_trainable=True, **asked)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(begin.model, **asked)
    except (OSError, ValueError) as error:
        raise ConfigError([f"--model {begin.model}: cannot be loaded: {str(error).splitlines()[0][:200]}"]) from error
    # A served model's own settings, such as speculation, are not those of sampling in batches.
    kept = {key: getattr(model.generation_config, key) for key in ("eos_token_id", "pad_token_id", "bos_token_id")}
    model.generation_config = transformers.GenerationConfig(**kept)
    return model
