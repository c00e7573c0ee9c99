"""A tenant's adapter from its policy to its clients: trained, loaded into a vLLM that runs, and asked for by that tenant alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import openai
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from tests.fakes.base import FakeBase
from tests.fakes.child import Child, tail
from tests.fakes.command import Command, serving_command
from tests.fakes.http import serving
from tests.fakes.pages import blocks
from tests.vllm.asking import CALL_S, ask, client_of, samples, undated, until_idle, visa_of
from tests.vllm.server import OFFLINE, START_S, serving_vllm
from visa_proxy.policy.keys import hash_key
from visa_proxy.rewriter.chat import BUNDLED_MODEL
from visa_proxy.rewriter.prompt import render
from visa_proxy.values import ValueVector, load_space

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

PAGE: Final = Path(__file__).parents[2] / "docs" / "training.md"
MODEL: Final = "rewriter"
ADAPTER: Final = "acme"
TRAINED: Final = "acme-outdoors"
"""The tenant and the adapter of the page."""
MAX_LENGTH: Final = 512
CLOSE: Final = 1e-3
"""Between log-probabilities of vLLM and of transformers, both in float32."""
FAR: Final = 0.1
"""What training has to change at least, so that two models cannot be taken for each other."""

TARGET: Final = ValueVector.of(load_space("schwartz"), {"security": 1.0})
ANSWERS: Final = (
    "Check the tyres before a long drive. Fill the tank in the evening.",
    "Rinse the rice in cold water. Let it simmer under a lid until it is soft.",
    "Water the fern when the soil feels dry. Keep it out of the midday sun.",
    "Fold the shirts on a table. Put the heavy ones at the bottom.",
    "Repeat the name when you hear it. Write it down after the meeting.",
    "Cover the floor with old sheets. Paint the corners first and the rest after.",
)
"""They express no value by themselves, so each is sent to the rewriter, and have no verbatim span, so each is sent as it is."""
POLICY: Final = """\
tenant: {tenant}
api_keys: ["{hash}"]
default_profile: secure
profiles:
  secure: {{mode: target, values: {{security: 1.0}}}}
shield: {{timeout_s: 60, candidates: 1, retries: 0, streaming: full, min_consistency: 0.3, on_failure: {on_failure}}}
rewriter: {rewriter}
"""
TENANTS: Final = {
    TRAINED: (f"{{model: {ADAPTER}}}", "original"),
    "strict": (f"{{model: {ADAPTER}}}", "error"),
    "pebble": ("{}", "original"),
}
CONFIG: Final = """\
bases:
  default: {{url: "{base}", model: sample}}
rewriter: {{url: "{vllm}/v1", model: {model}, style: compact}}
"""
RECIPE: Final = """\
# Few steps, each of them large: enough to be heard, and no more than a test may take. No held-out score, so the last weights are kept.
prompt: compact
max_prompt_tokens: 200
max_completion_tokens: 64
held: {rows: 0, every: 100}
reward: {scalarisation: gated, value: 3.0, gates: [form, length, placeholders]}
grpo:
  bf16: false
  gradient_checkpointing: false
  dataloader_pin_memory: false
  logging_steps: 1
  learning_rate: 4.0e-3
  beta: 0.0
  temperature: 1.0
  max_steps: 4
  num_generations: 8
  per_device_train_batch_size: 32
"""


@dataclass
class House:
    """vLLM with the adapter in it, and the proxy in front."""

    vllm: Child
    command: Command
    base: FakeBase
    adapter: Path
    before: list[bytes]
    """What the base model made of each of ANSWERS while there was no adapter."""
    known: list[str]
    """The models then."""

    def direct(self) -> openai.OpenAI:
        return client_of(self.vllm, "sk-nothing")

    async def hear(self, tenant: str, answer: str) -> tuple[str, str]:
        """(text, status) for a client of `tenant`, when the base says `answer`."""
        self.base.texts = [answer]
        async with openai.AsyncOpenAI(
            base_url=f"{self.command.url}/v1", api_key=f"sk-{tenant}", max_retries=0, timeout=CALL_S
        ) as client:
            completion = await client.chat.completions.create(model="", messages=ask("What now?"))
        return completion.choices[0].message.content or "", visa_of(completion)["status"]

    def ran(self) -> float:
        """When vLLM last worked for the adapter, by its own clock; 0 for never."""
        until_idle(self.vllm)
        found = samples(self.vllm, "vllm:lora_requests_info")
        return max((at for labels, at in found.items() if f'running_lora_adapters="{ADAPTER}"' in labels), default=0.0)


def page(word: str) -> str:
    """The one command of the page with this word in it."""
    (command,) = [block.text for block in blocks(PAGE) if block.language in ("sh", "shell") and word in block.text]
    return command


def load(vllm: Child, adapter: Path) -> None:
    _run(vllm, page("/load_lora_adapter").replace("/srv/models/acme", str(adapter)))


def unload(vllm: Child) -> None:
    _run(vllm, page("/unload_lora_adapter"))


def _run(vllm: Child, command: str) -> None:
    assert "http://127.0.0.1:8001" in command
    subprocess.run(["bash", "-ec", command.replace("http://127.0.0.1:8001", vllm.url)], timeout=CALL_S, check=True)


def models(client: openai.OpenAI) -> dict[str, Any]:
    """Of each the name of the one that it is an adapter of, or None."""
    return {model.id: (model.model_extra or {})["parent"] for model in client.models.list()}


def rewrite(client: openai.OpenAI, model: str, answer: str) -> Any:
    """The greedy rewrite that the proxy asks for, with log-probabilities; its body is the server's own."""
    messages: Any = render("compact", query="", text=answer, target=TARGET)
    return client.chat.completions.with_raw_response.create(
        model=model,
        messages=messages,
        temperature=0,
        max_tokens=96,
        logprobs=True,
        extra_body={"return_tokens_as_token_ids": True},
    )


def said(client: openai.OpenAI, model: str) -> list[str]:
    """The rewrite of each of ANSWERS."""
    return [rewrite(client, model, answer).parse().choices[0].message.content.strip() for answer in ANSWERS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a team has: policies, data, a recipe."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "policies").mkdir()
    for tenant, (rewriter, on_failure) in TENANTS.items():
        policy = POLICY.format(tenant=tenant, hash=hash_key(f"sk-{tenant}"), rewriter=rewriter, on_failure=on_failure)
        (folder / "policies" / f"{tenant}.yaml").write_text(policy)
    rows = [{"query": f"{number}?", "answer": answer, "instruction": "Safer."} for number, answer in enumerate(ANSWERS)]
    (folder / "triplets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def training(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command of the page, running while vLLM starts."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = f"exec {page(f'--tenant {TRAINED}').rstrip()} --recipe recipe.yaml"
    with (folder / "training.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-ec", command], cwd=folder, env={**os.environ, **OFFLINE, "PATH": path}, stdout=log, stderr=log
        )
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def vllm(training: subprocess.Popen[bytes], folder: Path) -> Iterator[Child]:
    env, log = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}, folder / "vllm.log"
    with serving_vllm(BUNDLED_MODEL, "--enable-lora", names=[MODEL], max_length=MAX_LENGTH, log=log, env=env) as child:
        yield child
        print(f"vLLM's log\n{tail(child.log)}")  # noqa: T201 - pytest shows it when a test failed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(training: subprocess.Popen[bytes], vllm: Child, folder: Path) -> AsyncIterator[House]:
    with client_of(vllm, "sk-nothing") as direct:
        known, before = list(models(direct)), [rewrite(direct, MODEL, answer).content for answer in ANSWERS]
    assert training.wait(START_S) == 0, tail(folder / "training.log")
    adapter = folder / "models" / "acme"
    load(vllm, adapter)
    base = FakeBase()
    async with serving(base.app()) as url:
        config = CONFIG.format(base=f"{url}/v1", vllm=vllm.url, model=MODEL)
        async with serving_command(folder, config, env=OFFLINE) as command:
            house = House(vllm, command, base, adapter, before, known)
            await _until_ready(command)
            yield house
            print(f"the proxy's log\n{tail(command.log)}")  # noqa: T201 - as above


async def _until_ready(command: Command) -> None:
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(OSError):
                if (await command.get("/readyz")).status == 200:
                    return
            assert command.process.returncode is None, tail(command.log)
            await asyncio.sleep(0.2)


async def test_the_base_beside_it_is_untouched(house: House) -> None:
    assert house.known == [MODEL]
    with house.direct() as client:
        assert models(client) == {MODEL: None, ADAPTER: MODEL}
        assert said(client, ADAPTER) != said(client, MODEL)
        after = [rewrite(client, MODEL, answer).content for answer in ANSWERS]
    assert [undated(body) for body in after] == [undated(body) for body in house.before]


async def test_vllm_computes_what_peft_computes(house: House) -> None:
    model, tokenizer = peft_model(house.adapter)
    apart = []
    with house.direct() as client:
        for answer in ANSWERS:
            tokens, found = spoken(rewrite(client, ADAPTER, answer).parse())
            adapted = logprobs(model, tokenizer, answer, tokens)
            chosen = adapted[np.arange(len(tokens)), tokens]
            np.testing.assert_allclose(found, chosen, atol=CLOSE)
            assert (adapted.max(axis=1) - chosen).max() <= CLOSE, "each token is the likeliest"
            with model.disable_adapter():
                untrained = logprobs(model, tokenizer, answer, tokens)
            apart.append(np.abs(untrained[np.arange(len(tokens)), tokens] - found).max())
            tokens, found = spoken(rewrite(client, MODEL, answer).parse())
            with model.disable_adapter():
                untrained = logprobs(model, tokenizer, answer, tokens)
            np.testing.assert_allclose(found, untrained[np.arange(len(tokens)), tokens], atol=CLOSE)
    assert min(apart) > FAR, "the adapter is heard in every one"


def peft_model(adapter: Path) -> tuple[Any, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(BUNDLED_MODEL, dtype=torch.float32)
    return PeftModel.from_pretrained(base, adapter).eval(), AutoTokenizer.from_pretrained(BUNDLED_MODEL)


def logprobs(model: Any, tokenizer: Any, answer: str, tokens: list[int]) -> NDArray[np.float64]:
    """Of the whole vocabulary at the place of each of `tokens`, which follow the prompt for `answer`."""
    import torch

    messages = render("compact", query="", text=answer, target=TARGET)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return np.asarray(torch.log_softmax(logits, dim=-1).tolist())


def spoken(completion: Any) -> tuple[list[int], NDArray[np.float64]]:
    """Tokens of an answer and their log-probabilities."""
    content = completion.choices[0].logprobs.content
    return [int(each.token.removeprefix("token_id:")) for each in content], np.asarray([each.logprob for each in content])


async def test_the_proxy_asks_for_it_for_that_tenant_only(house: House) -> None:
    with house.direct() as client:
        voice, others = said(client, ADAPTER), said(client, MODEL)
    ran = house.ran()
    assert await heard(house, "pebble", others, instead_of=voice), "nothing was told apart"
    assert house.ran() == ran, "the other tenant's request went to the adapter"
    assert await heard(house, TRAINED, voice, instead_of=others), "nothing was told apart"
    assert house.ran() > ran


async def heard(house: House, tenant: str, expected: list[str], *, instead_of: list[str]) -> list[str]:
    """The verified rewrites that `tenant` heard where two models say different things; they are those of the right one."""
    told = []
    for answer, text, other in zip(ANSWERS, expected, instead_of, strict=True):
        found, status = await house.hear(tenant, answer)
        assert found == (text if status == "adapted" else answer), status
        if status == "adapted" and text != other:
            told.append(found)
    return told


async def test_without_it_the_tenant_has_what_its_policy_says_and_others_notice_nothing(house: House) -> None:
    before = {tenant: [await house.hear(tenant, answer) for answer in ANSWERS] for tenant in ("pebble", TRAINED)}
    ran = house.ran()
    unload(house.vllm)
    try:
        with house.direct() as client:
            assert models(client) == {MODEL: None}
        lost = [(answer, "fallback:rewriter-unknown-model") for answer in ANSWERS]
        assert [await house.hear(TRAINED, answer) for answer in ANSWERS] == lost
        with pytest.raises(openai.InternalServerError) as caught:
            await house.hear("strict", ANSWERS[0])
        assert (caught.value.status_code, caught.value.code) == (502, "rewrite_unverified")
        assert "rewriter-unknown-model" in caught.value.message
        assert [await house.hear("pebble", answer) for answer in ANSWERS] == before["pebble"]
        assert house.ran() == ran
    finally:
        load(house.vllm, house.adapter)
    assert [await house.hear(TRAINED, answer) for answer in ANSWERS] == before[TRAINED]
