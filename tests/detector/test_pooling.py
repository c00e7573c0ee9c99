"""A detector that asks a regression model on vLLM, over HTTP; tests/vllm has the same with a real one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.base import Answer, answers, never
from tests.fakes.instrument import KEY, FakeInstrument, Json, endpoint_at, instrument_server, refused
from visa_proxy.detector.pooling import PoolingDetector, model_input
from visa_proxy.errors import InstrumentError
from visa_proxy.values import load_space

SPACE = load_space("schwartz")
QUERY, ANSWER = "Shall I climb\nat night?", "Climb with a rope.\n\nQuestion: none"
OUTPUTS = [0.1, -0.2, 0.0, 1.7, -3, 0.5, 0, 0.25, 0.3, 0.4]


def classified(outputs: Any) -> Json:
    """What vLLM answers."""
    return {
        "id": "classify-1",
        "object": "list",
        "created": 1,
        "model": "values",
        "data": [{"index": 0, "label": "LABEL_3", "probs": outputs, "num_classes": 10}],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }


@pytest.fixture
async def server() -> AsyncIterator[FakeInstrument]:
    async with instrument_server() as fake:
        fake.answer = answers(classified(OUTPUTS))
        yield fake


@pytest.fixture
async def detector(server: FakeInstrument) -> AsyncIterator[PoolingDetector]:
    async with endpoint_at(server.url) as endpoint:
        yield PoolingDetector(endpoint, "values", SPACE)


async def test_outputs_are_the_clipped_components(detector: PoolingDetector, server: FakeInstrument) -> None:
    reading = await detector.detect(QUERY, ANSWER)
    assert list(reading.values.array) == [0.1, -0.2, 0.0, 1.0, -1.0, 0.5, 0.0, 0.25, 0.3, 0.4]
    assert (reading.confidence, reading.sentences, reading.explanation) == ({}, (), "")
    assert server.asked == [{"model": "values", "input": model_input(QUERY, ANSWER), "use_activation": False}]
    assert (server.paths, server.keys) == (["/classify"], [f"Bearer {KEY}"])


def test_the_question_is_one_line_of_the_input() -> None:
    assert model_input(QUERY, ANSWER) == "Question: Shall I climb at night?\nAnswer: Climb with a rope.\n\nQuestion: none"
    assert model_input("", "Yes.") == "Question: \nAnswer: Yes."
    assert model_input("a\nAnswer: b\u2028\rc", "d").splitlines() == ["Question: a Answer: b c", "Answer: d"]


async def test_a_blank_answer_is_nothing_to_ask_about(detector: PoolingDetector, server: FakeInstrument) -> None:
    assert not (await detector.detect(QUERY, "\n")).values.norm
    assert not server.asked


@pytest.mark.parametrize("count", [0, 1, 9, 11])
async def test_a_model_for_another_space_is_named_with_both_numbers(
    detector: PoolingDetector, server: FakeInstrument, count: int
) -> None:
    server.answer = answers(classified([0.5] * count))
    with pytest.raises(InstrumentError, match=rf"{count} outputs.*10 dimensions") as caught:
        await detector.detect(QUERY, ANSWER)
    assert (caught.value.instrument, caught.value.status) == ("detector", 502)


def _odd(value: str) -> bytes:
    return json.dumps(classified(OUTPUTS)).replace("1.7", value).encode()


FAILS: dict[str, tuple[Answer, str]] = {
    "500": (answers({"error": {"message": ANSWER}}, 500), "with status 500"),
    "400": (answers({"error": {"message": f"too long: {ANSWER}"}}, 400), "with status 400"),
    "404": (answers({"detail": "Not Found"}, 404), "with status 404"),
    "no-json": (answers(b"oops"), "not JSON"),
    "list": (answers(b"[]"), "no classification"),
    "no-data": (answers({"data": []}), "no classification"),
    "two": (answers({"data": [{}, {}]}), "no classification"),
    "text": (answers(classified("0.5")), "no classification"),
    "nan": (answers(_odd("NaN")), "not JSON"),
    "infinite": (answers(_odd("1e999")), "not JSON|not finite"),
    "null": (answers(_odd("null")), "not finite"),
    "true": (answers(_odd("true")), "not finite"),
    "string": (answers(_odd('"1"')), "not finite"),
    "huge": (answers(b" " * 100_000), "more than it should"),
}


@pytest.mark.parametrize(("answer", "message"), FAILS.values(), ids=FAILS)
async def test_anything_else_is_an_error(detector: PoolingDetector, server: FakeInstrument, answer: Answer, message: str) -> None:
    server.answer = answer
    with pytest.raises(InstrumentError, match=message) as caught:
        await detector.detect(QUERY, ANSWER)
    assert refused(caught, "rope").instrument == "detector"
    assert len(server.asked) == 1


async def test_a_server_that_stalls(server: FakeInstrument) -> None:
    server.answer = never
    async with endpoint_at(server.url, timeout_s=0.2) as endpoint:
        with pytest.raises(InstrumentError, match=r"did not answer within 0\.2 s") as caught:
            await PoolingDetector(endpoint, "values", SPACE).detect(QUERY, ANSWER)
    assert caught.value.status == 503
