"""A candidate is good when nothing was lost, nothing was added, and the values moved towards the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from visa_proxy.detector.base import Detector, Reading
from visa_proxy.facts.base import FactAnalyzer
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.shield.preserve import Protected
from visa_proxy.values import Space, ValueVector

NOISE: Final = 0.05
"""A measured level below this, a tenth of the smallest that is ever labelled, is no level."""


@dataclass(frozen=True)
class Verdict:
    """One candidate, judged."""

    refused: str | None
    """None: verified. Else placeholders | unchanged | stop | values | facts."""
    text: str = ""
    after: ValueVector | None = None
    similarity: float = -1.0
    consistency: float | None = None


class Verifier:
    """The cheap checks come first; the first that fails decides."""

    def __init__(self, detector: Detector, facts: FactAnalyzer) -> None:
        self._detector = detector
        self._facts = facts

    async def judge(
        self,
        candidate: str,
        *,
        query: str,
        original: str,
        protected: Protected,
        before: ValueVector,
        target: ValueVector,
        settings: Settings,
        stops: Sequence[str] = (),
    ) -> Verdict:
        """`candidate` still holds its placeholders; a verified verdict's `text` has the spans back in place.

        `before` and `target` are of one space, and so is what the verdict says of the values afterwards.
        """
        if not protected.intact(candidate):
            return Verdict("placeholders")
        text = _like(original, protected.restore(candidate))
        if text.split() == original.split():
            return Verdict("unchanged")
        # The client asked never to see these; the base kept to it, so has the rewrite.
        if any(stop in text and stop not in original for stop in stops):
            return Verdict("stop")
        after = measured(await self._detector.detect(query, text), target.space)
        similarity = after.cosine(target)
        gain = similarity - before.cosine(target)
        if gain <= 0 or gain < settings.min_gain:
            return Verdict("values", text, after, similarity)
        report = await self._facts.compare(original, text)
        # What the deterministic checks find refuses a rewrite whatever the policy's threshold.
        changed = bool(report.lost or report.gained)
        refused = "facts" if changed or report.consistency < settings.min_consistency else None
        return Verdict(refused, text, after, similarity, report.consistency)


def measured(reading: Reading, space: Space) -> ValueVector:
    """What a text expresses in `space`, without the noise."""
    return reading.values.within(space).cleared(NOISE)


def _like(original: str, text: str) -> str:
    """`text` with the outer white space of `original`."""
    body = text.strip()
    lead = original[: len(original) - len(original.lstrip())]
    return lead + body + original[len(original.rstrip()) :]
