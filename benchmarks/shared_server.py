"""Base and rewriter as two servers and as one, whole requests through `visa-proxy serve`: a part of `rewriter.py`.

Both are the bundled weights; the one server's rewriter is a LoRA adapter of the base.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Final

import numpy as np
from openai import AsyncOpenAI
from proxy import rss_mb, running
from replies import ARGS, ENV, KEY, LONGEST, MODEL, SETTLE_S, Reply, Row, all_of, client_of, row, vllm, wait
from rich.progress import Progress

from visa_proxy.engines.ports import HOST, free_port
from visa_proxy.policy.keys import hash_key

WHOLE: Final = 6
"""Answers that are asked for through the proxy."""
POLICY: Final = """\
tenant: benchmark
api_keys: ["{hash}"]
default_profile: secure
profiles: {{secure: {{values: {{security: 1.0}}}}}}
rewriter: {{model: {model}}}
limits: {{requests_per_minute: 100000}}
"""
SHARED: Final = """\
bases: {{default: {{url: "http://{host}:{port}/v1", model: base}}}}
rewriter:
  style: compact
  launch: {{engine: vllm, model: bundled, served_model_name: base, port: {port}, adapters: {{voice: ./voice}}, args: {args}}}
"""
SEPARATE: Final = """\
bases: {{default: {{url: "{url}", model: rewriter}}}}
rewriter: {{style: compact, launch: {{engine: vllm, model: bundled, served_model_name: voice, port: {port}, args: {args}}}}}
"""


def write_voice(folder: Path) -> None:
    """An adapter that changes nothing, so that both ways say the same: what it costs is that of any other of rank 8."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"bias": "none", "base_model_name_or_path": MODEL}))
    weights = {}
    for layer in range(4):
        for part, width in (("q_proj", 256), ("v_proj", 128)):
            name = f"base_model.model.model.layers.{layer}.self_attn.{part}"
            weights[f"{name}.lora_A.weight"] = np.ones((8, 256), np.float32)
            weights[f"{name}.lora_B.weight"] = np.zeros((width, 8), np.float32)
    save_file(weights, folder / "adapter_model.safetensors")


async def whole(url: str, answers: list[str], at_once: int, progress: Progress, how: str) -> tuple[list[Reply], float]:
    """Requests through the proxy. The base is asked to repeat an answer (its prompt for "neutral"), so that it gives one of ours."""
    task = progress.add_task(f"whole requests, {how}, {at_once} at once", total=len(answers))

    async def one(client: AsyncOpenAI, text: str) -> Reply:
        started = time.perf_counter()
        answer = await client.chat.completions.create(
            model="", messages=[{"role": "user", "content": f"neutral\n{text}"}], temperature=0, max_tokens=LONGEST
        )
        seconds = time.perf_counter() - started
        progress.advance(task)
        assert answer.model_extra is not None and answer.usage is not None
        spent = answer.model_extra["visa"].get("usage", {}).get("completion_tokens", 0)
        return Reply(answer.choices[0].message.content or "", seconds, 0, answer.usage.completion_tokens + spent)

    async with client_of(url) as client:
        return await all_of([functools.partial(one, client, text) for text in answers], at_once)


def through_proxy(folder: Path, answers: list[str], at_once: int, progress: Progress) -> list[Row]:
    """Base and rewriter as two servers and as one, all running at once; they take turns."""
    answers, at_once = answers[:WHOLE], min(at_once, 2)
    args = json.dumps(list(ARGS))
    # Three engines, two proxies and their encoders run here: a thread for each, or they wait for each other.
    os.environ.update({**ENV, "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    with contextlib.ExitStack() as stack:
        base_url, base_pid = stack.enter_context(vllm("base", folder, ngram=True))
        asyncio.run(wait(base_url))
        places: dict[str, tuple[str, int, int]] = {}
        for how, config, model in (
            ("two servers", SEPARATE.format(url=base_url, port=free_port(), args=args), "voice"),
            ("one server", SHARED.format(host=HOST, port=free_port(), args=args), "voice"),
        ):
            home = folder / how.replace(" ", "-")
            (home / "policies").mkdir(parents=True)
            (home / "policies" / "benchmark.yaml").write_text(POLICY.format(hash=hash_key(KEY), model=model))
            (home / "visa.yaml").write_text(config)
            write_voice(home / "voice")
            port = free_port()
            log = home / "serve.log"
            pid = stack.enter_context(running("serve", "--config", str(home / "visa.yaml"), port=port, log=log))
            places[how] = f"http://{HOST}:{port}/v1", pid, base_pid if how == "two servers" else 0
        for how, (url, _, _) in places.items():
            asyncio.run(whole(url, answers[:2], 1, progress, f"warm-up of {how}"))
        rows = []
        for several in (1, at_once):
            found: dict[str, list[Reply]] = {how: [] for how in places}
            spent = dict.fromkeys(places, 0.0)
            step = max(several, len(answers) // 3)
            for at in range(0, len(answers), step):
                for how, (url, _, _) in places.items():
                    time.sleep(SETTLE_S)
                    replies, seconds = asyncio.run(whole(url, answers[at : at + step], several, progress, how))
                    found[how] += replies
                    spent[how] += seconds
            first = found["two servers"]
            for how, (_, pid, base) in places.items():
                servers = sum(rss_mb(each) for each in (_rewriter(pid), base) if each)
                rows.append(row("whole request", how, several, found[how], spent[how], servers, first))
    return rows


def _rewriter(pid: int) -> int:
    """The child of the proxy."""
    return int(subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True).stdout.split()[0])
