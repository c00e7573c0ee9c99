"""The small part on top of the encoder: gated attention over token states, in plain numpy.

For a sentence with states h_t, embedding p, and two optional embeddings, q of the query and m of the answer (the mean of its
sentences'):

    u_t = silu(h_t A + p B + q C + m D + a)     one hidden layer, sees the token, its sentence, the query and the answer
    s_t = tanh(u_t S)                           one sign a token: negation and grading mean the same for every output
    w_t = exp(6 tanh(u_t G + g))                one weight a token and output
    z_t = u_t V + v + s_t (u_t P)
    y   = Σ_t w_t z_t / (1 + Σ_t w_t)           the 1 is a sink for the attention of a sentence without a signal

Heads trained from different seeds are stored together; their outputs are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.minilm import WIDTH, Encoded
from visa_proxy.errors import ConfigError
from visa_proxy.optional import need

FORMAT: Final = "visa-head-2"
SHARPNESS: Final = 6.0
WEIGHTS: Final = "head.safetensors"

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

Array = NDArray[np.float32]


class Head:
    """Encoded sentences to outputs. Immutable, safe in any thread."""

    def __init__(self, tensors: Mapping[str, Array], outputs: tuple[str, ...], metadata: Mapping[str, str] = NOTHING) -> None:
        """`tensors`: those of `shapes`; `metadata`: what else the file says. Raises ValueError where one is missing or has another shape."""
        token = tensors.get("token")
        if token is None or token.ndim != 3:
            raise ValueError("tensor 'token' is missing or not (seeds, width, hidden)")
        self._seeds, _, self._hidden = token.shape
        for name, shape in shapes(self._seeds, self._hidden, len(outputs)).items():
            found = tensors[name].shape if name in tensors else None
            if found != shape:
                raise ValueError(f"tensor {name!r} has shape {found}, expected {shape}")
            if tensors[name].dtype.kind != "f" or not np.isfinite(tensors[name]).all():
                raise ValueError(f"tensor {name!r} has values that are no finite fractions (type {tensors[name].dtype})")
        self.outputs = outputs
        self.metadata = metadata
        # One matrix product for all seeds: (width, seeds * hidden).
        self._token, self._sentence, self._query, self._context = (
            np.ascontiguousarray(tensors[name].astype(np.float32).transpose(1, 0, 2).reshape(WIDTH, -1))
            for name in ("token", "sentence", "query", "context")
        )
        self._bias = tensors["bias"].astype(np.float32).reshape(-1)
        self._gate, self._value, self._signed, self._sign = (
            tensors[name].astype(np.float32) for name in ("gate", "value", "signed", "sign")
        )
        self._gate_bias, self._value_bias = (tensors[name].astype(np.float32)[:, None, :] for name in ("gate_bias", "value_bias"))

    def __call__(self, sentences: Sequence[Encoded], query: Array | None = None, context: Array | None = None) -> Array:
        """(sentences, outputs) in float32; `query`, `context`: embeddings, (384,)."""
        lengths = [len(sentence.tokens) for sentence in sentences]
        starts = np.cumsum([0, *lengths[:-1]])
        constant = np.stack([sentence.pooled for sentence in sentences]) @ self._sentence + self._bias
        if query is not None:
            constant = constant + query @ self._query
        if context is not None:
            constant = constant + context @ self._context
        states = np.concatenate([sentence.tokens for sentence in sentences])
        hidden: NDArray[np.floating] = states @ self._token + np.repeat(constant, lengths, axis=0)
        hidden = hidden / (1.0 + np.exp(-np.clip(hidden, -30.0, 30.0)))
        by_seed = hidden.reshape(len(hidden), self._seeds, self._hidden).transpose(1, 0, 2)
        weight = np.exp(SHARPNESS * np.tanh(by_seed @ self._gate + self._gate_bias))
        value = by_seed @ self._value + self._value_bias
        value += np.tanh(by_seed @ self._sign) * (by_seed @ self._signed)
        pooled = np.add.reduceat(weight * value, starts, axis=1) / (1.0 + np.add.reduceat(weight, starts, axis=1))
        result: Array = pooled.mean(0).astype(np.float32)
        return result


def shapes(seeds: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a weights file."""
    return {
        "token": (seeds, WIDTH, hidden),
        "sentence": (seeds, WIDTH, hidden),
        "query": (seeds, WIDTH, hidden),
        "context": (seeds, WIDTH, hidden),
        "bias": (seeds, hidden),
        "gate": (seeds, hidden, outputs),
        "gate_bias": (seeds, outputs),
        "value": (seeds, hidden, outputs),
        "value_bias": (seeds, outputs),
        "sign": (seeds, hidden, 1),
        "signed": (seeds, hidden, outputs),
    }


def load_head(path: Path, outputs: tuple[str, ...]) -> Head:
    """The head in `path`, a safetensors file or a directory with `head.safetensors`.

    Raises ConfigError naming the file when it is missing, garbled, of another format, or made for other outputs.
    """
    file = path / WEIGHTS if path.is_dir() else path
    safetensors = need("safetensors", extra="local")
    try:
        with safetensors.safe_open(str(file), framework="numpy") as source:
            metadata: dict[str, Any] = source.metadata() or {}
            tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError(f"format is {metadata.get('format')!r}, expected {FORMAT!r}")
        if metadata.get("outputs") != ",".join(outputs):
            raise ValueError(f"made for outputs {metadata.get('outputs')!r}, expected {','.join(outputs)!r}")
        return Head(tensors, outputs, MappingProxyType(metadata))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ConfigError([f"{file}: cannot load head weights: {error}"]) from error
