"""The server config as the server uses it: secrets read from the environment, paths absolute."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from visa_proxy.errors import ConfigError
from visa_proxy.policy.config_schema import (
    BaseFile,
    ConfigFile,
    EncoderFile,
    FactsFile,
    JudgeFile,
    LlmFile,
    RemoteFile,
    RewriterFile,
    VllmFile,
)
from visa_proxy.policy.document import Document, by_place, read_document
from visa_proxy.policy.problems import shown, validate
from visa_proxy.values import is_path, join, load_space
from visa_proxy.values.load import FIRST, distinct

BUNDLED = "bundled"
"""Stands for the weights that come with the package, wherever a path may be given."""
_PLACED = re.compile(r".*?:\d+:\d+: ", re.DOTALL)


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server."""

    url: str
    """Ends before "/chat/completions", usually in "/v1"; no trailing slash."""
    model: str | None = None
    """For a base: the model used when a request names none. For a rewriter: the model or adapter asked for."""
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 600.0
    """For a whole answer; between two bytes of a stream the same."""


@dataclass(frozen=True)
class LiteLLM:
    """A model that LiteLLM's SDK calls."""

    name: str
    """provider/model."""
    model: str
    """What clients call it."""
    api_key: str | None = field(default=None, repr=False)
    """None: LiteLLM takes it from the provider's usual variable."""
    api_base: str | None = None
    timeout_s: float = 600.0
    """As of an endpoint."""


@dataclass(frozen=True)
class Inner:
    """The server that the proxy runs in."""

    model: str | None = None
    """As of an endpoint."""
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 600.0


Base = Endpoint | LiteLLM | Inner

Adapters = Path | Mapping[str, Path]
"""A folder of LoRA adapters, or the folder of each by name; absolute."""


@dataclass(frozen=True)
class Launch:
    """A rewriter that the proxy starts and supervises as a child process."""

    engine: Literal["transformers", "vllm"] = "transformers"
    model: str = BUNDLED
    """Absolute path of a model folder, `BUNDLED`, or (vllm) a name on a model hub."""
    port: int | None = None
    """None: a free one."""
    start_timeout_s: float = 600.0
    served_model_name: str | None = None
    """None: `model`."""
    speculation: Literal["ngram", "none"] = "ngram"
    """Of vLLM."""
    args: tuple[str, ...] = ()
    """Further arguments of vLLM."""
    python: str | None = None
    """The interpreter that has vLLM; None: ours."""


@dataclass(frozen=True)
class RewriterConfig:
    """Exactly one of `endpoint` and `launch` is set."""

    endpoint: Endpoint | Inner | None = None
    launch: Launch | None = None
    model: str | None = None
    """Of a launched one: the adapter asked for by default; None: the launched model."""
    style: Literal["full", "compact"] = "full"
    """Prompt style, see rewriter.prompt; the bundled model knows only "compact"."""
    adapters: Adapters | None = None
    """LoRA adapters to load into it when policies name them."""
    timeout_s: float = 60.0
    """Of one rewrite."""


@dataclass(frozen=True)
class ComponentConfig:
    """Detector, translator or fact analyzer: weights of our own, or a model behind `endpoint`."""

    kind: str
    """encoder | judge | vllm (detector), encoder | llm (translator), nli (facts)."""
    path: str = BUNDLED
    """Absolute path of weights, `BUNDLED`, or hf://owner/name."""
    spaces: tuple[str, ...] = ()
    """Of a detector: value spaces beside Schwartz's, each a bundled name or an absolute path."""
    endpoint: Endpoint | None = None
    """Of a model, which it names; None for weights of our own. For kind vllm the server's root, else as of any endpoint."""
    explain: bool = False
    """Whether a judge gives its reasons."""


@dataclass(frozen=True)
class ServerConfig:
    """All of visa.yaml."""

    bases: Mapping[str, Base]
    """At least one."""
    policies: Path
    """Directory of tenant policies."""
    host: str = "127.0.0.1"
    port: int = 8080
    admin_key: str | None = field(default=None, repr=False)
    """Opens /ui, and the problems of policies in /readyz, to whoever presents it; None: they are for loopback only."""
    body_mb: float = 4.0
    """Largest request body in MiB, whatever a tenant's limit says."""
    drain_s: float = 30.0
    """How long requests in flight may finish after SIGTERM."""
    workers: int = 1
    """Processes that serve, 1 to 64."""
    rewriter: RewriterConfig = field(default_factory=lambda: RewriterConfig(launch=Launch(), style="compact"))
    detector: ComponentConfig = field(default_factory=lambda: ComponentConfig("encoder"))
    translator: ComponentConfig = field(default_factory=lambda: ComponentConfig("encoder"))
    facts: ComponentConfig = field(default_factory=lambda: ComponentConfig("nli"))
    store: str | None = field(default=None, repr=False)
    """sqlite:///absolute/path or a Postgres URL, which may hold a password; None: nothing is stored."""


def read_config(path: Path) -> ConfigFile:
    """Parse and check a config file without touching the environment. Raises ConfigError with all its problems."""
    return parse_config(path)[1]


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> ServerConfig:
    """Parse a config file and read the environment variables it names (`environ`, default the process's).

    Raises ConfigError with all problems of the file, or with all variables that are not set and value spaces that cannot be had.
    """
    document, file = parse_config(path)
    return _Builder(document, file, os.environ if environ is None else environ).build()


def parse_config(path: Path) -> tuple[Document, ConfigFile]:
    """`read_config`, with the places of what it says."""
    document = read_document(path)
    file, problems = validate(document, ConfigFile)
    if file is None or problems:
        raise ConfigError(by_place(problems))
    return document, file


def spaces_of(document: Document, file: ConfigFile) -> tuple[tuple[str, ...], list[str]]:
    """`detector.spaces`, files and folders as absolute paths; and what is wrong with each, on its own or beside those before it."""
    names: list[str] = []
    problems: list[str] = []
    space = load_space(FIRST)
    for i, given in enumerate(file.detector.spaces):
        name = _absolute(document, given) if is_path(given) else given
        try:
            if len(distinct([*names, name])) == len(names):
                raise ConfigError([f"{given!r} is listed twice; list each once"])
            space = join([space, load_space(name)]) if name != FIRST else space
            names.append(name)
        except ConfigError as error:
            where = document.where(("detector", "spaces", i))
            # What is wrong inside of a space's file has a place there.
            problems += [each if _PLACED.match(each) else f"{where}: detector.spaces: {each}" for each in error.problems]
    return tuple(names), problems


def missing_folders(document: Document, file: ConfigFile) -> list[str]:
    """A problem for each folder of weights that is not there."""
    sections = {"detector": file.detector, "translator": file.translator, "facts": file.facts}
    given = {name: section.path for name, section in sections.items() if not isinstance(section, RemoteFile)}
    return [
        document.problem(
            (name, "path"), f"there is no folder {shown(path)}; allowed: a folder of weights, bundled, or hf://owner/name"
        )
        for name, path in given.items()
        if path != BUNDLED and not path.startswith("hf://") and not os.path.isdir(_absolute(document, path))  # noqa: PTH112
    ]


def store_of(document: Document, file: ConfigFile) -> str | None:
    """`store`, a file as an absolute path; it may hold a password. None: nothing is stored."""
    if file.store is None or not file.store.startswith("sqlite:///"):
        return file.store
    return f"sqlite:///{_absolute(document, file.store.removeprefix('sqlite:///'))}"


def _absolute(document: Document, path: str) -> str:
    """Relative ones start at the config file's folder. Symlinks stay: what they name may change, and a venv is one."""
    # Path.expanduser raises RuntimeError for a user whom nobody knows; this leaves their name as it is.
    return os.path.abspath(document.path.parent / os.path.expanduser(path))  # noqa: PTH100, PTH111


class _Builder:
    """One load: collects every missing variable before it fails."""

    def __init__(self, document: Document, file: ConfigFile, environ: Mapping[str, str]) -> None:
        self.document = document
        self.file = file
        self.environ = environ
        self.problems: list[str] = []

    def build(self) -> ServerConfig:
        file, server = self.file, self.file.server
        config = ServerConfig(
            bases={name: self._base(name, base) for name, base in file.bases.items()},
            policies=Path(self._path(file.policies)),
            host=server.host,
            port=server.port,
            admin_key=self._secret(server.admin_key_env, "server", "admin_key_env"),
            body_mb=server.body_mb,
            drain_s=server.drain_s,
            workers=server.workers,
            rewriter=self._rewriter(file.rewriter),
            detector=self._component("detector", file.detector, self._spaces()),
            translator=self._component("translator", file.translator),
            facts=self._component("facts", file.facts),
            store=store_of(self.document, file),
        )
        if self.problems:
            raise ConfigError(self.problems)
        return config

    def _secret(self, name: str | None, *key: str) -> str | None:
        """The variable's value; None when the file names no variable."""
        if name is None:
            return None
        value = self.environ.get(name, "").strip()
        if not value:
            self.problems.append(self.document.problem(key, f"environment variable {name} is not set (or empty)"))
        return value or None

    def _base(self, name: str, base: BaseFile) -> Base:
        key = self._secret(base.api_key_env, "bases", name, "api_key_env")
        if base.litellm is not None:
            return LiteLLM(base.litellm, base.model or name, key, base.api_base, base.timeout_s)
        if base.url is not None:
            return Endpoint(base.url.rstrip("/"), base.model, key, base.timeout_s)
        return Inner(base.model, key, base.timeout_s)

    def _rewriter(self, rewriter: RewriterFile) -> RewriterConfig:
        key = self._secret(rewriter.api_key_env, "rewriter", "api_key_env")
        adapters, timeout_s = self._adapters(rewriter.adapters), rewriter.timeout_s
        given = rewriter.launch
        if given is None:
            endpoint = (
                Inner(rewriter.model, key, timeout_s)
                if rewriter.url is None
                else Endpoint(rewriter.url.rstrip("/"), rewriter.model, key, timeout_s)
            )
            return RewriterConfig(endpoint, style=rewriter.style or "full", adapters=adapters, timeout_s=timeout_s)
        launch = Launch(
            engine=given.engine,
            model=self._model(given.model) if given.engine == "vllm" else self._path(given.model),
            port=given.port,
            start_timeout_s=given.start_timeout_s,
            served_model_name=given.served_model_name,
            speculation=given.speculation or "ngram",
            args=given.args,
            python=None if given.python is None else self._path(given.python),
        )
        return RewriterConfig(
            launch=launch,
            model=rewriter.model,
            style=rewriter.style or ("compact" if given.model == BUNDLED else "full"),
            adapters=self._adapters(given.adapters),
            timeout_s=timeout_s,
        )

    def _adapters(self, adapters: str | Mapping[str, str] | None) -> Adapters | None:
        if adapters is None:
            return None
        if isinstance(adapters, str):
            return Path(self._path(adapters))
        return {name: Path(self._path(folder)) for name, folder in adapters.items()}

    def _model(self, model: str) -> str:
        """A path where one is meant, or there is such a folder; else the name of a model on a hub, as it is."""
        path = self._path(model)
        return path if model.startswith((".", "/", "~")) or os.path.isdir(path) else model  # noqa: PTH112 - a name may be too long

    def _weights(self, path: str) -> str:
        return path if path.startswith("hf://") else self._path(path)

    def _component(
        self, name: str, given: EncoderFile | JudgeFile | VllmFile | LlmFile | FactsFile, spaces: tuple[str, ...] = ()
    ) -> ComponentConfig:
        if not isinstance(given, RemoteFile):
            return ComponentConfig(given.kind, self._weights(given.path), spaces)
        key = self._secret(given.api_key_env, name, "api_key_env")
        url = given.url.rstrip("/")
        # What vLLM has beyond OpenAI's API stands beside /v1.
        url = url.removesuffix("/v1") if given.kind == "vllm" else url
        endpoint = Endpoint(url, given.model, key, given.timeout_s)
        explain = isinstance(given, JudgeFile) and given.explain
        return ComponentConfig(given.kind, spaces=spaces, endpoint=endpoint, explain=explain)

    def _spaces(self) -> tuple[str, ...]:
        names, problems = spaces_of(self.document, self.file)
        self.problems += problems
        return names

    def _path(self, path: str) -> str:
        return path if path == BUNDLED else _absolute(self.document, path)
