"""v* of a task, on the fly: v* = clip(Ψ(q, y) + Φ(q, y, i)) as in Algorithm 1 (paper), or what its row gives."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence

from visa_proxy.detector.base import Detector
from visa_proxy.policy.resolve import Tenant
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.shield.pipeline import MAX_QUERY, Aim, Brief
from visa_proxy.shield.preserve import Protected, protect
from visa_proxy.shield.trace import Trace
from visa_proxy.shield.verify import measured
from visa_proxy.training.rewards.grader import AT_ONCE, Case
from visa_proxy.training.tuning.tasks import Task
from visa_proxy.translator.base import Translator
from visa_proxy.values import Target, ValueVector


class Aims:
    """Tasks to cases, the way serving does it: the same spans are protected, the same instructions understood and bounded."""

    def __init__(self, detector: Detector, translator: Callable[[], Translator], tenant: Tenant | None = None) -> None:
        """`translator` is opened where a task has an instruction. `tenant`: whose spans and bounds hold."""
        self._detector = detector
        self._open = translator
        self._settings = tenant.shield if tenant is not None else Settings()
        self._bounds = dict(tenant.bounds) if tenant is not None else {}

    @functools.cached_property
    def _translator(self) -> Translator:
        return self._open()

    def protected(self, answer: str) -> Protected:
        return protect(answer, self._settings.preserve, self._settings.glossary)

    async def cases(self, tasks: Sequence[Task]) -> list[Case]:
        """In order. Raises InstrumentError when an instrument behind an endpoint fails."""
        found: list[Case] = []
        for start in range(0, len(tasks), AT_ONCE):
            found += await asyncio.gather(*(self._case(task) for task in tasks[start : start + AT_ONCE]))
        return found

    async def _case(self, task: Task) -> Case:
        return Case(task.query, task.answer, self.protected(task.answer), await self._target(task))

    async def _target(self, task: Task) -> ValueVector:
        target = task.target
        if task.instruction:
            target = await self._translated(task)
        assert target is not None  # a task has levels, an instruction, or both
        if target.mode == "target":
            return target.values
        reading = await self._detector.detect(task.query[:MAX_QUERY], task.answer)
        return target.resolve(measured(reading, target.values.space))

    async def _translated(self, task: Task) -> Target:
        brief = Brief(task.query, task.target, self._settings, (task.instruction,), self._bounds)
        return await Aim(self._translator, self._detector.space, brief).settle(task.answer, Trace())
