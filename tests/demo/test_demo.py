"""The main job, end to end: the official client, three tenants, verified answers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.demo.conftest import ROOT, Demo
from visa_proxy.demo.base import MODEL, load_entries
from visa_proxy.policy.document import parse_document
from visa_proxy.policy.load import build_tenant

TENANTS = ("acme-outdoors", "hartwell-mutual", "pebble-and-friends")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def client(demo: Demo, tenant: str = "acme-outdoors") -> OpenAI:
    return OpenAI(base_url=f"{demo.url}/v1", api_key=f"sk-{tenant}-demo", max_retries=0, timeout=60)


def ask(demo: Demo, question: str, tenant: str = "acme-outdoors", **headers: str) -> ChatCompletion:
    return client(demo, tenant).chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": question}], extra_headers=headers
    )


def text(reply: ChatCompletion) -> str:
    return reply.choices[0].message.content or ""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_three_tenants_three_verified_answers(demo: Demo) -> None:
    base = load_entries()[0]
    replies = {tenant: ask(demo, base.question, tenant) for tenant in TENANTS}
    assert len({text(reply) for reply in replies.values()} | {base.answer}) == 4
    for reply in replies.values():
        visa = (reply.model_extra or {})["visa"]
        assert visa["status"] == "adapted", visa
        assert visa["similarity"]["after"] > visa["similarity"]["before"]
        assert visa["consistency"] >= 0.6


def test_readme_client_call_runs(demo: Demo) -> None:
    code = blocks("python")[0].replace("127.0.0.1:8080", f"127.0.0.1:{demo.port}")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    assert printed.getvalue().count("adapted") == len(TENANTS)


def test_readme_policy_is_valid() -> None:
    policy = next(block for block in blocks("yaml") if block.startswith("tenant:"))
    tenant = build_tenant(parse_document(Path("README.md"), policy))
    assert set(tenant.profiles) == {"bold", "kind", "off"}


def test_readme_config_is_valid(tmp_path: Path) -> None:
    config = next(block for block in blocks("yaml") if block.startswith("server:"))
    (tmp_path / "visa.yaml").write_text(config)
    done = subprocess.run([sys.executable, "-m", "visa_proxy", "check", str(tmp_path / "visa.yaml")], check=False)
    assert done.returncode == 0
    assert set(yaml.safe_load(config)) == {"server", "policies", "bases", "rewriter"}


@pytest.mark.parametrize(
    "command", [line for block in blocks("bash") for line in block.splitlines() if line.startswith("visa-proxy ")]
)
def test_readme_commands_run(tmp_path: Path, command: str) -> None:
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    done = subprocess.run(
        f"{sys.executable} -m visa_proxy {command.removeprefix('visa-proxy ')}",
        shell=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert targets >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_a_paraphrase_gets_the_same_base_answer(demo: Demo) -> None:
    base = load_entries()[0]
    reply = ask(demo, base.paraphrases[0], **{"X-Visa-Profile": "off"})
    assert text(reply) == base.answer


def test_an_unknown_question_gets_an_honest_answer(demo: Demo) -> None:
    reply = ask(demo, "Who won the chess olympiad of 1972 and with which opening?", **{"X-Visa-Profile": "off"})
    assert "only know these topics" in text(reply)


def test_profile_by_model_suffix(demo: Demo) -> None:
    entry = load_entries()[1]
    reply = client(demo).chat.completions.create(model=f"{MODEL}@off", messages=[{"role": "user", "content": entry.question}])
    assert text(reply) == entry.answer


def test_an_instruction_is_translated(demo: Demo) -> None:
    reply = ask(demo, load_entries()[0].question, **{"X-Visa-Instruction": "Make this much more daring and adventurous."})
    visa = (reply.model_extra or {})["visa"]
    assert visa["instruction_confidence"] > 0.5
    assert visa["values"]["target"]["stimulation"] > visa["values"]["before"]["stimulation"]


def streamed(demo: Demo, question: str, tenant: str) -> tuple[list[ChatCompletionChunk], str]:
    """The chunks of a streamed answer, and its X-Visa-Stream-Mode."""
    raw = client(demo, tenant).chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": question}], stream=True, stream_options={"include_usage": True}
    )
    return list(raw.parse()), raw.headers["x-visa-stream-mode"]


def joined(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_a_full_stream_says_what_the_whole_answer_says(demo: Demo) -> None:
    question, tenant = load_entries()[0].question, "hartwell-mutual"
    chunks, mode = streamed(demo, question, tenant)
    assert mode == "full"
    assert joined(chunks) == text(ask(demo, question, tenant))
    assert (chunks[-1].model_extra or {})["visa"]["status"] == "adapted"
    assert chunks[-1].usage is not None


def test_a_stream_comes_in_windows(demo: Demo) -> None:
    """Each window is a rewrite or the base's own text, and the last one is there in full."""
    entry = load_entries()[0]
    chunks, mode = streamed(demo, entry.question, "acme-outdoors")
    assert mode == "window"
    visa = (chunks[-1].model_extra or {})["visa"]
    assert visa["status"] == "adapted"
    assert visa["windows"]["total"] >= 2
    assert sum(count for status, count in visa["windows"].items() if status != "total") == visa["windows"]["total"]
    spoken = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(spoken) >= visa["windows"]["total"]
    said = joined(chunks)
    assert said != entry.answer
    assert len(said) > 0.8 * len(entry.answer)
    assert said[-1] in ".!?"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None


async def test_killing_the_rewriter_costs_no_answer(demo: Demo) -> None:
    """20 requests under way when the child dies: all answered with the base's text; the child comes back, and so do rewrites."""
    entries = load_entries()[:20]
    children = AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="sk-pebble-and-friends-demo", max_retries=0, timeout=60)

    async def one(question: str) -> ChatCompletion:
        return await children.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": question}])

    asked = [asyncio.create_task(one(entry.question)) for entry in entries]
    await asyncio.sleep(0.3)
    os.kill(demo.rewriter_pid(), signal.SIGKILL)
    replies = await asyncio.gather(*asked)
    statuses = [(reply.model_extra or {})["visa"]["status"] for reply in replies]
    assert "fallback:rewriter-unavailable" in statuses
    # Those that were under way may have been answered before, refused, or, on a busy machine, too late.
    assert all(status == "adapted" or status.startswith("fallback:") for status in statuses), statuses
    for entry, reply, status in zip(entries, replies, statuses, strict=True):
        assert status == "adapted" or text(reply) == entry.answer
    deadline = time.monotonic() + 90
    while not demo.ready():
        assert time.monotonic() < deadline, demo.log.read_text()
        await asyncio.sleep(0.2)
    later = await one(entries[0].question)
    assert (later.model_extra or {})["visa"]["status"] == "adapted"
    await children.close()
