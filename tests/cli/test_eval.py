"""`visa-proxy eval` as a command: killed and started again, interrupted, refused; and the commands of its page."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from click.testing import CliRunner

from tests.evaluation.samples import some_cases, write_cases
from tests.fakes.http import closed_port, until
from tests.fakes.pages import blocks, files
from tests.fakes.rewriter import FakeRewriter, asked_text, reply, thrilled
from visa_proxy.cli.main import cli
from visa_proxy.evaluation.cases import bundled
from visa_proxy.evaluation.rows import read_rows
from visa_proxy.rewriter.chat import BUNDLED_MODEL

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evaluation.md"
COUNT, AT_ONCE = 16, 2
START_S = 90.0
HUSH = "sk-hush-of-the-rewriter"


async def started(*words: str, cwd: Path) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    env = {**os.environ, "HUSH": HUSH, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "visa_proxy", "eval", *words]
    return await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=env, cwd=cwd
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(START_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    assert HUSH not in out.decode() + err.decode()
    return process.returncode, out.decode(), err.decode()


async def ran(*words: str) -> tuple[int, str, str]:
    """In this process, which saves loading torch again; the loop of the command is not that of the servers here."""
    result = await asyncio.to_thread(CliRunner().invoke, cli, ["eval", *words])
    assert HUSH not in result.output
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Relative paths are of a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HUSH", HUSH)
    return tmp_path


def arguments(folder: Path, url: str, out: str = "out") -> list[str]:
    file = folder / "cases.jsonl"
    if not file.exists():
        write_cases(file, some_cases(COUNT))
    place = ["--cases", str(file), "--out", str(folder / out), "--concurrency", str(AT_ONCE)]
    return ["rewrite", "--system", f"ours=rewriter:{url}#m", "--system", "echo=echo", "--against", "echo", *place]


def slow(rewriter: FakeRewriter, pause_s: float) -> None:
    async def answer(request: web.Request, raw: bytes) -> web.StreamResponse:
        await asyncio.sleep(pause_s)
        return web.json_response(reply(thrilled(asked_text(orjson.loads(raw)))))

    rewriter.answer = answer


def output(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "rows.jsonl"}


async def test_killed_and_started_again_it_ends_as_if_undisturbed(rewriter: FakeRewriter, tmp_path: Path) -> None:
    slow(rewriter, 0.3)
    rows = tmp_path / "out" / "rows.jsonl"
    process = await started(*arguments(tmp_path, rewriter.url), cwd=tmp_path)
    await until(lambda: rows.exists() and rows.read_bytes().count(b"\n") >= 4, START_S, "some rows")
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    done = {row["case"] for row in read_rows(rows)[0]}
    assert 4 <= len(done) < COUNT and not (tmp_path / "out" / "report.md").exists()

    slow(rewriter, 0)
    status, out, err = await ran(*arguments(tmp_path, rewriter.url))
    assert status == 0, err
    assert "ours: joint success" in out and "report.md" in out
    asked = Counter(asked_text(body) for body in rewriter.asked)
    assert len(asked) == COUNT and sum(asked.values()) <= COUNT + AT_ONCE

    status, _, err = await ran(*arguments(tmp_path, rewriter.url, "quiet"))
    assert status == 0, err
    assert output(tmp_path / "out") == output(tmp_path / "quiet")
    assert {"report.md", "pareto.svg", "deviations.svg", "success.svg"} == set(output(tmp_path / "out"))


@pytest.mark.timeout(200)
async def test_ctrl_c_keeps_what_there_is(rewriter: FakeRewriter, tmp_path: Path) -> None:
    slow(rewriter, 0.3)
    rows = tmp_path / "out" / "rows.jsonl"
    process = await started(*arguments(tmp_path, rewriter.url), cwd=tmp_path)
    await until(lambda: rows.exists() and rows.read_bytes().count(b"\n") >= 3, START_S, "some rows")
    process.send_signal(signal.SIGINT)
    status, _, err = await ended(process)
    done = len(read_rows(rows)[0])
    assert status == 130 and f"stopped: {done} of {2 * COUNT} rows are done and kept" in err and "Traceback" not in err


async def test_the_bundled_cases_are_written_again(tmp_path: Path) -> None:
    status, out, err = await ran("cases", "--out", str(tmp_path / "cases.jsonl"), "--seed", "0")
    assert status == 0, err
    assert "300 cases on 65 topics" in out
    assert (tmp_path / "cases.jsonl").read_bytes() == bundled().read_bytes()


BAD = {
    "spec": (["--system", "a=magic"], "--system a: found 'magic'"),
    "against": (["--system", "a=echo", "--against", "b"], "--against: found 'b', allowed: a"),
    "key of nobody": (["--system", "a=echo", "--api-key-env", "HUSH"], "no system has a URL"),
    "key for all": (
        ["--system", "a=rules:http://h/v1#m", "--system", "b=rules:http://i/v1#m", "--api-key-env", "HUSH"],
        "NAME=VARIABLE",
    ),
    "key not set": (["--system", "a=rules:http://h/v1#m", "--api-key-env", "a=VISA_NO_SUCH"], "VISA_NO_SUCH is not set"),
    "lexicon": (["--system", "a=echo", "--lexicon", ".", "--limit", "1"], "pyvalues-dictionary: there is no such file or folder"),
    "fluency": (["--system", "a=echo", "--fluency", "."], "--fluency: found no config"),
    "model": (["--system", "a=model:."], "--system a: found no config"),
}


@pytest.mark.parametrize(("words", "problem"), BAD.values(), ids=BAD)
async def test_what_is_wrong_is_said_once(tmp_path: Path, words: list[str], problem: str) -> None:
    write_cases(tmp_path / "cases.jsonl", some_cases(3))
    status, _, err = await ran("rewrite", "--out", "out", *words)
    assert status == 2 and problem in err and "Traceback" not in err


async def test_wrong_cases_are_named_before_anybody_is_asked(rewriter: FakeRewriter, tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").write_text('{"id": "a"}\n')
    status, _, err = await ran(*arguments(tmp_path, rewriter.url))
    assert status == 2 and "line 1: topic: found" in err and not rewriter.asked


async def test_a_server_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    status, _, err = await ran(*arguments(tmp_path, f"http://127.0.0.1:{closed_port()}/v1"))
    assert status == 2 and "--system ours: it cannot be reached; is its URL right?" in err and "Traceback" not in err


@pytest.mark.timeout(300)
async def test_the_commands_of_the_page(rewriter: FakeRewriter, tmp_path: Path) -> None:
    """Those that need no more than a server behind a URL."""
    for name, text in files(PAGE).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    rewriter.rule = lambda text: f"<answer>{thrilled(text)}</answer>"
    commands = [block.text for block in blocks(PAGE) if block.language == "bash"]
    assert len(commands) == 5
    for name in ("sft", "grpo"):
        shutil.copytree(BUNDLED_MODEL, tmp_path / "runs" / name)
    for command in commands:
        words = shlex.split(command.replace("\\\n", " ").replace("http://127.0.0.1:8001/v1", rewriter.url))
        assert words[:2] == ["visa-proxy", "eval"]
        if words[2] == "rewrite":
            words += ["--limit", "2"]
        status, _, err = await ran(*words[2:])
        assert status == 0, f"{command}\n{err}"
    assert (tmp_path / "runs" / "eval" / "report.md").exists() and (tmp_path / "runs" / "sizes" / "sizes.svg").exists()
