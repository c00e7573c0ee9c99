"""A run: what is asked, what is kept, what ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.evaluation.samples import LoadedJudge, some_cases
from tests.fakes.http import closed_port
from tests.fakes.rewriter import FakeRewriter, asked_text, reply, thrilled
from visa_proxy.errors import ConfigError
from visa_proxy.evaluation.cases import Case
from visa_proxy.evaluation.report import About, results, write
from visa_proxy.evaluation.rows import Rows, read_rows
from visa_proxy.evaluation.run import STREAK, Evaluation, Settings
from visa_proxy.evaluation.specs import parse_systems
from visa_proxy.server.components import Instruments, standalone


def evaluation(out: Path, instruments: Instruments, cases: Sequence[Case], *systems: str, **more: Any) -> Evaluation:
    judge = LoadedJudge(instruments=instruments)
    return Evaluation(
        Settings(parse_systems(systems), cases, out, judge, standalone, concurrency=2, waits_s=(0.01, 0.01), **more)
    )


async def ran(*given: Any, **more: Any) -> Evaluation:
    found = evaluation(*given, **more)
    await found.run(lambda name: None)
    return found


def outputs(found: Evaluation) -> dict[str, bytes]:
    """The report and its plots."""
    settings = found.settings
    about = About("some", ["Judge: ours."])
    rows = {spec.name: (spec.kind, found.rows(spec)) for spec in settings.specs}
    write(settings.out, settings.cases, results(settings.cases, rows, about.bounds), about)
    return {file.name: file.read_bytes() for file in settings.out.iterdir() if file.name != "rows.jsonl"}


async def test_an_echo_is_consistent_and_changes_nothing(tmp_path: Path, instruments: Instruments) -> None:
    found = await ran(tmp_path, instruments, some_cases(6), "e=echo")
    (result,) = results(found.settings.cases, {"e": ("echo", found.rows(found.settings.specs[0]))}, About("", []).bounds)
    assert result.figures["consistency"].value == 1
    assert result.figures["changed"].value == 0
    assert result.figures["spans"].value == 1


async def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    tmp_path: Path, instruments: Instruments, rewriter: FakeRewriter
) -> None:
    cases, system = some_cases(12), f"r=rewriter:{rewriter.url}#m"
    stopped = evaluation(tmp_path / "a", instruments, cases, system)
    count = 0

    def stop(name: str) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        await stopped.run(stop)
    file = tmp_path / "a" / "rows.jsonl"
    file.write_bytes(file.read_bytes() + b'{"key": "torn')
    kept = {row["case"] for row in read_rows(file)[0]}
    before = Counter(asked_text(body) for body in rewriter.asked)
    assert 5 <= len(kept) < 12

    resumed = await ran(tmp_path / "a", instruments, cases, system)
    after = Counter(asked_text(body) for body in rewriter.asked)
    assert len(read_rows(file)[0]) == 12
    again = [text for text in after if after[text] > 1]
    assert len(again) <= 2 and all(before[text] for text in again), "more was asked again than was in flight"

    quiet = await ran(tmp_path / "b", instruments, cases, system)
    assert outputs(resumed) == outputs(quiet)


async def test_what_was_done_is_not_asked_again(tmp_path: Path, instruments: Instruments, rewriter: FakeRewriter) -> None:
    cases, system = some_cases(4), f"r=rewriter:{rewriter.url}#m"
    await ran(tmp_path, instruments, cases, system)
    await ran(tmp_path, instruments, cases, system.replace("r=", "other-name="))
    assert len(rewriter.asked) == 4
    await ran(tmp_path, instruments, some_cases(5), system)
    assert len(rewriter.asked) == 5


async def test_another_judge_measures_anew_and_asks_nobody(
    tmp_path: Path, instruments: Instruments, rewriter: FakeRewriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, system = some_cases(4), f"r=rewriter:{rewriter.url}#m"
    await ran(tmp_path, instruments, cases, system)
    monkeypatch.setattr(LoadedJudge, "digest", lambda self: "another")
    found = await ran(tmp_path, instruments, cases, system)
    assert len(rewriter.asked) == 4
    rows, _ = read_rows(found.file)
    assert len(rows) == 8 and {row["judge"] for row in rows[4:]} == {"another"}


async def test_a_failing_call_is_a_row_with_its_reason(tmp_path: Path, instruments: Instruments, rewriter: FakeRewriter) -> None:
    async def sometimes(request: web.Request, raw: bytes) -> web.StreamResponse:
        text = asked_text(orjson.loads(raw))
        return web.json_response(reply(thrilled(text)) if len(rewriter.asked) != 2 else reply("x", "length"))

    rewriter.answer = sometimes
    cases, system = some_cases(4), f"r=rewriter:{rewriter.url}#m"
    found = await ran(tmp_path, instruments, cases, system)
    assert Counter(row.get("error") for row in found.rows(found.settings.specs[0])) == {None: 3, "endless": 1}
    await ran(tmp_path, instruments, cases, system)
    assert len(rewriter.asked) == 4, "an answer that cannot be used is an answer"
    await ran(tmp_path, instruments, cases, system, retry_failed=True)
    assert len(rewriter.asked) == 5


async def test_a_busy_server_is_asked_again(tmp_path: Path, instruments: Instruments, rewriter: FakeRewriter) -> None:
    async def busy_once(request: web.Request, raw: bytes) -> web.StreamResponse:
        if len(rewriter.asked) == 2:
            return web.json_response({"error": {"message": "busy"}}, status=503)
        return web.json_response(reply(thrilled(asked_text(orjson.loads(raw)))))

    rewriter.answer = busy_once
    found = await ran(tmp_path, instruments, some_cases(3), f"r=rewriter:{rewriter.url}#m")
    assert not [row for row in found.rows(found.settings.specs[0]) if "error" in row]
    assert len(rewriter.asked) == 4


@pytest.mark.parametrize("kind", ["rewriter", "rules"])
async def test_a_server_that_is_not_there_ends_it_before_anything_is_judged(
    tmp_path: Path, instruments: Instruments, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedJudge, "load", lambda self: pytest.fail("the judge was loaded"))
    with pytest.raises(ConfigError, match=r"--system r: it cannot be reached; is its URL right\?"):
        await ran(tmp_path, instruments, some_cases(3), "e=echo", f"r={kind}:http://127.0.0.1:{closed_port()}/v1#m")
    assert not read_rows(tmp_path / "rows.jsonl")[0]


@pytest.mark.parametrize("kind", ["rewriter", "rules"])
async def test_a_refused_key_ends_it(tmp_path: Path, instruments: Instruments, rewriter: FakeRewriter, kind: str) -> None:
    async def refuses(request: web.Request, raw: bytes) -> web.StreamResponse:
        return web.json_response({"error": {"message": "Incorrect key: hush"}}, status=401)

    rewriter.answer = refuses
    with pytest.raises(ConfigError, match="status 401; it refuses the key") as error:
        await ran(tmp_path, instruments, some_cases(3), f"r={kind}:{rewriter.url}#m")
    assert "hush" not in str(error.value) and len(rewriter.asked) == 2


async def test_a_server_that_falls_silent_ends_it(tmp_path: Path, instruments: Instruments, rewriter: FakeRewriter) -> None:
    healthy = 3

    async def dies(request: web.Request, raw: bytes) -> web.StreamResponse:
        if len(rewriter.asked) > healthy:
            return web.json_response({"error": {"message": "down"}}, status=503)
        return web.json_response(reply(thrilled(asked_text(orjson.loads(raw)))))

    rewriter.answer = dies
    cases, system = some_cases(STREAK + 8), f"r=rewriter:{rewriter.url}#m"
    with pytest.raises(ConfigError, match=f"none of {STREAK} cases .* goes on from there"):
        await ran(tmp_path, instruments, cases, system)
    healthy = 10**6
    found = await ran(tmp_path, instruments, cases, system)
    assert not [row for row in found.rows(found.settings.specs[0]) if "error" in row], "silence is asked about again"


def test_a_second_run_is_refused_while_one_writes(tmp_path: Path) -> None:
    with Rows(tmp_path / "rows.jsonl"), pytest.raises(ConfigError, match="another run is writing"), Rows(tmp_path / "rows.jsonl"):
        pass


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"key": 1}\n{"key": "a", "asked": "b", "case": "c", "error": "timeout"}\n')
    with pytest.raises(ConfigError, match=r"rows\.jsonl, line 1: no row with a key"):
        read_rows(tmp_path / "rows.jsonl")


def test_what_stands_in_no_row_is_named(tmp_path: Path) -> None:
    row = {"key": "a", "asked": "b", "case": "c", "text": "x"}
    (tmp_path / "rows.jsonl").write_bytes(orjson.dumps(row) + b"\n" + orjson.dumps(row) + b"\n")
    with pytest.raises(ConfigError, match=r"line 1: no before"):
        read_rows(tmp_path / "rows.jsonl")
