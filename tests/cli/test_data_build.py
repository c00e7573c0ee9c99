"""`visa-proxy data build` as a command: killed and started again, interrupted, refused, dry."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.annotator import FakeAnnotator, annotator_server, fails, pair_rows, write_rows
from tests.fakes.http import closed_port, until
from tests.fakes.instrument import KEY
from tests.fakes.pages import blocks, files

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
COMMAND = [sys.executable, "-m", "visa_proxy"]
COUNT, AT_ONCE = 40, 3
START_S = 60.0


@pytest.fixture
async def server() -> AsyncIterator[FakeAnnotator]:
    async with annotator_server() as fake:
        yield fake


def arguments(folder: Path, url: str, *more: str) -> list[str]:
    data = folder / "preferences.jsonl"
    if not data.exists():
        write_rows(data, pair_rows(COUNT))
    place = ["--data", str(data), "--out", str(folder / "vcr"), "--url", f"{url}/v1", "--model", "oracle"]
    return ["data", "build", *place, "--concurrency", str(AT_ONCE), *more]


async def started(*words: str, cwd: Path | None = None, stdin: int | None = None) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    env = {**os.environ, "HUSH": KEY, "PYTHONPATH": str(Path(__file__).parents[2])}
    stdin = asyncio.subprocess.DEVNULL if stdin is None else stdin
    return await asyncio.create_subprocess_exec(*COMMAND, *words, stdin=stdin, stdout=pipe, stderr=pipe, env=env, cwd=cwd)


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """Status, standard output and standard error, in none of which a key or a text is to be read."""
    async with asyncio.timeout(START_S):
        out, err = await process.communicate()
    text = out.decode(), err.decode()
    assert process.returncode is not None
    for hush in (KEY, "Take the", "What shall I", "I like"):
        assert hush not in "".join(text)
    return process.returncode, *text


async def ran(*words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    return await ended(await started(*words, cwd=cwd))


def output(folder: Path) -> dict[str, bytes]:
    """Every file but the journal."""
    return {file.name: file.read_bytes() for file in (folder / "vcr").iterdir() if file.name != "annotations.jsonl"}


def journalled(folder: Path) -> list[str]:
    """The ids of the whole lines."""
    text = (folder / "vcr" / "annotations.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["id"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


async def test_killed_and_started_again_it_ends_as_if_undisturbed(server: FakeAnnotator, tmp_path: Path) -> None:
    """Guaranteed: what is journalled is never asked about again; at most `--concurrency` pairs are asked about once more for each kill."""
    rows = [{**row, "id": f"pair {i}"} for i, row in enumerate(pair_rows(COUNT))]
    prompts = {row["id"]: row["prompt"] for row in rows}
    write_rows(tmp_path / "preferences.jsonl", rows)
    server.pause_s = 0.1
    for kills in (1, 2):
        before = len(server.answered)
        process = await started(*arguments(tmp_path, server.url, "--api-key-env", "HUSH"))
        await until(lambda before=before: len(server.answered) >= before + 10, START_S, "some answers")  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        await until(lambda: server.running == 0, what="the server at rest")
        done, times = {prompts[i] for i in journalled(tmp_path)}, server.times()
        assert 10 * kills - AT_ONCE <= len(done) < COUNT
        lost = {pair[0] for pair in times} - done
        assert len(lost) <= AT_ONCE
    assert not (tmp_path / "vcr" / "README.md").exists()
    earlier = server.times()
    status, out, err = await ran(*arguments(tmp_path, server.url, "--api-key-env", "HUSH"))
    assert status == 0, err
    assert f"{COUNT} pairs, 14 with an explanation, {len(done)} done before" in out
    assert f"{COUNT - len(done)} requests" in out
    times = server.times()
    assert {pair[0] for pair in times} == set(prompts.values())
    assert all(times[pair] == earlier[pair] for pair in times if pair[0] in done), "asked although it was journalled"
    assert all(times[pair] == earlier[pair] + 1 for pair in times if pair[0] not in done)
    assert sum(times.values()) <= COUNT + 2 * AT_ONCE
    assert sorted(journalled(tmp_path)) == sorted(prompts)
    assert set(server.keys) == {f"Bearer {KEY}"}

    quiet = tmp_path / "quiet"
    quiet.mkdir()
    write_rows(quiet / "preferences.jsonl", rows)
    server.pause_s = 0
    assert (await ran(*arguments(quiet, server.url)))[0] == 0
    assert output(quiet) == output(tmp_path)
    # The journal holds what was said, and nothing of the texts.
    assert not any(hush in (tmp_path / "vcr" / "annotations.jsonl").read_text() for hush in (KEY, "Take the", "What shall I"))


async def test_ctrl_c_keeps_what_there_is(server: FakeAnnotator, tmp_path: Path) -> None:
    server.pause_s = 0.1
    process = await started(*arguments(tmp_path, server.url))
    await until(lambda: len(server.answered) >= 8, START_S, "some answers")
    process.send_signal(signal.SIGINT)
    status, _, err = await ended(process)
    done = len(journalled(tmp_path))
    assert status == 130 and f"stopped: {done} of {COUNT} pairs are done and kept" in err and "Traceback" not in err
    assert 5 <= done < COUNT
    server.pause_s = 0
    status, out, _ = await ran(*arguments(tmp_path, server.url))
    assert status == 0 and f"{COUNT - done} requests" in out and "samples" in out


async def test_a_dry_run_asks_nothing_and_writes_nothing(server: FakeAnnotator, tmp_path: Path) -> None:
    status, out, _ = await ran(*arguments(tmp_path, server.url, "--dry-run", "--price-in", "0.15", "--price-out", "0.60"))
    assert status == 0
    assert f"{COUNT} requests, about" in out and "$0." in out and "characters / 4" in out
    assert not server.asked and not (tmp_path / "vcr").exists()


@pytest.mark.parametrize("answer", ["n", "y"])
async def test_at_a_terminal_it_asks_first(server: FakeAnnotator, tmp_path: Path, answer: str) -> None:
    ours, theirs = pty.openpty()
    try:
        process = await started(*arguments(tmp_path, server.url, "--limit", "6"), stdin=theirs)
        os.write(ours, f"{answer}\n".encode())
        status, out, _ = await ended(process)
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Go on? [y/N]" in out
    assert (status, len(server.asked)) == ((0, 6) if answer == "y" else (1, 0))


async def test_a_key_that_is_refused_is_said_once(server: FakeAnnotator, tmp_path: Path) -> None:
    server.fault = fails(401, 99)
    status, _, err = await ran(*arguments(tmp_path, server.url, "--api-key-env", "HUSH"))
    lines = [line for line in err.splitlines() if line.startswith("visa-proxy: ")]
    assert status == 2 and len(lines) == 1 and "with status 401; it refuses the key: is --api-key-env right?" in lines[0]
    assert len(server.asked) == 1 and "Traceback" not in err


async def test_an_annotator_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    status, _, err = await ran(*arguments(tmp_path, f"http://127.0.0.1:{closed_port()}"))
    assert status == 2 and "the annotator cannot be reached; is --url right?" in err


async def test_wrong_rows_are_named_before_anything_is_asked(server: FakeAnnotator, tmp_path: Path) -> None:
    rows = [*pair_rows(3), {"prompt": "What shall I", "chosen": 3}, "x"]
    write_rows(tmp_path / "preferences.jsonl", rows)
    status, _, err = await ran(*arguments(tmp_path, server.url))
    assert status == 2 and not server.asked
    for problem in ("line 4: chosen: found a number", "line 4: rejected: found nothing", "line 5: the line: found 'x'"):
        assert f"{tmp_path / 'preferences.jsonl'}, {problem}" in err


BAD = {
    "url": (["--url", "ftp://x"], "--url: found something else"),
    "key": (["--api-key-env", "VISA_NO_SUCH_VARIABLE"], "the environment variable VISA_NO_SUCH_VARIABLE is not set"),
    "price": (["--price-in", "1"], "--price-in and --price-out go together"),
    "column": (["--explanation-column", "why"], "--explanation-column: found 'why'"),
    "share": (["--drop-ambiguous", "15"], "'--drop-ambiguous'"),
}


@pytest.mark.parametrize(("more", "problem"), BAD.values(), ids=BAD)
async def test_wrong_options_are_named(server: FakeAnnotator, tmp_path: Path, more: list[str], problem: str) -> None:
    status, _, err = await ran(*arguments(tmp_path, server.url, *more))
    assert status == 2 and problem in err and not server.asked


async def test_the_commands_of_the_page(server: FakeAnnotator, tmp_path: Path) -> None:
    (tmp_path / "preferences.jsonl").write_text(files(PAGE)["preferences.jsonl"], encoding="utf-8")
    dry, real = (shlex.split(block.text) for block in blocks(PAGE) if block.language == "bash")
    for words, asked in ((dry, 0), (real, 3)):
        assert words[0] == "visa-proxy"
        words[words.index("--url") + 1] = f"{server.url}/v1"
        status, out, err = await ran(*words[1:], cwd=tmp_path)
        assert status == 0, err
        assert len(server.asked) == asked
    assert "3 pairs, 2 with an explanation" in out and "wrote vcr" in out
    named = {"train.jsonl", "validation.jsonl", "test.jsonl", "annotations.jsonl", "README.md", "statistics.json"}
    found = {file.name for file in (tmp_path / "vcr").iterdir()}
    assert named == {name for name in found if not name.endswith(".svg")} and found > named
    lines = [line for part in ("train", "validation", "test") for line in (tmp_path / "vcr" / f"{part}.jsonl").open()]
    assert len(lines) == 6
