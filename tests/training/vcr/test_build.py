"""A data set from a real annotator over HTTP: what is asked, what is kept, when a run ends early."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fakes.annotator import FakeAnnotator, Question, annotator_server, fails, levels, pair_rows, says, write_rows
from tests.fakes.base import never
from tests.fakes.http import closed_port
from tests.fakes.instrument import KEY
from visa_proxy.errors import ConfigError, InstrumentError
from visa_proxy.training.vcr.annotator import Patience
from visa_proxy.training.vcr.build import STREAK, Build, Settings, Written

QUICK = Patience(tries=3, late_tries=2, first_s=0.01)
COUNT = 30


@pytest.fixture
async def server() -> AsyncIterator[FakeAnnotator]:
    async with annotator_server() as fake:
        yield fake


def build(folder: Path, url: str, rows: list[Any] | None = None, **changes: Any) -> Build:
    data = write_rows(folder / "preferences.jsonl", pair_rows(COUNT) if rows is None else rows)
    settings: dict[str, Any] = {"model": "oracle", "api_key": KEY, "timeout_s": 5.0, "patience": QUICK, **changes}
    return Build(Settings(data=data, out=folder / "vcr", url=f"{url}/v1", **settings))


async def run(folder: Path, server: FakeAnnotator, rows: list[Any] | None = None, **changes: Any) -> Written:
    found = build(folder, server.url, rows, **changes)
    await found.annotate(lambda: None)
    return found.write()


def samples(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for part in ("train", "validation", "test")
        for line in (folder / "vcr" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def output(folder: Path) -> dict[str, bytes]:
    """Every file but the journal."""
    return {file.name: file.read_bytes() for file in (folder / "vcr").iterdir() if file.name != "annotations.jsonl"}


async def test_the_right_vectors_end_up_in_the_right_samples(server: FakeAnnotator, tmp_path: Path) -> None:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1

    server.pause_s = 0.02
    found = build(tmp_path, server.url, drop_ambiguous=0, concurrency=4)
    assert found.estimate().requests == len(found.pending()) == COUNT
    await found.annotate(count)
    written = found.write()
    assert (done, written.failed, written.unanswered) == (COUNT, 0, 0)
    assert {question.chosen_first for question in server.questions} == {True, False}
    assert server.most == 4
    rows = {row["prompt"]: row for row in pair_rows(COUNT)}
    made = samples(tmp_path)
    assert len(made) == sum(written.parts.values()) == 2 * COUNT
    for sample in made:
        row = rows[sample["prompt"]]
        chosen, rejected = levels(f"{row['chosen']} {row['explanation']}"), levels(row["rejected"])
        if sample["kind"] == "negative":
            assert (sample["source"], sample["rewritten"]) == (row["chosen"], row["rejected"])
            chosen, rejected = rejected, chosen
        else:
            assert (sample["source"], sample["rewritten"]) == (row["rejected"], row["chosen"])
        assert sample["target"] == chosen
        assert sample["delta"] == {name: chosen[name] - rejected[name] for name in chosen}
    figures = json.loads((tmp_path / "vcr" / "statistics.json").read_text())
    assert figures["counts"]["samples_annotated"] == figures["counts"]["samples_after_shift"] == 2 * COUNT
    assert figures["parts"] == dict(written.parts)


async def test_filters_are_applied_and_counted(server: FakeAnnotator, tmp_path: Path) -> None:
    def row(chosen: str, rejected: str, explanation: str = "", prompt: str = "q") -> dict[str, str]:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "explanation": explanation}

    same = [row("rope", f"thrill {i}", "neighbours" * (i % 2), "same") for i in range(4)]
    alike = [row("rules", "rules too", prompt=f"alike {i}") for i in range(3)]
    clear = [row("rope", "thrill", prompt=f"clear {i}") for i in range(3)]
    written = await run(tmp_path, server, [*same, *alike, *clear], drop_ambiguous=0.2)
    counts = json.loads((tmp_path / "vcr" / "statistics.json").read_text())["counts"]
    assert [counts[f"samples_{name}"] for name in ("annotated", "after_ambiguity", "after_shift")] == [20, 16, 10]
    assert sum(written.parts.values()) == 10
    assert sum(sample["prompt"] == "same" for sample in samples(tmp_path)) == 4


async def test_nothing_is_asked_twice(server: FakeAnnotator, tmp_path: Path) -> None:
    await run(tmp_path, server, limit=10)
    first = output(tmp_path)
    await run(tmp_path, server, limit=10)
    assert len(server.asked) == 10 and output(tmp_path) == first
    await run(tmp_path, server)
    assert len(server.asked) == COUNT and set(server.times().values()) == {1}
    whole = output(tmp_path)
    (other := tmp_path / "other").mkdir()
    await run(other, server)
    assert output(other) == whole


async def test_another_model_is_asked_anew_and_its_rows_stand_beside(server: FakeAnnotator, tmp_path: Path) -> None:
    await run(tmp_path, server, limit=5)
    first = output(tmp_path)
    await run(tmp_path, server, limit=5, model="sibyl")
    assert [body["model"] for body in server.asked] == ["oracle"] * 5 + ["sibyl"] * 5
    await run(tmp_path, server, limit=5)
    assert len(server.asked) == 10 and output(tmp_path) == first


async def test_a_torn_line_is_asked_again(server: FakeAnnotator, tmp_path: Path) -> None:
    await run(tmp_path, server, limit=6)
    whole, journal = output(tmp_path), tmp_path / "vcr" / "annotations.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    await run(tmp_path, server, limit=6)
    assert sorted(server.times().values()) == [1] * 5 + [2] and output(tmp_path) == whole


async def test_answers_that_cannot_be_read_are_left_out_and_not_asked_about_again(server: FakeAnnotator, tmp_path: Path) -> None:
    bad = {f"What shall I do on day {i}?" for i in (0, 3, 4)}

    async def fault(question: Question, count: int) -> web.StreamResponse | None:
        return await says("hm", 99)(question, count) if question.prompt in bad else None

    server.fault = fault
    written = await run(tmp_path, server, limit=10)
    assert (written.failed, written.unanswered, len(server.asked)) == (3, 0, 13)
    assert not bad & {sample["prompt"] for sample in samples(tmp_path)}
    journal = (tmp_path / "vcr" / "annotations.jsonl").read_text()
    assert journal.count('"failed"') == 3 and "day 0" not in journal
    server.fault = None
    assert (await run(tmp_path, server, limit=10)).failed == 3
    assert len(server.asked) == 13
    assert (await run(tmp_path, server, limit=10, retry_failed=True)).failed == 0
    assert len(server.asked) == 16


@pytest.mark.parametrize("status", [400, 403, 500])
async def test_a_pair_without_an_answer_is_left_out_and_asked_about_again(
    server: FakeAnnotator, tmp_path: Path, status: int
) -> None:
    async def fault(question: Question, count: int) -> web.StreamResponse | None:
        return await fails(status, 99)(question, count) if question.prompt.endswith("day 3?") else None

    server.fault = fault
    written = await run(tmp_path, server, limit=10)
    assert (written.failed, written.unanswered) == (0, 1)
    server.fault = None
    assert (await run(tmp_path, server, limit=10)).unanswered == 0


async def test_an_annotator_that_comes_back_is_waited_for(server: FakeAnnotator, tmp_path: Path) -> None:
    async def fault(question: Question, count: int) -> web.StreamResponse | None:
        number = int(question.prompt.rpartition(" ")[2][:-1])
        if number % 4 == 3 and count == 1:
            await asyncio.sleep(30)
        return await (fails(429, 1, {"retry-after": "0"}), fails(500, 2), says("{", 1), fails(0, 0))[number % 4](question, count)

    server.fault = fault
    assert (await run(tmp_path, server, limit=12, timeout_s=0.5)).unanswered == 0
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    server.fault = None
    await run(quiet, server, limit=12)
    assert output(quiet) == output(tmp_path)


async def test_a_pair_that_is_always_late_ends_nothing(server: FakeAnnotator, tmp_path: Path) -> None:
    async def fault(question: Question, count: int) -> web.StreamResponse | None:
        return await never(web.Request.__new__(web.Request), b"") if question.prompt.endswith("day 0?") else None

    server.fault = fault
    for _ in range(2):  # the second run has nothing else to ask about
        written = await run(tmp_path, server, limit=4, timeout_s=0.2, concurrency=1)
        assert (written.failed, written.unanswered) == (0, 1)


ENDS = {
    "401": (401, "--api-key-env", 1),
    "402": (402, "paid", 1),
    "403": (403, "--api-key-env", 1),
    "404": (404, "--model", 1),
    "503": (503, "--url", 6),
}


@pytest.mark.parametrize(("status", "hint", "asked"), ENDS.values(), ids=ENDS)
async def test_an_annotator_that_refuses_ends_it_at_once(
    server: FakeAnnotator, tmp_path: Path, status: int, hint: str, asked: int
) -> None:
    server.fault = fails(status, 99)
    with pytest.raises(InstrumentError) as caught:
        await run(tmp_path, server)
    text = str(caught.value)
    assert f"with status {status}" in text and hint in text and f"0 of {COUNT} pairs are done" in text
    assert KEY not in text and "rope" not in text
    assert len(server.asked) == asked


async def test_nobody_there_ends_it_at_once(tmp_path: Path) -> None:
    with pytest.raises(InstrumentError, match=r"cannot be reached; is --url right\?"):
        await build(tmp_path, f"http://127.0.0.1:{closed_port()}", patience=Patience()).annotate(lambda: None)


async def test_a_key_that_expires_ends_it_and_keeps_what_there_is(server: FakeAnnotator, tmp_path: Path) -> None:
    async def fault(question: Question, count: int) -> web.StreamResponse | None:
        return await fails(401, 99)(question, count) if len(server.answered) >= 7 else None

    server.fault = fault
    with pytest.raises(InstrumentError, match=f"with status 401.* 7 of {COUNT} pairs are done and kept"):
        await run(tmp_path, server, concurrency=1)
    server.fault = None
    await run(tmp_path, server)
    assert len(server.answered) == COUNT


@pytest.mark.parametrize("fault", [says("hm", 99), fails(400, 99)], ids=["garbled", "400"])
async def test_many_failures_one_after_the_other_end_it(server: FakeAnnotator, tmp_path: Path, fault: Any) -> None:
    server.fault = fault
    with pytest.raises(InstrumentError, match=f"none of {STREAK} pairs"):
        await run(tmp_path, server, concurrency=1)
    assert len(server.times()) == STREAK


async def test_no_sample_left_is_an_error(server: FakeAnnotator, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no sample is left \(pairs: 5, .*samples annotated: 10, .*after shift: 0\)"):
        await run(tmp_path, server, limit=5, min_shift=6)


def test_the_estimate_counts_what_will_be_sent(tmp_path: Path) -> None:
    found = build(tmp_path, "http://127.0.0.1:1", limit=3)
    estimate = found.estimate()
    characters = sum(len(found.prompt.system) + len(found.prompt.user(pair)) for pair in found.pairs)
    assert (estimate.requests, estimate.prompt_tokens) == (3, characters // 4)
    assert 3 * 80 < estimate.completion_tokens < 3 * 300
    assert estimate.dollars(1e6, 0) == estimate.prompt_tokens
    assert estimate.dollars(0, 1e6) == estimate.completion_tokens
    assert not (tmp_path / "vcr").exists()


def test_settings_do_not_show_the_key(tmp_path: Path) -> None:
    assert KEY not in repr(build(tmp_path, "http://127.0.0.1:1").settings)
