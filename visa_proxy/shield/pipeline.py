"""preserve → rewrite → verify → the best, a retry, or the original, under one deadline (DESIGN: the flow)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from visa_proxy.detector.base import Detector
from visa_proxy.errors import RewriteRefused, RewriterError
from visa_proxy.facts.base import FactAnalyzer
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.rewriter.base import Rewriter, RewriteRequest
from visa_proxy.shield.preserve import Protected, protect
from visa_proxy.shield.trace import Trace
from visa_proxy.shield.verify import Verdict, Verifier
from visa_proxy.translator.base import Translator
from visa_proxy.values import Target, ValueVector

logger = logging.getLogger("visa_proxy.shield")

RETRY_TEMPERATURE: Final = 0.5
MIN_CONFIDENCE: Final = 0.5
"""An instruction understood with less certainty than this is not acted upon."""
MAX_CHARACTERS: Final = 20_000
"""Longer answers are left alone: measuring them would hold up everybody else's."""
MAX_QUERY: Final = 2_000
"""Characters of a question that are looked at: what it asks for stands at its beginning or not at all."""


@dataclass(frozen=True)
class Adaptation:
    """What the client gets, and why."""

    text: str
    trace: Trace


class Shield:
    """The four components, composed. One instance serves all tenants; everything tenant-specific is an argument."""

    def __init__(self, detector: Detector, translator: Translator, facts: FactAnalyzer, rewriter: Rewriter) -> None:
        self.detector = detector
        self.translator = translator
        self.facts = facts
        self.rewriter = rewriter
        self.verifier = Verifier(detector, facts)

    async def adapt(
        self,
        *,
        query: str,
        answer: str,
        target: Target | None,
        instructions: Sequence[str] = (),
        settings: Settings,
        model: str | None = None,
    ) -> Adaptation:
        """A verified rewrite of `answer`, or `answer` itself with the reason in the trace.

        v* comes from `target` (None: no offset) and the offsets of the `instructions`, added up. Whatever goes wrong inside becomes
        a `fallback:<why>`; only RewriteRefused leaves, and only under `on_failure: error`.
        """
        trace = Trace()
        job = _Job(self, query[:MAX_QUERY], answer, settings, model, trace)
        try:
            async with asyncio.timeout(settings.timeout_s):
                text = await job.run(target, instructions)
        except TimeoutError:
            trace.status, text = "fallback:timeout", None
        except RewriterError as error:
            trace.status, text = f"fallback:rewriter-{error.reason}", None
        except Exception as error:  # the base's answer is at hand: no fault of ours may cost the client that answer
            # The message of a foreign exception may quote the text, so only its type is logged.
            logger.error("shield failed: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
            trace.status, text = "fallback:error", None
        if text is None and trace.outcome == "fallback" and settings.on_failure == "error":
            raise RewriteRefused(f"no verified rewrite: {trace.status.partition(':')[2]}")
        return Adaptation(answer if text is None else text, trace)


class _Job:
    """One answer on its way through the shield."""

    def __init__(self, shield: Shield, query: str, answer: str, settings: Settings, model: str | None, trace: Trace) -> None:
        self._shield = shield
        self._query = query
        self._answer = answer
        self._settings = settings
        self._model = model
        self._trace = trace
        self._deadline = asyncio.get_running_loop().time() + settings.timeout_s

    async def run(self, target: Target | None, instructions: Sequence[str]) -> str | None:
        """The rewrite, or None with the reason in the trace's status."""
        trace = self._trace
        if not self._answer.strip():
            trace.status = "skipped:empty"
            return None
        if len(self._answer) > MAX_CHARACTERS:
            trace.status = "skipped:too-long"
            return None
        if target is None:
            target = Target("offset", ValueVector.zero(self._shield.detector.space))
        for instruction in instructions:
            with trace.stage("translate"):
                target = await self._translated(target, instruction)
        if target.mode == "offset" and not target.values.norm:
            trace.status = "skipped:unclear-instruction" if instructions else "skipped:no-offset"
            return None
        with trace.stage("detect"):
            trace.before = await self._shield.detector.detect(self._query, self._answer)
        trace.target = target.resolve(trace.before)
        if trace.before.cosine(trace.target) >= self._settings.skip_above:
            trace.status = "aligned"
            return None
        with trace.stage("preserve"):
            protected = protect(self._answer, self._settings.preserve, self._settings.glossary)
        trace.preserved = len(protected.spans)
        return await self._best(protected, trace.before, trace.target)

    async def _translated(self, target: Target, instruction: str) -> Target:
        translation = await self._shield.translator.translate(self._query, self._answer, instruction)
        known = self._trace.instruction_confidence
        self._trace.instruction_confidence = min(translation.confidence, 1.0 if known is None else known)
        if translation.confidence < MIN_CONFIDENCE:
            return target
        return Target(target.mode, target.values.offset(translation.offset))

    async def _best(self, protected: Protected, before: ValueVector, target: ValueVector) -> str | None:
        trace = self._trace
        for attempt in range(self._settings.retries + 1):
            try:
                verdicts = await self._attempt(protected, before, target, attempt)
            except RewriterError as error:
                if attempt == self._settings.retries:
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

    async def _attempt(self, protected: Protected, before: ValueVector, target: ValueVector, attempt: int) -> list[Verdict]:
        settings, trace = self._settings, self._trace
        request = RewriteRequest(
            query=self._query,
            text=protected.text.strip(),
            measured=before,
            target=target,
            model=self._model,
            candidates=settings.candidates,
            temperature=RETRY_TEMPERATURE if attempt else 0.0,
            seed=attempt,
        )
        trace.attempts += settings.candidates
        with trace.stage("rewrite"):
            rewrites = await self._shield.rewriter.rewrite(request, timeout_s=self._patience())
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
                    )
                    for text in dict.fromkeys(rewrites.texts)
                )
            )
