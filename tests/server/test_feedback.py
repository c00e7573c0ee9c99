"""Exposures and feedback through a running proxy: what is kept of a request, of whom, and what is not."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.base import ANSWER, QUESTION, FakeBase, answers, completion
from tests.fakes.policies import policy
from tests.fakes.proxy import Running, Starter
from tests.fakes.rewriter import FakeRewriter
from tests.fakes.stored import rows, soon
from tests.fakes.tenants import OTHER, with_other
from visa_proxy.server.components import Instruments
from visa_proxy.store.read import Reader

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
OFF = {"X-Visa-Profile": "off"}
PATH = "/v1/visa/feedback"
TEXT = "store: {text: true}"
TRIAL = "experiments: [{name: tone, unit: user, arms: {bold: 1, off: 1}}]"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/visa.db"


async def rate(proxy: Running, said: dict[str, Any], headers: dict[str, str] | None = None) -> Any:
    return await proxy.post(said, headers, PATH)


async def test_an_adapted_answer_is_kept_with_what_was_measured_and_no_text(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, url: str
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, store=url, text=policy(extra=TRIAL))
    reply = await proxy.post({**ASK, "user": "u1"}, {"X-Request-Id": "own-id", "X-Visa-Profile": "bold"})
    visa = reply.json["visa"]
    (row,) = await soon(url, "exposures", 1)
    assert (row["tenant"], row["request_id"], row["profile"], row["surface"]) == ("acme", "own-id", "bold", "chat/completions")
    assert row["status"] == visa["status"] == "adapted" and not row["streamed"]
    assert row["before"] == pytest.approx(visa["values"]["before"], abs=1e-3)
    assert row["target"] == pytest.approx(visa["values"]["target"], abs=1e-3)
    assert row["similarity_after"] == pytest.approx(visa["similarity"]["after"], abs=1e-3)
    assert row["consistency"] == pytest.approx(visa["consistency"], abs=1e-3)
    assert 0 < row["rewrite_s"] <= row["latency_s"] < 20 and abs(row["at"] - time.time()) < 60
    assert rows(url, "texts") == []
    assert QUESTION.encode() not in Path(url.removeprefix("sqlite:///")).with_suffix(".db-wal").read_bytes()


@pytest.mark.parametrize("stream", [False, True])
async def test_texts_are_kept_where_the_policy_opts_in(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, url: str, stream: bool
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, store=url, text=policy(extra=TEXT))
    reply = await proxy.post({**ASK, "stream": stream})
    assert reply.status == 200
    (text,) = await soon(url, "texts", 1)
    (row,) = rows(url, "exposures")
    assert row["status"] == "adapted" and bool(row["streamed"]) is stream
    assert text["query"] == QUESTION and text["answer"] == ANSWER and text["rewrite"] not in ("", None, ANSWER)
    assert 29 * 86_400 < text["until"] - time.time() < 31 * 86_400
    reply = await rate(proxy, {"request_id": row["request_id"], "thumbs": "down", "comment": "too loud"})
    assert reply.status == 200
    with Reader(url) as reader:
        (measured,) = reader.exposures("acme", texts=True)
    assert measured.feedback is not None and measured.feedback.comment == "too loud"


async def test_several_choices_are_one_row(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, url: str
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, store=url)
    base.answer = answers(completion(ANSWER, "Take the bus, it is cheap and it comes every ten minutes."))
    visa = (await proxy.post({**ASK, "n": 2})).json["visa"]
    (row,) = await soon(url, "exposures", 1)
    assert len(visa["choices"]) == 2 and row["status"] == visa["status"]
    known = [each["similarity"]["before"] for each in visa["choices"]]
    assert row["similarity_before"] == pytest.approx(sum(known) / 2, abs=1e-3)
    assert row["consistency"] == pytest.approx(min(each["consistency"] for each in visa["choices"]), abs=1e-3)


async def test_the_arm_is_kept_and_what_failed_at_the_base_is_not(start: Starter, base: FakeBase, url: str) -> None:
    text = policy(
        default="off", extra="experiments: [{name: tone, unit: user, arms: {off: 1, other: {profile: off, weight: 1}}}]"
    )
    proxy = await start(base.url, store=url, text=text)
    arms = {}
    for user in ("u1", "u2", "u3", "u4", "u5"):
        reply = await proxy.post({**ASK, "user": user})
        arms[reply.headers["X-Request-Id"]] = reply.headers["X-Visa-Experiment"]
    base.answer = answers({"error": {"message": "no", "type": "x", "param": None, "code": None}}, status=500)
    assert (await proxy.post(ASK)).status == 500
    base.answer = None
    last = await proxy.post({**ASK, "stream": True}, OFF)
    found = await soon(url, "exposures", 6)
    assert {row["request_id"]: f"{row['experiment']}/{row['arm']}" for row in found if row["experiment"]} == arms
    assert all(len(row["unit_hash"]) == 16 for row in found if row["experiment"])
    (streamed,) = [row for row in found if row["request_id"] == last.headers["X-Request-Id"]]
    assert streamed["streamed"] and streamed["status"] == "passthrough"


async def test_a_refused_rewrite_is_kept_as_one(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, url: str
) -> None:
    rewriter.rule = lambda text: "Something else entirely."
    text = policy(shield="{retries: 0, on_failure: error}")
    proxy = await start(base.url, rewriter.url, instruments=instruments, store=url, text=text)
    assert (await proxy.post(ASK)).status == 502
    (row,) = await soon(url, "exposures", 1)
    assert row["status"] == "fallback:refused"


async def test_of_what_the_guardrail_asks_about_the_last_counts(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments, url: str
) -> None:
    proxy = await start(base.url, rewriter.url, instruments=instruments, store=url)
    told: Any = {
        "input_type": "response",
        "litellm_call_id": "call-1",
        "texts": [ANSWER[:40]],
        "structured_messages": ASK["messages"],
    }
    for texts in ([ANSWER[:40]], [ANSWER], [ANSWER]):
        reply = await proxy.post({**told, "texts": texts}, path="/beta/litellm_basic_guardrail_api")
        assert reply.status == 200
    # Outside of experiments all are kept, and whoever reads them sees the last.
    await soon(url, "exposures", 3)
    with Reader(url) as reader:
        (last,) = reader.exposures("acme")
    assert (last.exposure.request_id, last.exposure.surface, last.exposure.status) == ("call-1", "guardrail", "adapted")


async def test_feedback_is_joined_with_its_own_tenants_answer_only(start: Starter, base: FakeBase, url: str) -> None:
    proxy = await with_other(await start(base.url, store=url, text=policy(default="off")), default="off")
    await proxy.post(ASK, {"X-Request-Id": "same"})
    await proxy.post(ASK, {"X-Request-Id": "theirs", **OTHER})
    await soon(url, "exposures", 2)
    for name in ("same", "theirs", "nobody's", "same"):
        reply = await rate(proxy, {"request_id": name, "score": 1})
        # Nothing tells another tenant's id from one that is not there.
        assert (reply.status, set(reply.json)) == (200, {"object", "request_id", "changed"})
    assert reply.json == {"object": "visa.feedback", "request_id": "same", "changed": False}
    with Reader(url) as reader:
        (mine,), (theirs,) = reader.exposures("acme"), reader.exposures("other")
    assert mine.feedback is not None and mine.feedback.score == 1.0 and theirs.feedback is None
    assert (await proxy.post({"request_id": "same", "score": 1}, {"Authorization": "Bearer no"}, PATH)).status == 401


NO_FEEDBACK: list[tuple[Any, int, str]] = [
    ({"score": 1}, 400, "request_id"),
    ({"request_id": "r"}, 400, "score"),
    ({"request_id": "r", "score": 1.5}, 400, "score"),
    ({"request_id": "r", "score": True}, 400, "score"),
    ({"request_id": "r", "score": "1"}, 400, "score"),
    ({"request_id": "r", "thumbs": "sideways"}, 400, "thumbs"),
    ({"request_id": "r", "label": "x" * 101}, 400, "label"),
    ({"request_id": "r", "label": " "}, 400, "label"),
    ({"request_id": "r", "label": "a\nb"}, 400, "label"),
    ({"request_id": "a b", "score": 1}, 400, "request_id"),
    ({"request_id": "r" * 129, "score": 1}, 400, "request_id"),
    ({"request_id": "r", "score": 1, "rating": 5}, 400, "rating"),
    ({"request_id": "r", "score": 1, "query": ""}, 400, "query"),
    ({"request_id": "r", "comment": "nice"}, 403, "comment"),
    ([], 400, "body"),
]


async def test_what_is_no_feedback_is_refused(start: Starter, base: FakeBase, url: str) -> None:
    proxy = await start(base.url, store=url, text=policy(default="off"))
    for said, status, param in NO_FEEDBACK:
        reply = await rate(proxy, said)
        assert (reply.status, reply.json["error"]["param"]) == (status, param), (said, reply.body)
    assert (await proxy.get("/v1/visa/feedback")).status == 405
    assert rows(url, "feedback") == []


async def test_without_a_store_nothing_is_kept_and_feedback_is_told_so(start: Starter, base: FakeBase) -> None:
    proxy = await start(base.url, text=policy(default="off", extra=TEXT))
    assert (await proxy.post(ASK)).status == 200
    reply = await rate(proxy, {"request_id": "r", "score": 1})
    assert (reply.status, reply.json["error"]["code"]) == (404, "no_store")
    assert b"visa_store" not in (await proxy.get("/metrics")).body
    assert "store" not in (await proxy.get("/readyz")).json["checks"]


async def test_opting_in_makes_no_request_fail_that_the_base_answers(start: Starter, base: FakeBase, url: str) -> None:
    proxy = await start(base.url, store=url, text=policy(default="off", extra=TEXT))
    bodies: list[tuple[str, Any]] = [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}, 3]}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": None}]}),
        ("/v1/completions", {"prompt": [[1, 2, 3]]}),
        ("/v1/completions", {"prompt": []}),
        ("/v1/responses", {"input": 3}),
        ("/v1/responses", {}),
    ]
    for path, body in bodies:
        reply = await proxy.post(json.dumps({"model": "sample", **body}).encode(), path=path)
        assert reply.status < 500, (path, body, reply.body)


async def test_the_page_shows_what_is_so(start: Starter, base: FakeBase, url: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    said, answer = re.findall(r"-d '(.*)'$", page, re.MULTILINE), re.findall(r"```json\n(.*)\n```", page)
    proxy = await start(base.url, store=url, text=policy(default="off"))
    assert [(await rate(proxy, json.loads(each))).json for each in said] == [json.loads(each) for each in answer] != []
    told = re.findall(r"^\| `(visa_store_\w+)", page, re.MULTILINE)
    metrics = (await proxy.get("/metrics")).body.decode()
    shown = {name for name in re.findall(r"^(visa_store_\w+)", metrics, re.MULTILINE) if not name.endswith("_created")}
    assert shown == set(told)


async def test_health_and_metrics_tell_of_the_store(start: Starter, base: FakeBase, url: str) -> None:
    proxy = await start(base.url, store=url, text=policy(default="off"))
    await proxy.post(ASK)
    await soon(url, "exposures", 1)
    await rate(proxy, {"request_id": "r", "label": "good"})
    ready = (await proxy.get("/readyz")).json
    assert ready["status"] == "ok" and ready["checks"]["store"] == {"status": "ready", "queued": 0, "dropped": 0}
    samples = dict(line.rsplit(" ", 1) for line in (await proxy.get("/metrics")).body.decode().splitlines() if line[0] != "#")
    assert float(samples['visa_store_writes_total{result="written"}']) == 2
    assert [float(samples[f"visa_store_{name}"]) for name in ("up", "queue", "dropped_total")] == [1, 0, 0]
