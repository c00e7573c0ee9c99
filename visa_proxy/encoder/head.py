"""The small trained part on top of the frozen encoder: gated attention over token states, in plain numpy.

For a sentence with states h_t, embedding p and an optional second embedding q (the query's):

    u_t = silu(h_t A + p B + q C + a)           one hidden layer, sees the token, its sentence, and the query
    s_t = tanh(u_t S)                           one sign a token: negation and grading mean the same for every output
    w_t = exp(6 tanh(u_t G + g))                one weight a token and output
    z_t = u_t V + v + s_t (u_t P)
    y   = Σ_t w_t z_t / (1 + Σ_t w_t)           the 1 is a sink for the attention of a sentence without a signal

Several heads trained from different seeds are stored together; their outputs are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.minilm import WIDTH, Encoded
from visa_proxy.errors import ConfigError
from visa_proxy.optional import need

FORMAT: Final = "visa-head-1"
SHARPNESS: Final = 6.0
WEIGHTS: Final = "head.safetensors"

Array = NDArray[np.float32]


class Head:
    """Encoded sentence to outputs. Immutable, safe in any thread."""

    def __init__(self, tensors: Mapping[str, Array], outputs: tuple[str, ...]) -> None:
        """`tensors`: those of `shapes`. Raises ValueError where one is missing or has another shape."""
        token = tensors.get("token")
        if token is None or token.ndim != 3:
            raise ValueError("tensor 'token' is missing or not (seeds, width, hidden)")
        self._seeds, _, self._hidden = token.shape
        for name, shape in shapes(self._seeds, self._hidden, len(outputs)).items():
            found = tensors[name].shape if name in tensors else None
            if found != shape:
                raise ValueError(f"tensor {name!r} has shape {found}, expected {shape}")
            if not np.isfinite(tensors[name]).all():
                raise ValueError(f"tensor {name!r} has values that are not finite")
        self.outputs = outputs
        # One matrix product for all seeds: (width, seeds * hidden).
        self._token, self._sentence, self._query = (
            np.ascontiguousarray(tensors[name].astype(np.float32).transpose(1, 0, 2).reshape(WIDTH, -1))
            for name in ("token", "sentence", "query")
        )
        self._bias = tensors["bias"].astype(np.float32).reshape(-1)
        self._gate, self._value, self._signed, self._sign = (
            tensors[name].astype(np.float32) for name in ("gate", "value", "signed", "sign")
        )
        self._gate_bias, self._value_bias = (tensors[name].astype(np.float32)[:, None, :] for name in ("gate_bias", "value_bias"))

    def __call__(self, sentence: Encoded, query: Encoded | None = None) -> Array:
        """(outputs,) in float32."""
        constant = sentence.pooled @ self._sentence + self._bias
        if query is not None:
            constant = constant + query.pooled @ self._query
        hidden = sentence.tokens @ self._token + constant
        hidden = hidden / (1.0 + np.exp(-np.clip(hidden, -30.0, 30.0)))
        by_seed = hidden.reshape(len(hidden), self._seeds, self._hidden).transpose(1, 0, 2)
        weight = np.exp(SHARPNESS * np.tanh(by_seed @ self._gate + self._gate_bias))
        value = by_seed @ self._value + self._value_bias
        value += np.tanh(by_seed @ self._sign) * (by_seed @ self._signed)
        pooled = (weight * value).sum(1) / (1.0 + weight.sum(1))
        result: Array = pooled.mean(0).astype(np.float32)
        return result


def shapes(seeds: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a weights file."""
    return {
        "token": (seeds, WIDTH, hidden),
        "sentence": (seeds, WIDTH, hidden),
        "query": (seeds, WIDTH, hidden),
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
        return Head(tensors, outputs)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ConfigError([f"{file}: cannot load head weights: {error}"]) from error
