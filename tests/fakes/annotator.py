"""An annotator that finds levels by the words of the answers, and remembers about which pairs it was asked."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.fakes.http import serving
from tests.fakes.instrument import FakeInstrument
from tests.fakes.rewriter import reply
from visa_proxy.training.vcr.annotator import Annotation
from visa_proxy.training.vcr.rows import Pair
from visa_proxy.training.vcr.samples import AnnotatedPair
from visa_proxy.values import ValueVector, load_space

SCHWARTZ = load_space("schwartz")
NAMES = SCHWARTZ.names
WORDS: Mapping[str, tuple[str, float]] = {
    "rope": ("security", 1),
    "helmet": ("security", 0.5),
    "thrill": ("stimulation", 1),
    "leap": ("stimulation", 0.5),
    "careless": ("security", -1),
    "rules": ("conformity", 0.5),
    "rebel": ("conformity", -1),
    "neighbours": ("benevolence", 1),
}
"""Word to what it says of an answer that has it, and of the preferred answer when the explanation has it."""
_TAGGED = re.compile(r"<(\w+) (\w{16})>\n(.*?)\n</\1 \2>", re.DOTALL)
_PREFERRED = re.compile(r"A person preferred answer ([AB])\.")


@dataclass(frozen=True)
class Question:
    """One request, taken apart."""

    prompt: str
    chosen: str
    rejected: str
    explanation: str
    chosen_first: bool

    @property
    def pair(self) -> tuple[str, str, str, str]:
        return self.prompt, self.chosen, self.rejected, self.explanation


Fault = Callable[[Question, int], Awaitable[web.StreamResponse | None]]
"""Given the question and how often it came, this time included: another answer, or None for the right one."""


def levels(text: str) -> dict[str, float]:
    """By the words of `text`."""
    found = dict.fromkeys(NAMES, 0.0)
    for word, (name, level) in WORDS.items():
        if word in text:
            found[name] = level
    return found


@dataclass
class FakeAnnotator(FakeInstrument):
    """Replace `fault` for other behaviour, or set `pause_s` to make it slow."""

    fault: Fault | None = None
    pause_s: float = 0.0
    questions: list[Question] = field(default_factory=list)
    answered: list[Question] = field(default_factory=list)
    """Those whose right answer was sent."""
    running: int = 0
    most: int = 0
    """Requests at the same time, at most."""

    def __post_init__(self) -> None:
        self.answer = self._annotate

    def times(self) -> Counter[tuple[str, str, str, str]]:
        """How often each pair was asked about."""
        return Counter(question.pair for question in self.questions)

    async def _annotate(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        question = read(json.loads(raw))
        self.questions.append(question)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.fault is not None:
                other = await self.fault(question, self.times()[question.pair])
                if other is not None:
                    return other
            await asyncio.sleep(self.pause_s)
        finally:
            self.running -= 1
        self.answered.append(question)
        chosen, rejected = levels(f"{question.chosen} {question.explanation}"), levels(question.rejected)
        return web.json_response(reply(json.dumps({"chosen": chosen, "rejected": rejected})))


def read(body: dict[str, Any]) -> Question:
    """The texts of the prompt, by what stands on their tags and below them."""
    user = body["messages"][1]["content"]
    texts = {match[1]: match[3] for match in _TAGGED.finditer(user)}
    found = _PREFERRED.search(user.rpartition(">")[2])
    assert found is not None
    first = found[1] == "A"
    chosen, rejected = texts["answer_A"], texts["answer_B"]
    if not first:
        chosen, rejected = rejected, chosen
    return Question(texts["question"], chosen, rejected, texts.get("explanation", ""), first)


def fails(status: int, times: int, headers: dict[str, str] | None = None) -> Fault:
    """The first `times` requests of each pair fail with `status`; the body quotes what was asked."""

    async def fault(question: Question, count: int) -> web.StreamResponse | None:
        if count > times:
            return None
        return web.json_response({"error": {"message": f"cannot take {question.chosen}"}}, status=status, headers=headers)

    return fault


def says(text: str, times: int) -> Fault:
    """The first `times` requests of each pair are answered with `text`."""

    async def fault(question: Question, count: int) -> web.StreamResponse | None:
        return web.json_response(reply(text)) if count <= times else None

    return fault


def pair_rows(count: int) -> list[dict[str, str]]:
    """So many pairs, each of a prompt of its own and clearly different, with answers by `WORDS`."""
    words = list(WORDS)
    return [
        {
            "prompt": f"What shall I do on day {i}?",
            "chosen": f"Take the {words[i % 8]} number {i}.",
            "rejected": f"Take the {words[(i + 3) % 8]} number {i}, or not.",
            "explanation": "" if i % 3 else f"I like {words[(i + 5) % 8]}.",
        }
        for i in range(count)
    ]


def annotated(number: int, chosen: str, vector: dict[str, float], rejected: dict[str, float], prompt: str = "q") -> AnnotatedPair:
    """A pair whose rejected answer is of its own, with the levels that are not 0."""
    pair = Pair(str(number), prompt, chosen, f"other {number}", "")
    return AnnotatedPair(pair, Annotation(ValueVector.of(SCHWARTZ, vector), ValueVector.of(SCHWARTZ, rejected)))


def write_rows(file: Path, rows: list[Any]) -> Path:
    """JSON Lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@asynccontextmanager
async def annotator_server() -> AsyncIterator[FakeAnnotator]:
    """A running one; `url` has no /v1."""
    fake = FakeAnnotator()
    async with serving(fake.app()) as url:
        fake.url = url
        yield fake
