"""visa.yaml as the file says it. `config` holds what the server uses at run time."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from visa_proxy.policy.problems import refusal
from visa_proxy.policy.schema import Name, Seconds, Strict, Text


def _env_name(value: Any) -> str:
    """Never repeats its input: people paste the secret here."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise refusal("allowed: the NAME of an environment variable (letters, digits, _), never the secret itself")
    return value


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if "@" in value:
        raise refusal("no credentials in URLs: name an environment variable with api_key_env")
    if not good or parts.query or parts.fragment:
        raise ValueError("allowed: an http:// or https:// URL without query, such as http://127.0.0.1:8000/v1")
    return value


def _store_url(value: str) -> str:
    raise refusal(f"store {value.partition(':')[0]!r} is not available in this version: nothing is stored; leave the key out")


def _served_kind(kind: str) -> str:
    if kind != "encoder":
        raise refusal(f"kind {kind!r} is not available in this version; use encoder")
    return kind


EnvName = Annotated[str, BeforeValidator(_env_name)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class ServerFile(Strict):
    """Where the proxy listens."""

    host: Text = "127.0.0.1"
    """Address to bind; 0.0.0.0 for all."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """TCP port; 0: a free one."""
    admin_key_env: EnvName | None = None
    """Variable with the key that shows the problems of policies in /readyz to others than loopback."""
    body_mb: Annotated[float, Field(gt=0, le=64, allow_inf_nan=False)] = 4.0
    """Largest request body in MiB."""
    drain_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 30.0
    """Seconds that requests in flight may take after SIGTERM."""


class BaseFile(Strict):
    """A base model, frozen, behind any OpenAI-compatible server."""

    url: HttpUrl
    """Ends before /chat/completions, usually in /v1."""
    api_key_env: EnvName | None = None
    """Variable with the base's API key."""
    timeout_s: Seconds = 600.0
    """Seconds to wait for an answer, and between two parts of a streamed one."""
    model: Text | None = None
    """Used when a request names no model."""

    @model_validator(mode="before")
    @classmethod
    def _no_litellm(cls, data: Any) -> Any:
        if isinstance(data, dict) and "litellm" in data:
            raise refusal("litellm is not available in this version; give the url of an OpenAI-compatible server")
        return data


class LaunchFile(Strict):
    """A rewriter started as a child process."""

    engine: Literal["transformers"] = "transformers"
    """transformers: `transformers serve`. A vLLM server is started apart, and its url given."""
    model: Text = "bundled"
    """Folder of a model, or the word bundled."""
    port: Annotated[int | None, Field(ge=1, le=65_535)] = None
    """TCP port; default: a free one."""
    start_timeout_s: Seconds = 120.0
    """Seconds until it must answer."""


class RewriterFile(Strict):
    """The rewriter: the url of a running server, or launch. Default: the bundled model, launched."""

    url: HttpUrl | None = None
    """Ends before /chat/completions, usually in /v1."""
    model: Text | None = None
    """Model or LoRA adapter asked for. Required with url."""
    api_key_env: EnvName | None = None
    """Variable with the server's API key."""
    timeout_s: Seconds = 60.0
    """Seconds for one rewrite, where the policy's own limit is longer."""
    style: Literal["full", "compact"] | None = None
    """Prompt: full for instruction-tuned models, compact for the bundled one. Default: whichever fits."""
    launch: LaunchFile | None = None
    """Start one instead."""

    @model_validator(mode="after")
    def _one_of(self) -> RewriterFile:
        if (self.url is None) == (self.launch is None):
            raise refusal("allowed: either url (a running server) or launch (start one), exactly one of them")
        if self.url is not None and self.model is None:
            raise refusal("url needs model: the name that the rewriter's server knows it by")
        if self.launch is not None and (self.model is not None or self.api_key_env is not None):
            raise refusal("model and api_key_env go with url; a launched rewriter takes launch.model")
        return self


class ComponentFile(Strict):
    """A component with weights."""

    kind: str
    path: Text = "bundled"
    """Folder of weights, or the word bundled."""


class EncoderFile(ComponentFile):
    """Detector or translator: frozen sentence encoder and a small head."""

    kind: Annotated[Literal["encoder", "vllm", "judge"], AfterValidator(_served_kind)] = "encoder"
    """encoder; vllm and judge are not in this version."""


class FactsFile(ComponentFile):
    """The fact analyzer."""

    kind: Literal["nli"] = "nli"
    """nli: entailment both ways, beside the deterministic checks."""


class ConfigFile(Strict):
    """A visa-proxy server config."""

    server: ServerFile = ServerFile()
    """Where the proxy listens."""
    policies: Text = "./policies"
    """Folder of tenant policies."""
    bases: dict[Name, BaseFile] = Field(min_length=1)
    """Base model by name; policies say `base: <name>`, default `default`."""
    rewriter: RewriterFile = RewriterFile(launch=LaunchFile())
    """Default: the bundled model, launched."""
    detector: EncoderFile = EncoderFile()
    """Measures values."""
    translator: EncoderFile = EncoderFile()
    """Turns instructions into offsets."""
    facts: FactsFile = FactsFile()
    """Checks that meaning stays."""
    store: Annotated[str, AfterValidator(_store_url)] | None = None
    """Not in this version: nothing is stored."""
