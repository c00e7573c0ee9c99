"""`visa-proxy serve` that cannot: one line that says why, status 2, and nothing started before."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.http import HOST, closed_port
from tests.fakes.policies import plain, policy, write

BASE = 'bases: {default: {url: "http://127.0.0.1:9/v1"}}\n'


def serve(folder: Path, config: str, *, port: int = 0, text: str, environ: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and what was said, logs of policies aside."""
    (folder / "policies").mkdir(exist_ok=True)
    write(folder / "policies", text)
    (folder / "visa.yaml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "visa_proxy", "serve", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=100,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if " INFO " not in line and "Loading weights" not in line]
    return done.returncode, "\n".join(said)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("bases: {default: {inner: true}}", "bases.default: inner: true is for a proxy that runs inside vLLM"),
        (BASE + "rewriter: {launch: {engine: vllm, model: m, python: ./nope}}", "rewriter.launch.python: there is no program"),
        (BASE + 'policies: "a\\0b"', "policies: found 'a\\x00b', allowed: text that is not blank"),
        (BASE + "server: {port: 8080}\nrewriter: {launch: {port: 8080}}", "server.port and rewriter.launch.port are both 8080"),
    ],
)
def test_what_is_wrong_with_a_config_is_one_line(tmp_path: Path, config: str, expected: str) -> None:
    status, said = serve(tmp_path, config, text=policy())
    assert (status, said.count("\n")) == (2, 0), said
    assert expected in said


def test_a_port_that_is_taken_is_said_before_any_model_is_loaded(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        config = BASE + f'rewriter: {{url: "http://{HOST}:{closed_port()}/v1", model: m}}'
        status, said = serve(tmp_path, config, port=port, text=policy())
    assert (status, said) == (2, f"visa-proxy: server: cannot listen on 127.0.0.1:{port}: Address already in use")


def test_what_turns_out_to_be_wrong_at_the_start_is_one_line_too(tmp_path: Path) -> None:
    status, said = serve(tmp_path, "bases: {default: {litellm: nobody/x}}", text=plain())
    assert status == 2 and "Traceback" not in said
    assert "'nobody/x' names no provider that LiteLLM knows" in said


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "notaurl", "found 'notaurl'; allowed: an http:// or https:// URL"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "found 'zipkin'; allowed: otlp, none"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-3", "an environment variable OTEL_*"),
    ],
)
def test_wrong_variables_for_traces(tmp_path: Path, name: str, value: str, expected: str) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", name: value}
    status, said = serve(tmp_path, BASE, text=plain(), environ=given)
    assert status == 2 and "Traceback" not in said
    assert expected in said
