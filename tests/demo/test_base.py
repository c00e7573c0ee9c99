"""The sample base model over real HTTP: which answers it gives, and at what pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from openai import AsyncOpenAI

from visa_proxy.demo.base import MAX_QUESTIONS, MODEL, SampleBase, create_base_app, load_entries, questions
from visa_proxy.encoder.minilm import SentenceEncoder
from visa_proxy.engines.ports import free_port
from visa_proxy.server.run import make_server

ENTRIES = load_entries()
UNKNOWN = "Who won the chess olympiad of 1972 and with which opening?"


@pytest.fixture(scope="module")
def base() -> SampleBase:
    return SampleBase(SentenceEncoder())


@pytest.fixture
async def client(base: SampleBase, request: pytest.FixtureRequest) -> AsyncIterator[AsyncOpenAI]:
    """The official client of a served base; the parameter is its pace in tokens a second."""
    port = free_port()
    app = create_base_app(base, tokens_per_s=getattr(request, "param", None))
    server = make_server(app, host="127.0.0.1", port=port, guest=True)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110  uvicorn sends no event
            await asyncio.sleep(0.01)
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-", max_retries=0) as given:
        yield given
    server.should_exit = True
    await serving


async def ask(client: AsyncOpenAI, message: str) -> str:
    reply = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": message}])
    return reply.choices[0].message.content or ""


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("How do I sleep?", ["How do I sleep?"]),
        ("Help me sleep.", ["Help me sleep."]),
        ("I am tired. How do I sleep? Thank you.", ["I am tired. How do I sleep? Thank you."]),
        ("How do I sleep? And where?\n\nWhen?", ["How do I sleep?", "And where?", "When?"]),
        ("I am tired. How do I sleep?  I am thin. What do I eat? Thank you.", ["I am tired. How do I sleep?", "I am thin. What do I eat?"]),
        ("Why?! Is a?b one word? Yes?", ["Why?! Is a?b one word?", "Yes?"]),
    ],
)  # fmt: skip
def test_questions_of_a_message(message: str, wanted: list[str]) -> None:
    assert questions(message) == wanted


def test_questions_are_bounded() -> None:
    assert len(questions("Why? " * 1000)) == MAX_QUESTIONS


async def test_one_question_one_answer(client: AsyncOpenAI) -> None:
    assert await ask(client, ENTRIES[3].paraphrases[0]) == ENTRIES[3].answer


async def test_every_question_is_answered_in_order(client: AsyncOpenAI) -> None:
    asked = [ENTRIES[i] for i in (5, 0, 12, 7, 30)]
    message = " ".join(entry.question for entry in asked)
    assert await ask(client, message) == "\n\n".join(entry.answer for entry in asked)


async def test_an_unknown_question_among_known_ones(client: AsyncOpenAI) -> None:
    known, unknown = (await ask(client, f"{ENTRIES[0].question} {UNKNOWN}")).split("\n\nI am a small sample model")
    assert known == ENTRIES[0].answer
    assert "only know these topics" in unknown


async def test_an_answer_is_given_once(client: AsyncOpenAI) -> None:
    assert await ask(client, f"{ENTRIES[0].question} {ENTRIES[0].paraphrases[0]}?") == ENTRIES[0].answer


async def test_a_stream_says_the_same(client: AsyncOpenAI) -> None:
    message = f"{ENTRIES[0].question} {ENTRIES[1].question}"
    stream = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": message}], stream=True)
    said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert said == f"{ENTRIES[0].answer}\n\n{ENTRIES[1].answer}"


@pytest.mark.parametrize("client", [50.0], indirect=True)
async def test_paced_tokens_come_no_sooner_and_not_much_later(client: AsyncOpenAI) -> None:
    asked = time.perf_counter()
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": ENTRIES[0].question}], stream=True
    )
    tokens = sum([bool(chunk.choices[0].delta.content) async for chunk in stream])
    assert tokens == len(ENTRIES[0].answer.split())
    assert tokens / 50 <= time.perf_counter() - asked < tokens / 50 + 5
