"""visa.yaml as the file says it. `config` holds what the server uses at run time."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

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
    scheme, found, rest = value.partition("://")
    allowed = "allowed: sqlite:///visa.db (a file) or postgresql://user@host/database"
    if not found or not re.fullmatch(r"[A-Za-z0-9+]{1,30}", scheme):
        raise refusal(f"this is no URL; {allowed}")  # not repeated: it may hold a password
    if scheme == "sqlite" and rest.startswith("/") and rest.strip("/ ") and ":memory:" not in rest:
        return value
    if scheme == "sqlite":
        raise refusal("a store in SQLite is a file: sqlite:///visa.db beside this one, or sqlite:////var/lib/visa/visa.db")
    if scheme not in ("postgresql", "postgres"):
        raise refusal(f"store {scheme!r} is not available in this version; {allowed}")
    try:
        good = bool(rest.strip("/ ")) and (urlsplit(value).port or 1) > 0
    except ValueError:  # several hosts, which libpq tries in turn, have no one port
        good = "," in rest
    if not good:
        raise refusal(f"this is no address of a Postgres server; {allowed}")
    return value


def _encoder_by_default(section: Any) -> Any:
    return {"kind": "encoder", **section} if isinstance(section, dict) and "kind" not in section else section


def _provider(name: str) -> str:
    provider, _, model = name.partition("/")
    if not provider.strip() or not model.strip():
        raise ValueError("allowed: provider/model, as LiteLLM has them, such as anthropic/claude-sonnet-4-5")
    return name


EnvName = Annotated[str, BeforeValidator(_env_name)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Adapters = Text | Annotated[dict[Name, Text], Field(min_length=1)]
"""A folder of adapters, or the folder of each."""
Spaces = Annotated[tuple[Text, ...], Field(strict=False, max_length=16)]


class ServerFile(Strict):
    """Where the proxy listens."""

    host: Text = "127.0.0.1"
    """Address to bind; 0.0.0.0 for all."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """TCP port; 0: a free one."""
    admin_key_env: EnvName | None = None
    """Variable with the key to /ui, and to the problems of policies in /readyz; without one both are for loopback only."""
    body_mb: Annotated[float, Field(gt=0, le=64, allow_inf_nan=False)] = 4.0
    """Largest request body in MiB."""
    drain_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 30.0
    """Seconds that requests in flight may take after SIGTERM."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that serve; `visa-proxy serve --workers` overrides it."""


class BaseFile(Strict):
    """A base model, frozen: the url of an OpenAI-compatible server, a model by its LiteLLM name, or the vLLM that the proxy runs in."""

    url: HttpUrl | None = None
    """Ends before /chat/completions, usually in /v1."""
    litellm: Annotated[Text, AfterValidator(_provider)] | None = None
    """Instead of url: provider/model, as LiteLLM's SDK knows it."""
    api_base: HttpUrl | None = None
    """With litellm: where the provider's API is, when not at its usual place."""
    inner: Literal[True] | None = None
    """Instead of url: the vLLM server that the proxy runs in as middleware or endpoint plugin."""
    api_key_env: EnvName | None = None
    """Variable with the base's API key."""
    timeout_s: Seconds = 600.0
    """Seconds to wait for an answer, and between two parts of a streamed one."""
    model: Text | None = None
    """Used when a request names no model; with litellm the name that clients know it by, default: that of the base."""

    @model_validator(mode="after")
    def _one_of(self) -> BaseFile:
        _exactly_one(url=self.url, litellm=self.litellm, inner=self.inner)
        if self.api_base is not None and self.litellm is None:
            raise refusal("api_base goes with litellm; elsewhere url says where the model is")
        return self


class LaunchFile(Strict):
    """A rewriter started as a child process."""

    engine: Literal["transformers", "vllm"] = "transformers"
    """transformers: `transformers serve`, one answer after another; vllm: a vLLM server, for LoRA adapters and load."""
    model: Text = "bundled"
    """Folder of a model, or the word bundled; with vllm also its name on a model hub."""
    port: Annotated[int | None, Field(ge=1, le=65_535)] = None
    """TCP port; default: a free one."""
    start_timeout_s: Seconds = 600.0
    """Seconds until it must answer."""
    served_model_name: Text | None = None
    """vllm: what the model is called over HTTP; default: `model` as it is given here."""
    adapters: Adapters | None = None
    """vllm: LoRA adapters that policies name in `rewriter: {model: …}`; see rewriter.adapters."""
    speculation: Literal["ngram", "none"] | None = None
    """vllm: ngram (default) guesses that the answer's own words come next; the text stays the same."""
    args: Annotated[tuple[Text, ...], Field(strict=False, max_length=100)] = ()
    """vllm: further arguments of `vllm serve`, one word each."""
    python: Text | None = None
    """vllm: the interpreter that has vLLM; default: the proxy's own."""

    @field_validator("args")
    @classmethod
    def _not_ours(cls, args: tuple[str, ...]) -> tuple[str, ...]:
        for arg in args:
            name = arg.partition("=")[0].replace("_", "-")
            # vLLM takes any beginning of a name that is not the beginning of another.
            own = next((own for own in _OWN_ARGS if own.startswith(name) and len(name) > 2), None)
            if own is not None:
                raise refusal(f"{own} is set by {_OWN_ARGS[own]}")
        return args

    @model_validator(mode="after")
    def _only_vllm(self) -> LaunchFile:
        if self.engine != "vllm":
            for key in ("served_model_name", "adapters", "speculation", "args", "python"):
                if getattr(self, key):
                    raise refusal(f"{key} goes with engine: vllm, not with {self.engine}")
        return self


_OWN_ARGS = {
    "--model": "launch.model",
    "--served-model-name": "launch.served_model_name",
    "--host": "the proxy: 127.0.0.1",
    "--port": "launch.port",
    "--uds": "the proxy, which speaks TCP with it",
    "--api-key": "nobody: arguments are visible to all users of a machine, and the server listens on 127.0.0.1 only",
    "--lora-modules": "launch.adapters",
    "--speculative-config": "launch.speculation",
    "-sc": "launch.speculation",
}
"""Arguments of vLLM that are said elsewhere, and where."""


class RewriterFile(Strict):
    """The rewriter: the url of a running server, launch, or the vLLM that the proxy runs in. Default: the bundled model, launched."""

    url: HttpUrl | None = None
    """Ends before /chat/completions, usually in /v1."""
    launch: LaunchFile | None = None
    """Instead of url: start one."""
    inner: Literal[True] | None = None
    """Instead of url: the vLLM server that the proxy runs in."""
    model: Text | None = None
    """Model or LoRA adapter asked for. Required with url and inner; with launch default: the launched model."""
    api_key_env: EnvName | None = None
    """Variable with the server's API key."""
    timeout_s: Seconds = 60.0
    """Seconds for one rewrite, where the policy's own limit is longer."""
    style: Literal["full", "compact"] | None = None
    """Prompt: full for instruction-tuned models, compact for the bundled one. Default: whichever fits."""
    adapters: Adapters | None = None
    """A folder with a LoRA adapter in each of its folders, or name: folder; at the same place on the machine of the vLLM server.

    Those that policies name are loaded, loaded anew when they change, and unloaded, which that server must allow
    (VLLM_ALLOW_RUNTIME_LORA_UPDATING=1).
    """

    @model_validator(mode="after")
    def _one_of(self) -> RewriterFile:
        _exactly_one(url=self.url, launch=self.launch, inner=self.inner)
        if self.launch is None and self.model is None:
            raise refusal("needs model: the name that the rewriter's server knows it by")
        if self.launch is not None and self.api_key_env is not None:
            raise refusal("api_key_env goes with url; a launched rewriter has no key")
        if self.launch is not None and self.adapters is not None:
            raise refusal("adapters of a launched rewriter stand in launch.adapters")
        if self.launch is not None and self.launch.engine != "vllm" and self.model is not None:
            raise refusal("model goes with url and with engine: vllm; transformers serves launch.model only")
        return self


def _exactly_one(**given: object) -> None:
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        allowed = ", ".join(given)
        raise refusal(f"found {' and '.join(named) or 'none of them'}; allowed: exactly one of {allowed}")


class EncoderFile(Strict):
    """Weights in the proxy's own process: a sentence encoder and a small head."""

    kind: Literal["encoder"] = "encoder"
    """encoder: in the proxy's own process."""
    path: Text = "bundled"
    """Folder of weights, the word bundled, or hf://owner/name (hf://owner/name@revision) on the Hugging Face hub."""


class RemoteFile(Strict):
    """A model behind an OpenAI-compatible server."""

    kind: str
    url: HttpUrl
    """Ends before /chat/completions, usually in /v1."""
    model: Text
    """The name that the server knows it by."""
    api_key_env: EnvName | None = None
    """Variable with the server's API key."""
    timeout_s: Seconds = 10.0
    """Seconds for one text, where the policy's own limit is longer."""


class EncoderDetectorFile(EncoderFile):
    """Detector: a sentence encoder and a small head for each value space."""

    spaces: Spaces = ()
    """Value spaces to measure beside Schwartz's: bundled names, or folders of one's own, as in ./spaces/brand."""


class JudgeFile(RemoteFile):
    """Detector: any chat model, asked for the levels."""

    kind: Literal["judge"]
    """judge: a chat model that takes response_format json_schema, or keeps to it unforced."""
    spaces: Spaces = ()
    """Value spaces to measure beside Schwartz's: bundled names, or folders of one's own, as in ./spaces/brand."""
    explain: bool = False
    """Ask for reasons too, which /v1/visa/detect shows on request; each measurement takes several times as long."""


class VllmFile(RemoteFile):
    """Detector: a sequence-classification model with one output for each of Schwartz's values, on `vllm serve --runner pooling`."""

    kind: Literal["vllm"]
    """vllm: its /classify, which stands beside /v1."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """None beside Schwartz's: the model's outputs are what they are."""
        return ()


class LlmFile(RemoteFile):
    """Translator: any chat model, asked for the offset; it takes instructions in any language that it reads."""

    kind: Literal["llm"]
    """llm: a chat model that takes response_format json_schema, or keeps to it unforced."""


class FactsFile(Strict):
    """The fact analyzer."""

    kind: Literal["nli"] = "nli"
    """nli: entailment both ways, beside the deterministic checks."""
    path: Text = "bundled"
    """Folder of weights, the word bundled, or hf://owner/name (hf://owner/name@revision) on the Hugging Face hub."""


DetectorFile = Annotated[
    EncoderDetectorFile | JudgeFile | VllmFile, Field(discriminator="kind"), BeforeValidator(_encoder_by_default)
]
TranslatorFile = Annotated[EncoderFile | LlmFile, Field(discriminator="kind"), BeforeValidator(_encoder_by_default)]


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
    detector: DetectorFile = EncoderDetectorFile()
    """Measures values."""
    translator: TranslatorFile = EncoderFile()
    """Turns instructions into offsets."""
    facts: FactsFile = FactsFile()
    """Checks that meaning stays."""
    store: Annotated[str, AfterValidator(_store_url)] | None = None
    """Keeps exposures and feedback: sqlite:///visa.db or postgresql://…; a password rather comes from PGPASSWORD or a pgpass file."""

    @model_validator(mode="after")
    def _two_ports(self) -> ConfigFile:
        launch = self.rewriter.launch
        if launch is not None and launch.port is not None and launch.port == self.server.port:
            raise refusal(
                f"server.port and rewriter.launch.port are both {launch.port}: the proxy and its rewriter need one each"
            )
        return self
