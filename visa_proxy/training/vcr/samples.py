"""Annotated pairs as triplets (source, target vector, rewritten), and the two filters before that (paper, App. C.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from visa_proxy.training.labelled import Part, part_of
from visa_proxy.training.vcr.annotator import Annotation
from visa_proxy.training.vcr.rows import Pair
from visa_proxy.values import ValueVector

ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class AnnotatedPair:
    """A pair and what its two answers express."""

    pair: Pair
    annotation: Annotation

    @property
    def shift(self) -> float:
        """|Δv|, the L2 distance between the two vectors."""
        return self.annotation.chosen.l2(self.annotation.rejected)


@dataclass(frozen=True)
class Filtered:
    """What the filters leave. Every pair makes two samples."""

    kept: list[AnnotatedPair]
    """In the order they came in."""
    ambiguous: int
    """Pairs discarded because annotators do not agree on their chosen answer."""
    alike: int
    """Pairs discarded after that, because their answers hardly differ."""


@dataclass(frozen=True)
class Sample:
    """Rewrite `source` so that it expresses `target`: `rewritten` is a person's idea of that."""

    id: str
    kind: Literal["positive", "negative"]
    """positive: from the rejected answer to the chosen one; negative: the other way."""
    prompt: str
    source: str
    target: ValueVector
    rewritten: str
    delta: NDArray[np.float64]
    """Δv = target - vector of the source: (dimensions,), each -2 … 2."""

    @property
    def part(self) -> Part:
        """Everything with the same prompt is in the same part."""
        return part_of(self.prompt)

    def to_dict(self) -> dict[str, Any]:
        """As it is written."""
        delta = {name: round(float(shift), 4) for name, shift in zip(self.target.space.names, self.delta, strict=True)}
        return {
            "id": self.id,
            "kind": self.kind,
            "prompt": self.prompt,
            "source": self.source,
            "target": self.target.to_dict(),
            "rewritten": self.rewritten,
            "delta": delta,
        }


def ambiguities(pairs: Sequence[AnnotatedPair]) -> list[float]:
    """For each pair, how much the annotations of its chosen answer differ between the pairs that it is in: the anchor's ambiguity.

    The variance (over pairs) of its vector, as the mean over dimensions; 0 for an answer that is chosen once. Range 0 … 1. An answer is one
    text to one prompt.
    """
    anchors: dict[tuple[str, str], list[NDArray[np.float64]]] = defaultdict(list)
    for each in pairs:
        anchors[each.pair.prompt, each.pair.chosen].append(each.annotation.chosen.array)
    # Rounded, so that equal sets of vectors tie in whatever order they come.
    found = {anchor: round(float(np.var(np.stack(vectors), axis=0).mean()), 12) for anchor, vectors in anchors.items()}
    return [found[each.pair.prompt, each.pair.chosen] for each in pairs]


def filtered(pairs: Sequence[AnnotatedPair], drop_ambiguous: float, min_shift: float) -> Filtered:
    """Without the `drop_ambiguous` share (0 … 1, rounded down) of `pairs` with the highest ambiguity, then without |Δv| < `min_shift`.

    Equally ambiguous pairs go in the order of their digests. A pair of ambiguity 0 is not ambiguous and stays, so less than that share may
    go.
    """
    scores = ambiguities(pairs)
    order = sorted((i for i, score in enumerate(scores) if score > 0), key=lambda i: (-scores[i], pairs[i].pair.digest))
    dropped = set(order[: int(drop_ambiguous * len(pairs) + ROUNDING)])
    clear = [each for i, each in enumerate(pairs) if i not in dropped]
    kept = [each for each in clear if each.shift >= min_shift - ROUNDING]
    return Filtered(kept, len(dropped), len(clear) - len(kept))


def samples_of(each: AnnotatedPair) -> tuple[Sample, Sample]:
    """The positive and the negative one."""
    pair, chosen, rejected = each.pair, each.annotation.chosen, each.annotation.rejected
    delta = chosen.array - rejected.array
    return (
        Sample(f"{pair.id}/positive", "positive", pair.prompt, pair.rejected, chosen, pair.chosen, delta),
        Sample(f"{pair.id}/negative", "negative", pair.prompt, pair.chosen, rejected, pair.rejected, 0.0 - delta),
    )
