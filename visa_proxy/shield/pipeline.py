"""preserve → rewrite → verify → the best, a retry, or the original, under one deadline (DESIGN: the flow)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from visa_proxy.detector.base import Detector
from visa_proxy.errors import InstrumentError, RewriteRefused, RewriterError
from visa_proxy.facts.base import FactAnalyzer
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.rewriter.base import NO_CONTEXT, SAMPLING, Context, Rewriter, RewriteRequest
from visa_proxy.shield.preserve import PLACEHOLDER, Protected, protect
from visa_proxy.shield.trace import Trace
from visa_proxy.shield.verify import Verdict, Verifier, measured
from visa_proxy.shield.windows import MAX_WHOLE, looks_like_json
from visa_proxy.translator.base import Translator
from visa_proxy.values import Space, Target, ValueVector

logger = logging.getLogger("visa_proxy.shield")

RETRY_TEMPERATURE: Final = 0.5
MIN_CONFIDENCE: Final = 0.5
"""An instruction understood with less certainty than this is not acted upon."""
MAX_QUERY: Final = 2_000
"""Characters of a question that are looked at: what it asks for stands at its beginning or not at all."""
_WORDS: Final = re.compile(r"[^\W\d_]{2}")
"""Two letters in a row: what has none beside its verbatim spans has nothing to say differently."""


@dataclass(frozen=True)
class Brief:
    """What is wanted of one answer; the same for all of its windows."""

    query: str
    target: Target | None
    """None: no offset but that of the instructions."""
    settings: Settings
    instructions: Sequence[str] = ()
    """Plain words, translated into offsets that are bounded, each by itself, and add up."""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Dimension to the least and the greatest offset of an instruction; `target` is not bounded."""
    model: str | None = None
    """Model or LoRA adapter of the rewriter; None: its own."""
    stops: Sequence[str] = ()
    """Stop sequences of the request: no rewrite may bring one in."""


@dataclass(frozen=True)
class Adaptation:
    """What the client gets, and why."""

    text: str
    trace: Trace


class Aim:
    """The target of one answer before anything is measured: translated once, by the first of its windows that asks."""

    def __init__(self, translator: Translator, space: Space, brief: Brief) -> None:
        """`space`: all that is measured."""
        self._translator = translator
        self._space = space
        self._brief = brief
        self._target = Target("offset", ValueVector.zero(space.covering(()))) if brief.target is None else brief.target
        self._settled = not brief.instructions
        self._lock = asyncio.Lock()
        self.confidence: float | None = None
        """The smallest of the translations; None without instructions."""

    async def settle(self, text: str, trace: Trace) -> Target:
        """The profile's target with the bounded offsets of the instructions added, in the smallest space that has the dimensions of both."""
        if not self._settled:
            async with self._lock:
                if not self._settled:
                    with trace.stage("translate"):
                        await self._translate(text)
        trace.instruction_confidence = self.confidence
        return self._target

    async def _translate(self, text: str) -> None:
        query = self._brief.query[:MAX_QUERY]
        found = [await self._translator.translate(query, text, instruction) for instruction in self._brief.instructions]
        for translation in found:
            if translation.confidence >= MIN_CONFIDENCE:
                self._target = Target(self._target.mode, self._added(translation.offset.bounded(self._brief.bounds)))
        self.confidence = min(translation.confidence for translation in found)
        self._settled = True

    def _added(self, offset: ValueVector) -> ValueVector:
        values = self._target.values
        asked = [name for name, level in zip(offset.space.names, offset.array, strict=True) if level]
        common = self._space.covering([*values.space.names, *asked])
        return values.widened(common).offset(ValueVector.of(common, {name: offset[name] for name in asked}))


class Shield:
    """The four components, composed. One instance serves all tenants; everything tenant-specific is in the brief."""

    def __init__(self, detector: Detector, translator: Translator, facts: FactAnalyzer, rewriter: Rewriter) -> None:
        self.detector = detector
        self.translator = translator
        self.facts = facts
        self.rewriter = rewriter
        self.verifier = Verifier(detector, facts)

    def aim(self, brief: Brief) -> Aim:
        """What the windows of one answer share."""
        return Aim(self.translator, self.detector.space, brief)

    async def adapt(
        self, brief: Brief, answer: str, *, aim: Aim | None = None, context: Context = NO_CONTEXT, hurried: bool = False
    ) -> Adaptation:
        """A verified rewrite of `answer`, or `answer` itself with the reason in the trace.

        `answer` is a whole answer, or a window of one; then `context` tells of what came before it. `hurried`: somebody is reading
        along, so the first candidate is taken when it is good. Whatever goes wrong inside becomes a `fallback:<why>`; only
        RewriteRefused leaves, and only under `on_failure: error`.
        """
        settings = brief.settings
        trace = Trace()
        job = _Job(self, brief, answer, trace, context, hurried=hurried)
        try:
            async with asyncio.timeout(settings.timeout_s):
                text = await job.run(aim or self.aim(brief))
        except TimeoutError:
            trace.status, text = "fallback:timeout", None
        except RewriterError as error:
            trace.status, text = f"fallback:rewriter-{error.reason}", None
        except InstrumentError as error:
            trace.status, text = f"fallback:{error.instrument}", None
        except Exception as error:  # the base's answer is at hand: no fault of ours may cost the client that answer
            # The message of a foreign exception may quote the text, so only its type is logged.
            logger.error("shield failed: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
            trace.status, text = "fallback:error", None
        if text is None and trace.outcome == "fallback" and settings.on_failure == "error":
            raise RewriteRefused(f"no verified rewrite: {trace.status.partition(':')[2]}")
        return Adaptation(answer if text is None else text, trace)


@dataclass(frozen=True)
class _Round:
    """Candidates asked for at once."""

    candidates: int
    temperature: float
    """Of the first; 0: greedy."""
    seed: int


def _rounds(settings: Settings, *, hurried: bool) -> list[_Round]:
    """All candidates and then the retries; `hurried`: the greedy one alone, then the others only when it was refused."""
    first = [_Round(settings.candidates, 0.0, 0)]
    if hurried and settings.candidates > 1:
        first = [_Round(1, 0.0, 0), _Round(settings.candidates - 1, SAMPLING, 1)]
    return first + [_Round(settings.candidates, RETRY_TEMPERATURE, retry) for retry in range(1, settings.retries + 1)]


class _Job:
    """One text on its way through the shield."""

    def __init__(self, shield: Shield, brief: Brief, answer: str, trace: Trace, context: Context, *, hurried: bool) -> None:
        self._shield = shield
        self._brief = brief
        self._query = brief.query[:MAX_QUERY]
        self._answer = answer
        self._settings = brief.settings
        self._trace = trace
        self._context = context
        self._rounds = _rounds(brief.settings, hurried=hurried)
        self._deadline = asyncio.get_running_loop().time() + brief.settings.timeout_s

    async def run(self, aim: Aim) -> str | None:
        """The rewrite, or None with the reason in the trace's status."""
        trace = self._trace
        trace.status = _untouchable(self._answer)
        if trace.status:
            return None
        target = await aim.settle(self._answer, trace)
        if target.mode == "offset" and not target.values.norm:
            trace.status = "skipped:unclear-instruction" if self._brief.instructions else "skipped:no-offset"
            return None
        with trace.stage("detect"):
            reading = await self._shield.detector.detect(self._query, self._answer)
            trace.before = measured(reading, target.values.space)
        trace.target = target.resolve(trace.before)
        if trace.before.cosine(trace.target) >= self._settings.skip_above:
            trace.status = "aligned"
            return None
        with trace.stage("preserve"):
            protected = protect(self._answer, self._settings.preserve, self._settings.glossary)
        trace.preserved = len(protected.spans)
        if not _WORDS.search(PLACEHOLDER.sub("", protected.text)):
            trace.status = "skipped:verbatim"
            return None
        return await self._best(protected, trace.before, trace.target)

    async def _best(self, protected: Protected, before: ValueVector, target: ValueVector) -> str | None:
        trace = self._trace
        for asked in self._rounds:
            try:
                verdicts = await self._attempt(protected, before, target, asked)
            except RewriterError as error:
                if asked is self._rounds[-1]:
                    raise
                trace.refused.append(f"rewriter-{error.reason}")
                continue
            good = [verdict for verdict in verdicts if verdict.refused is None]
            if good:
                best = max(good, key=lambda verdict: verdict.similarity)
                trace.status, trace.after, trace.consistency = "adapted", best.after, best.consistency
                return best.text
            trace.refused += [verdict.refused for verdict in verdicts if verdict.refused is not None]
            known = [verdict.consistency for verdict in verdicts if verdict.consistency is not None]
            trace.consistency = max([*known, trace.consistency or 0.0]) if known else trace.consistency
        trace.status = f"fallback:unverified-{trace.refused[-1]}" if trace.refused else "fallback:rewriter-empty"
        return None

    def _patience(self) -> float:
        """Seconds to wait for candidates: nine tenths of what is left, so that those that came can still be verified."""
        return max(0.05, 0.9 * (self._deadline - asyncio.get_running_loop().time()))

    async def _attempt(self, protected: Protected, before: ValueVector, target: ValueVector, asked: _Round) -> list[Verdict]:
        settings, trace = self._settings, self._trace
        request = RewriteRequest(
            query=self._query,
            text=protected.text.strip(),
            target=target,
            context=self._context,
            model=self._brief.model,
            candidates=asked.candidates,
            temperature=asked.temperature,
            seed=asked.seed,
        )
        trace.attempts += asked.candidates
        trace.model = request.model or self._shield.rewriter.model
        with trace.stage("rewrite") as headers:
            asking = replace(request, headers=headers) if headers else request
            rewrites = await self._shield.rewriter.rewrite(asking, timeout_s=self._patience())
            trace.prompt_tokens += rewrites.prompt_tokens
            trace.completion_tokens += rewrites.completion_tokens
        with trace.stage("verify"):
            return await asyncio.gather(
                *(
                    self._shield.verifier.judge(
                        text,
                        query=self._query,
                        original=self._answer,
                        protected=protected,
                        before=before,
                        target=target,
                        settings=settings,
                        stops=self._brief.stops,
                    )
                    for text in dict.fromkeys(rewrites.texts)
                )
            )


def _untouchable(answer: str) -> str:
    """Why a text is left alone before anything is measured: `skipped:<why>`, or ""."""
    if not answer.strip():
        return "skipped:empty"
    if len(answer) > MAX_WHOLE:
        return "skipped:too-long"
    return "skipped:json" if looks_like_json(answer) else ""
