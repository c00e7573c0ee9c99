"""How the tests ask a server, and read what it says of itself."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

import openai
from openai.types.chat import ChatCompletionMessageParam

from tests.fakes.child import Child

CALL_S: Final = 120.0


def client_of(server: Child, key: str) -> openai.OpenAI:
    """The official client, which does not ask again."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=CALL_S)


def ask(question: str) -> list[ChatCompletionMessageParam]:
    """The messages of a conversation that begins."""
    return [{"role": "user", "content": question}]


def read_begun(client: openai.OpenAI, begun: str, **request: Any) -> None:
    """Ask for a stream and leave in the middle of it, having read `begun` and a little more."""
    stream = client.chat.completions.create(**request, stream=True)
    said = ""
    for chunk in stream:
        said += chunk.choices[0].delta.content or ""
        if len(said) > len(begun):
            break
    stream.close()
    assert said.startswith(begun)


def visa_of(answer: openai.BaseModel) -> dict[str, Any]:
    """The `visa` object that rides on an answer."""
    assert answer.model_extra is not None
    visa: dict[str, Any] = answer.model_extra["visa"]
    return visa


def metric(server: Child, name: str) -> float:
    """A Prometheus metric, summed over its labels."""
    return sum(samples(server, name).values())


def samples(server: Child, name: str) -> dict[str, float]:
    """A Prometheus metric, by its labels as they are written."""
    found = (line.rpartition(" ") for line in server.get("/metrics").splitlines() if line.startswith(name + "{"))
    return {labels.removeprefix(name): float(value) for labels, _, value in found}


def made_after_leaving(server: Child, leave: Callable[[], None], *, asked: int) -> int:
    """How many tokens vLLM made for a client that asked for `asked` of them and left in the middle (`leave`); there were some to be made.

    On few cores vLLM's front end, asked directly too, at times answers nobody while its engine runs on: an attempt in which the engine
    was done by the time the client could leave says nothing, and is made again.
    """
    for _ in range(6):
        before = metric(server, "vllm:generation_tokens_total")
        leave()
        left = metric(server, "vllm:generation_tokens_total") - before
        until_idle(server)
        if left < asked:
            return round(metric(server, "vllm:generation_tokens_total") - before)
    raise AssertionError("the engine was always done before the client could leave")


def until_idle(server: Child) -> None:
    """Until vLLM works on no request."""
    deadline = time.monotonic() + CALL_S
    while metric(server, "vllm:num_requests_running"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def undated(body: bytes) -> bytes:
    """Without that in which two answers to the same request differ: the date, and an id (a model's has no dash)."""
    return re.sub(rb'"created":\d+', b'"created":0', re.sub(rb'"id":"[^"]*-[^"]*"', b'"id":""', body))
