"""visa.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import (
    BUNDLED,
    ComponentConfig,
    Endpoint,
    Inner,
    Launch,
    LiteLLM,
    load_config,
    missing_folders,
    parse_config,
    read_config,
    store_of,
)
from visa_proxy.policy.spaces import named_spaces

FULL = """\
server: {host: 0.0.0.0, port: 9000, admin_key_env: ADMIN}
policies: tenants
bases:
  default: {url: "http://127.0.0.1:8000/v1/", api_key_env: BASE, timeout_s: 30, model: m}
rewriter: {url: "http://127.0.0.1:8001/v1", model: visa-rewriter}
detector: {kind: encoder, path: weights/detector}
"""
MINIMAL = 'bases: {default: {url: "http://127.0.0.1:8000/v1"}}\n'


def space(name: str) -> str:
    """Of one dimension."""
    return f"name: {name}\ndimensions: [{{name: {name}_1, title: T, goal: g}}]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "visa.yaml"
    path.write_text(text)
    return path


def problems_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    return str(caught.value)


def test_full_config_has_secrets_and_absolute_paths(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FULL), {"ADMIN": "hush-a", "BASE": "hush-b"})
    assert config.bases["default"] == Endpoint("http://127.0.0.1:8000/v1", "m", "hush-b", timeout_s=30)
    assert (config.host, config.port, config.admin_key) == ("0.0.0.0", 9000, "hush-a")
    assert config.policies == tmp_path / "tenants"
    assert config.detector.path == str(tmp_path / "weights/detector") and config.translator.path == BUNDLED
    assert config.rewriter.endpoint is not None and config.rewriter.endpoint.model == "visa-rewriter"
    assert config.rewriter.style == "full" and config.rewriter.launch is None
    assert "hush" not in repr(config)


def test_minimal_config_launches_the_bundled_rewriter(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL), {})
    assert config.rewriter.launch == Launch() and config.rewriter.style == "compact"
    assert (config.body_mb, config.admin_key) == (4, None)
    assert config.policies == tmp_path / "policies"


def test_every_missing_variable_is_named_with_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    read_config(path)
    message = problems_of(path)
    assert f"{path}:1:52: server.admin_key_env: environment variable ADMIN is not set" in message
    assert "bases.default.api_key_env: environment variable BASE is not set" in message


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("sqlite:///data/visa.db", "sqlite:///{here}/data/visa.db"),
        ("sqlite:///~/visa.db", "sqlite:///{home}/visa.db"),
        ("sqlite:////var/lib/visa.db", "sqlite:////var/lib/visa.db"),
        ("postgresql://h/d", "postgresql://h/d"),
    ],
)
def test_the_store_is_the_server_s_whether_variables_are_set_or_not(tmp_path: Path, given: str, found: str) -> None:
    path = write(tmp_path, FULL + f"store: {given}\n")
    assert "ADMIN is not set" in problems_of(path)
    store = store_of(*parse_config(path))
    assert store == found.format(here=tmp_path, home=Path.home())
    assert store == load_config(path, {"ADMIN": "a", "BASE": "b"}).store


def test_a_vllm_with_adapters_is_launched(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    text = """
rewriter:
  model: house
  launch:
    engine: vllm
    model: models/mine
    adapters: {house: ./house, acme-bold: /voices/acme-bold}
    args: ["--max-model-len", "4096"]
"""
    rewriter = load_config(write(tmp_path, MINIMAL + text), {}).rewriter
    assert rewriter.launch == Launch("vllm", str(tmp_path / "models" / "mine"), args=("--max-model-len", "4096"))
    assert rewriter.adapters == {"house": tmp_path / "house", "acme-bold": Path("/voices/acme-bold")}
    assert (rewriter.model, rewriter.style) == ("house", "full")


def test_what_is_no_folder_is_a_name_on_a_hub(tmp_path: Path) -> None:
    text = MINIMAL + "rewriter: {launch: {engine: vllm, model: Qwen/Qwen3-0.6B, adapters: ./voices}}"
    rewriter = load_config(write(tmp_path, text), {}).rewriter
    assert rewriter.launch is not None
    assert (rewriter.launch.model, rewriter.adapters) == ("Qwen/Qwen3-0.6B", tmp_path / "voices")


def test_symlinks_stay_what_they_are(tmp_path: Path) -> None:
    """The interpreter of a virtual environment is one, and what an adapter's link points at changes with every version."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/usr/bin/env")
    (tmp_path / "1").mkdir()
    (tmp_path / "acme").symlink_to(tmp_path / "1")
    text = MINIMAL + "rewriter: {launch: {engine: vllm, model: a/b, python: bin/python, adapters: {acme: acme}}}\npolicies: acme"
    config = load_config(write(tmp_path, text), {})
    assert config.rewriter.launch is not None
    assert config.rewriter.launch.python == str(tmp_path / "bin" / "python")
    assert config.rewriter.adapters == {"acme": tmp_path / "acme"}
    assert config.policies == tmp_path / "acme"


def test_bases_by_litellm_and_inside_a_server(tmp_path: Path) -> None:
    text = "bases: {claude: {litellm: anthropic/x, api_key_env: K, timeout_s: 9}, own: {inner: true, model: m}}"
    bases = load_config(write(tmp_path, text), {"K": "hush"}).bases
    assert bases == {
        "claude": LiteLLM("anthropic/x", "claude", "hush", timeout_s=9),
        "own": Inner("m"),
    }
    assert "hush" not in repr(bases)


def test_detector_and_translator_behind_endpoints(tmp_path: Path) -> None:
    text = """
detector: {kind: judge, url: "http://j/v1/", model: big, api_key_env: K, timeout_s: 3, explain: true, spaces: [tone, ./spaces/brand]}
translator: {kind: llm, url: "http://t:9/v1", model: small}
"""
    (tmp_path / "spaces" / "brand").mkdir(parents=True)
    (tmp_path / "spaces" / "brand" / "space.yaml").write_text(space("brand"))
    config = load_config(write(tmp_path, MINIMAL + text), {"K": "hush"})
    assert config.detector == ComponentConfig(
        "judge",
        spaces=("tone", str(tmp_path / "spaces" / "brand")),
        endpoint=Endpoint("http://j/v1", "big", "hush", timeout_s=3),
        explain=True,
    )
    assert config.translator == ComponentConfig("llm", endpoint=Endpoint("http://t:9/v1", "small", timeout_s=10))
    assert "hush" not in repr(config)


@pytest.mark.parametrize("url", ["http://v:8000", "http://v:8000/", "http://v:8000/v1", "http://v:8000/v1/"])
def test_a_detector_on_vllm_is_at_the_root_of_the_server(tmp_path: Path, url: str) -> None:
    config = load_config(write(tmp_path, f'{MINIMAL}detector: {{kind: vllm, url: "{url}", model: m}}'), {})
    assert config.detector == ComponentConfig("vllm", endpoint=Endpoint("http://v:8000", "m", timeout_s=10))


def test_spaces_beside_the_first(tmp_path: Path) -> None:
    brand, own, server = tmp_path / "brand", tmp_path / "own.yaml", tmp_path / "server"
    for folder in (brand, server):
        folder.mkdir()
    for file in (brand / "space.yaml", own, server / "near.yml"):
        file.write_text(space(file.stem))
    path = write(server, MINIMAL + f"detector: {{spaces: [tone, inglehart-welzel, ../brand, {own}, near.yml]}}")
    expected = ("tone", "inglehart-welzel", str(brand), str(own), str(server / "near.yml"))
    assert load_config(path, {}).detector == ComponentConfig("encoder", spaces=expected)
    assert read_config(path).detector.spaces == ("tone", "inglehart-welzel", "../brand", str(own), "near.yml")
    assert load_config(write(tmp_path, MINIMAL), {}).detector == ComponentConfig("encoder", spaces=())


@pytest.mark.parametrize(
    ("spaces", "column", "problem"),
    [
        ("ton", 21, "unknown value space 'ton'; allowed: inglehart-welzel, schwartz, tone, or a folder"),
        ("tone, ton", 27, "unknown value space 'ton'"),
        ("tone, ./nope", 27, "there is no such folder or file"),
        ("./brand, ~nouser/x", 30, "/~nouser/x': there is no such folder or file"),
        (f"./{'x' * 1500}", 21, "…': there is no such folder or file"),
        ("tone, tone", 27, "'tone' is listed twice; list each once"),
        ("./brand, ./brand/", 30, "'./brand/' is listed twice"),
        ("brand/, ../server/brand/space.yaml", 29, "'../server/brand/space.yaml' is listed twice"),
        ("brand/, link/", 29, "'link/' is listed twice"),
        ("tone, ./copy.yaml", 27, "two value spaces are called 'tone'; their names must differ"),
        ("./brand, ./same.yaml", 30, "both have a dimension 'brand_1'; names must differ"),
    ],
)
def test_a_value_space_that_cannot_be_had_is_named_with_its_place(tmp_path: Path, spaces: str, column: int, problem: str) -> None:
    server = tmp_path / "server"
    (server / "brand").mkdir(parents=True)
    (server / "link").symlink_to(server / "brand")
    (server / "brand" / "space.yaml").write_text(space("brand"))
    (server / "copy.yaml").write_text(space("copy").replace("name: copy", "name: tone", 1))
    (server / "same.yaml").write_text(space("same").replace("same_1", "brand_1"))
    path = write(server, MINIMAL + f"detector: {{spaces: [{spaces}]}}")
    message = problems_of(path)
    assert message.startswith(f"{path}:2:{column}: detector.spaces: ") and problem in message and "\n" not in message
    with pytest.raises(ConfigError) as caught:
        named_spaces(path)
    assert caught.value.problems == [message]


def test_what_is_wrong_inside_of_a_space_has_its_place_there(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\n")
    assert problems_of(write(tmp_path, MINIMAL + "detector: {spaces: [./bad.yaml]}")) == (
        f"{tmp_path}/bad.yaml:1:1: dimensions: required key is missing"
    )


@pytest.mark.parametrize("path", ["~nouser/x", "~nouser", f"./{'x' * 1500}", f"{'x' * 1500}"])
def test_paths_that_lead_nowhere_are_not_followed(tmp_path: Path, path: str) -> None:
    text = (
        f"detector: {{path: {path}}}\nrewriter: {{launch: {{engine: vllm, model: {path}, adapters: {path}}}}}\npolicies: {path}"
    )
    config = load_config(write(tmp_path, f"{MINIMAL}{text}"), {})
    assert config.detector.path == str(config.policies) == str(tmp_path / path)


def test_weights_that_are_not_there_are_named_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    text = "detector: {path: ./nope}\ntranslator: {path: here}\nfacts: {path: ~nouser/x}\n"
    path = write(tmp_path, MINIMAL + text)
    assert missing_folders(*parse_config(path)) == [
        f"{path}:2:18: detector.path: there is no folder './nope'; allowed: a folder of weights, bundled, or hf://owner/name",
        f"{path}:4:15: facts.path: there is no folder '~nouser/x'; allowed: a folder of weights, bundled, or hf://owner/name",
    ]
    path = write(tmp_path, MINIMAL + 'detector: {path: "hf://a/b@c"}\ntranslator: {kind: llm, url: "http://h", model: m}\n')
    assert missing_folders(*parse_config(path)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bases: {default: {model: x}}", "1:18: bases.default: found none of them; allowed: exactly one of url, litellm, inner"),
        (
            'bases: {default: {url: "http://h/v1", litellm: anthropic/x}}',
            "1:18: bases.default: found url and litellm; allowed: exactly one of url, litellm, inner",
        ),
        ('bases: {default: {url: "http://h/v1", api_base: "http://h"}}', "1:18: bases.default: api_base goes with litellm"),
        ("bases: {default: {inner: false}}", "bases.default.inner: found false, allowed: true"),
        ("bases: {}", "1:8: bases: found a mapping, allowed: it should have at least 1 item"),
        ('bases: {b: {url: "ftp://x"}}', "1:18: bases.b.url: found 'ftp://x', allowed: an http:// or https:// URL"),
        ('bases: {b: {url: "http://u:hush@h/v1"}}', "1:18: bases.b.url: no credentials in URLs"),
        ('bases: {b: {url: "http://h/v1", api_key_env: sk-hush}}', "bases.b.api_key_env: allowed: the NAME of an"),
        (MINIMAL + "detector: {kind: oracle}", "2:18: detector.kind: found 'oracle', allowed: 'encoder', 'judge', 'vllm'"),
        (MINIMAL + "detector: {kind: [judge]}", "2:18: detector.kind: found a list, allowed: 'encoder', 'judge', 'vllm'"),
        (MINIMAL + "detector: {kind: llm}", "detector.kind: found 'llm', allowed: 'encoder', 'judge', 'vllm'"),
        (MINIMAL + "translator: {kind: judge}", "2:20: translator.kind: found 'judge', allowed: 'encoder', 'llm'"),
        (MINIMAL + "detector: judge", "2:11: detector: found 'judge', allowed: a mapping of the keys kind, path, spaces"),
        (MINIMAL + "detector: {kind: judge, model: m}", "2:11: detector.url: required key is missing"),
        (MINIMAL + 'detector: {kind: vllm, url: "http://h"}', "2:11: detector.model: required key is missing"),
        (MINIMAL + 'detector: {url: "http://h/v1"}', "2:12: detector.url: unknown key; allowed: kind, path, spaces"),
        (MINIMAL + 'detector: {kind: encoder, url: "http://h"}', "2:27: detector.url: unknown key; allowed: kind, path, spaces"),
        (
            MINIMAL + 'detector: {kind: judge, url: "http://h/v1", model: m, path: x}',
            "detector.path: unknown key; allowed: kind, url, model, api_key_env, timeout_s, spaces, explain",
        ),
        (
            MINIMAL + 'detector: {kind: vllm, url: "http://h", model: m, spaces: [tone]}',
            "detector.spaces: unknown key; allowed: kind, url, model, api_key_env, timeout_s",
        ),
        (
            MINIMAL + 'translator: {kind: llm, url: "http://h", model: m, explain: true}',
            "translator.explain: unknown key; allowed: kind, url, model, api_key_env, timeout_s",
        ),
        (MINIMAL + "translator: {spaces: [tone]}", "translator.spaces: unknown key; allowed: kind, path"),
        (MINIMAL + "detector: {spaces: tone}", "detector.spaces: found 'tone', allowed: a list: [a, b] or one `- a` a line"),
        (
            MINIMAL + 'detector: {kind: judge, url: "http://h", model: m, timeout_s: 0}',
            "detector.timeout_s: found 0, allowed: a number > 0 and ≤ 86400",
        ),
        (MINIMAL + 'detector: {kind: vllm, url: "http://u:hush@h", model: m}', "detector.url: no credentials in URLs"),
        (
            MINIMAL + 'translator: {kind: llm, url: "http://h", model: m, api_key_env: sk-hush}',
            "translator.api_key_env: allowed: the NAME of an environment variable",
        ),
        (
            MINIMAL + 'translator: {kind: llm, url: "http://h", model: m, api_key_env: MISSING}',
            "translator.api_key_env: environment variable MISSING is not set",
        ),
        (MINIMAL + 'rewriter: {url: "http://h/v1"}', "2:11: rewriter: needs model"),
        (MINIMAL + "rewriter: {model: x}", "2:11: rewriter: found none of them; allowed: exactly one of url, launch, inner"),
        (
            MINIMAL + "rewriter: {launch: {engine: sglang}}",
            "2:29: rewriter.launch.engine: found 'sglang', allowed: 'transformers' or 'vllm'",
        ),
        (MINIMAL + "rewriter: {launch: {adapters: ./a}}", "rewriter.launch: adapters goes with engine: vllm, not with transf"),
        (MINIMAL + "rewriter: {launch: {}, model: x}", "2:11: rewriter: model goes with url and with engine: vllm"),
        (MINIMAL + "rewriter: {launch: {engine: vllm}, adapters: ./a}", "stand in launch.adapters"),
        (
            MINIMAL + 'rewriter: {launch: {engine: vllm, args: ["--enforce-eager", "--api_key=hush"]}}',
            "rewriter.launch.args: --api-key is set by nobody",
        ),
        (
            MINIMAL + 'rewriter: {launch: {engine: vllm, args: ["--por", "1"]}}',
            "rewriter.launch.args: --port is set by launch.port",
        ),
        ("bases: {default: {litellm: gpt}}", "bases.default.litellm: found 'gpt', allowed: provider/model"),
        (
            MINIMAL + "rewriter: {launch: {engine: vllm, args: [--port, 1]}}",
            "rewriter.launch.args[1]: found 1, allowed: text",
        ),
        (MINIMAL + "server: {port: 70000}", "2:16: server.port: found 70000, allowed: a whole number"),
        (MINIMAL + "store: mysql://x", "2:8: store: store 'mysql' is not available in this version"),
        (MINIMAL + "tenant: x", "2:1: tenant: unknown key; allowed: server, policies, bases"),
        (MINIMAL + r'"a\e]0;b\a\nc": x', r"2:1: a\x1b]0;b\x07\nc: unknown key; allowed: server"),
        (MINIMAL + r"store: !%1B%0A x", r"2:8: store: the tag !\x1b\n is not allowed here"),
        (MINIMAL + r'"a\e": {"b\u2028": 1, "b\u2028": 2}', r"2:23: a\x1b.b\u2028: this key is already set at line 2, column 9"),
    ],
)
def test_broken_configs_are_named_with_place_key_and_reason(tmp_path: Path, text: str, expected: str) -> None:
    message = problems_of(write(tmp_path, text))
    assert expected in message
    assert "hush" not in message
