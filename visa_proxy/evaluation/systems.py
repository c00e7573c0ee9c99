"""The systems: each makes a text from a case."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

from visa_proxy.errors import RewriterError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from visa_proxy.evaluation.cases import Case
from visa_proxy.evaluation.local import LocalModel, LocalRewriter
from visa_proxy.evaluation.prompts import THOUGHTS, Baseline, answer_in, messages
from visa_proxy.evaluation.specs import REWRITERS, Spec
from visa_proxy.llm.base import Endpoint
from visa_proxy.llm.http import HttpEndpoint, new_session
from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.rewriter.base import Context, Rewriter, RewriteRequest
from visa_proxy.rewriter.chat import ChatRewriter
from visa_proxy.rewriter.prompt import Message, Style
from visa_proxy.shield.answer import HEADLINE, OUTLINE, rewrite_whole
from visa_proxy.shield.pipeline import MAX_QUERY, Brief, Shield
from visa_proxy.shield.preserve import PLACEHOLDER, Protected, protect
from visa_proxy.shield.windows import Whole
from visa_proxy.values import Target

MAX_REPLY_BYTES: Final = 4 * 1024 * 1024
GONE: Final = ("unavailable", "unknown-model")
"""Reasons why a rewriter gives nothing that have nothing to do with the text."""
_WORDS: Final = re.compile(r"[^\W\d_]{2}")


@dataclass(frozen=True)
class Made:
    """What a system made of a case."""

    text: str
    status: str = ""
    """Of the shield; "" from others."""


class System(Protocol):
    """Safe to call concurrently."""

    async def rewrite(self, case: Case) -> Made:
        """Raises RewriterError when there is no text."""
        ...


OpenShield = Callable[[Path | None], AbstractAsyncContextManager[Shield]]
"""The shield of a visa.yaml, or the bundled one; its rewriter runs while the context lasts."""


class House:
    """Opens systems, and closes them when its context is left. A shield is started once, whoever uses it."""

    def __init__(self, open_shield: OpenShield, keys: dict[str, str], timeout_s: float) -> None:
        """`keys`: by name of a system. `timeout_s`: for one case, or each part of a long one."""
        self._open_shield = open_shield
        self._keys = keys
        self._timeout_s = timeout_s
        self._shields: dict[Path | None, Shield] = {}
        self._models: dict[Path, LocalModel] = {}
        self._stack = AsyncExitStack()
        self._session: Any = None

    async def __aenter__(self) -> House:
        self._session = await self._stack.enter_async_context(new_session())
        return self

    async def __aexit__(self, *about: Any) -> None:
        await self._stack.aclose()

    async def open(self, spec: Spec) -> System:
        """Raises what starting it raises: ConfigError, EngineError, MissingExtra."""
        if spec.kind == "echo":
            return Echo()
        if spec.folder is not None:
            model = await self._model(spec.folder, f"--system {spec.name}")
            if spec.kind == "model":
                return Raw(LocalRewriter(model, spec.folder.name), self._timeout_s)
            return Prompted(functools.partial(model.ask, timeout_s=self._timeout_s), cast("Baseline", spec.kind))
        if spec.kind in ("shield", "bundled"):
            shield = await self._shield(spec.config)
            if spec.kind == "bundled":
                return Raw(shield.rewriter, self._timeout_s)
            return Shielded(shield, self._timeout_s)
        key = self._keys.get(spec.name)
        endpoint = HttpEndpoint(self._session, spec.url, api_key=key, timeout_s=self._timeout_s, name=f"system {spec.name}")
        if spec.kind in REWRITERS:
            style: Style = "full" if spec.kind == "rewriter" else "compact"
            return Raw(ChatRewriter(endpoint, model=spec.model, style=style), self._timeout_s)
        return Prompted(_Remote(endpoint, spec.model), cast("Baseline", spec.kind))

    async def _model(self, folder: Path, place: str) -> LocalModel:
        if folder not in self._models:
            self._models[folder] = await LocalModel.open(folder, place)
            self._stack.push_async_callback(self._models[folder].close)
        return self._models[folder]

    async def _shield(self, config: Path | None) -> Shield:
        if config not in self._shields:
            self._shields[config] = await self._stack.enter_async_context(self._open_shield(config))
        return self._shields[config]


class Echo:
    """The answer itself: what every rewriter has to beat in value, and cannot beat in consistency."""

    async def rewrite(self, case: Case) -> Made:
        return Made(case.answer)


class Shielded:
    """All of the flow but the translator: v* is given. What fails verification is the answer itself, as in serving."""

    def __init__(self, shield: Shield, timeout_s: float) -> None:
        self._shield = shield
        self._timeout_s = timeout_s

    async def rewrite(self, case: Case) -> Made:
        """Raises RewriterError when the rewriter is gone: that is no property of the shield."""
        settings = Settings(glossary=case.glossary, timeout_s=min(self._timeout_s, 600.0))
        brief = Brief(query=case.query, target=Target("target", case.target), settings=settings)
        made = await rewrite_whole(self._shield, brief, case.answer)
        status = made.trace.status
        for reason in GONE:
            if status == f"fallback:rewriter-{reason}":
                raise RewriterError(reason, f"the shield's rewriter gives nothing: {reason}")
        return Made(made.text, status)


class Raw:
    """A rewriter without verification: one greedy candidate for each part of the answer that it takes at once, as serving cuts them."""

    def __init__(self, rewriter: Rewriter, timeout_s: float) -> None:
        self._rewriter = rewriter
        self._timeout_s = timeout_s

    async def rewrite(self, case: Case) -> Made:
        cutter = Whole(self._rewriter.reach)
        made: list[str] = []
        outline: list[str] = []
        for window in cutter.feed(case.answer) + cutter.end():
            if window.verbatim:
                made.append(window.text)
                continue
            made.append(await self._part(case, window.text, Context("\n".join(outline[-OUTLINE:]))))
            outline.append(f"- {' '.join(window.text.split())[:HEADLINE]}")
        return Made("".join(made))

    async def _part(self, case: Case, text: str, context: Context) -> str:
        protected = protect(text, glossary=case.glossary)
        if not _WORDS.search(PLACEHOLDER.sub("", protected.text)):
            return text
        request = RewriteRequest(
            query=case.query[:MAX_QUERY], text=protected.text.strip(), target=case.target, context=context, seed=0
        )
        rewrites = await self._rewriter.rewrite(request, timeout_s=self._timeout_s)
        body = restored(protected, rewrites.texts[0].strip())
        return text[: len(text) - len(text.lstrip())] + body + text[len(text.rstrip()) :]


def restored(protected: Protected, text: str) -> str:
    """`text` with its spans back. Serving refuses a text whose placeholders are not intact; here the known ones are put back all the same,
    and what is missing or left over counts against it."""

    def span(match: re.Match[str]) -> str:
        number = int(match[1])
        return protected.spans[number - 1] if 1 <= number <= len(protected.spans) else match[0]

    return PLACEHOLDER.sub(span, text)


Ask = Callable[[list[Message], int], Awaitable[str]]
"""Messages, and tokens that the answer may take, to what a model wrote. Raises RewriterError."""


class Prompted:
    """A chat model that is told to rewrite: the paper's prompting baselines."""

    def __init__(self, ask: Ask, baseline: Baseline) -> None:
        self._ask = ask
        self._baseline: Baseline = baseline

    async def rewrite(self, case: Case) -> Made:
        most = THOUGHTS[self._baseline] + len(case.answer.encode())
        return Made(answer_in(self._baseline, await self._ask(messages(self._baseline, case), most)))


class _Remote:
    """A model behind a URL, as an `Ask`."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self._endpoint = endpoint
        self._model = model

    async def __call__(self, prompt: list[Message], most: int) -> str:
        body: dict[str, Any] = {"model": self._model, "messages": prompt, "temperature": 0.0, "max_tokens": most, "stream": False}
        try:
            reply = await self._endpoint.json("/chat/completions", body, max_bytes=MAX_REPLY_BYTES)
        except UpstreamError as error:
            raise RewriterError(_reason(error), f"status {error.status}") from error
        return _content(reply)


def _reason(error: UpstreamError) -> str:
    codes = {"upstream_too_large": "endless", "upstream_garbled": "garbled"}
    if (error.code or "") in codes:
        return codes[error.code or ""]
    if isinstance(error, UpstreamTimeout):
        return "timeout"
    if isinstance(error, UpstreamUnavailable) or error.status in (429, 502, 503, 504):
        return "unavailable"
    return "unknown-model" if error.status == 404 else "error"


def _content(reply: Any) -> str:
    """Raises RewriterError."""
    try:
        choice = reply["choices"][0]
        text = choice["message"]["content"] or ""
    except (KeyError, IndexError, TypeError) as error:
        raise RewriterError("garbled", "the model's answer is no chat completion") from error
    if not isinstance(text, str):
        raise RewriterError("garbled", "the model's answer is no text")
    if choice.get("finish_reason") == "length":
        raise RewriterError("endless", "the model did not come to an end")
    return text
