"""A causal language model from a folder as transformers saves it: weights as safetensors, no code of the folder's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need


@dataclass(frozen=True)
class Causal:
    """Model and tokenizer, ready to compute."""

    torch: Any
    tokenizer: Any
    model: Any
    device: str


def check_folder(folder: Path, place: str) -> None:
    """Raises ConfigError, naming `place`, for a folder that cannot hold a model; loads nothing."""
    if not folder.is_dir():
        raise ConfigError([f"{place}: there is no folder {folder}"])
    for what, pattern in (("config", "*config.json"), ("weights", "*.safetensors"), ("tokenizer", "tokenizer*")):
        if not any(folder.glob(pattern)):
            raise ConfigError(
                [f"{place}: found no {what} in {folder}, allowed: a folder with {pattern}, as transformers saves it"]
            )


def load_causal(folder: Path, place: str) -> Causal:
    """On the GPU where there is one, in the weights' own precision; else in single precision, in which padding changes no greedy choice.

    Raises ConfigError, naming `place`, when there is no causal model in `folder`; MissingExtra without transformers.
    """
    torch = need("torch", extra="local")
    transformers = need("transformers", extra="local")
    check_folder(folder, place)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        found = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype
        )
        model = found.to(device).eval()
    except Exception as error:  # transformers raises what the file, the config or the weights made it raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError([f"{place}: no causal language model in {folder}: {said}"]) from error
    return Causal(torch, tokenizer, model, device)
