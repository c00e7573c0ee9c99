"""`json_fields`: the named strings of a JSON answer are rewritten as far as the schema of the request allows."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.fakes.base import QUESTION, FakeBase
from tests.fakes.events import parsed, text_of
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter, thrilled
from tests.fakes.said import JSON_ANSWER, SUMMARY
from visa_proxy.server.components import Instruments

SHIELD = "{retries: 0, json_fields: [/summary, /note]}"
NOTE = "Fluff the rice with a fork before you serve it."


def ask(**rules: Any) -> Any:
    """A request whose schema has `rules` for the summary."""
    schema = {"type": "object", "properties": {"summary": {"type": "string", **rules}}}
    form = {"type": "json_schema", "json_schema": {"name": "recipe", "schema": schema}}
    return {"model": "sample", "messages": [{"role": "user", "content": QUESTION}], "response_format": form}


@pytest.fixture
async def proxy(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Running:
    base.texts = [JSON_ANSWER]
    return await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=SHIELD))


async def read(proxy: Running, body: Any, *, stream: bool) -> tuple[str, Any]:
    """Text and `visa`."""
    got = await proxy.post({**body, "stream": stream})
    assert got.status == 200, got.body
    if not stream:
        return got.json["choices"][0]["message"]["content"], got.json["visa"]
    chunks = parsed(got.body)
    return text_of(chunks), chunks[-1]["visa"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rules", [{"maxLength": len(SUMMARY) + 5}, {"enum": [SUMMARY]}, {"pattern": "^Rinse"}])
async def test_a_rewrite_that_the_schema_does_not_allow(proxy: Running, rules: Any, stream: bool) -> None:
    text, visa = await read(proxy, ask(**rules), stream=stream)
    assert text == JSON_ANSWER, "byte for byte"
    assert visa["status"] == "fallback:schema"
    assert "after" not in visa["values"] and "after" not in visa["similarity"], "what the client gets was not rewritten"


@pytest.mark.parametrize("rules", [{}, {"maxLength": 1000}, {"enum": [SUMMARY, thrilled(SUMMARY)]}])
async def test_a_rewrite_that_the_schema_allows(proxy: Running, rules: Any) -> None:
    text, visa = await read(proxy, ask(**rules), stream=False)
    assert text == JSON_ANSWER.replace(SUMMARY, thrilled(SUMMARY))
    assert visa["status"] == "adapted"


async def test_one_field_that_does_not_fit_costs_no_other(proxy: Running, base: FakeBase) -> None:
    base.texts = [json.dumps({"summary": SUMMARY, "note": NOTE})]
    text, visa = await read(proxy, ask(maxLength=len(SUMMARY)), stream=False)
    assert json.loads(text) == {"summary": SUMMARY, "note": thrilled(NOTE)}
    assert visa["status"] == "adapted"


async def test_on_failure_error(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> None:
    base.texts = [JSON_ANSWER]
    shield = SHIELD.replace("retries: 0", "retries: 0, on_failure: error")
    proxy = await start(base.url, rewriter.url, instruments=instruments, text=policy(shield=shield))
    with pytest.raises(openai.APIStatusError, match="schema") as caught:
        await proxy.client.chat.completions.create(**ask(enum=[SUMMARY]))
    assert (caught.value.status_code, caught.value.code) == (502, "rewrite_unverified")
