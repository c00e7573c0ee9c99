"""A model that LiteLLM's SDK calls in this process, behind the interface of an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final

import orjson
from multidict import CIMultiDict

from visa_proxy.errors import NotFound, RequestError, error_body
from visa_proxy.llm.base import Body, Endpoint, Exchange, Headers
from visa_proxy.llm.http import CONNECT_WAITS_S
from visa_proxy.llm.litellm_errors import failure, garbled, told
from visa_proxy.llm.litellm_sdk import ask, load
from visa_proxy.llm.litellm_surfaces import HANDED_ON, NOT_SENT, SURFACES, Stream, Surface, remote_url
from visa_proxy.optional import installed

Json = dict[str, Any]

_LEAVE_S: Final = 1.0
"""How long leaving a stream may take."""


class LiteLLMEndpoint(Endpoint):
    """One model of one provider."""

    def __init__(
        self,
        target: str,
        *,
        model: str,
        api_key: str | None = None,
        api_base: str | None = None,
        timeout_s: float = 600.0,
        name: str = "base model",
    ) -> None:
        """`target`: provider/model. `model`: what clients call it, and what answers say. Raises MissingExtra.

        Without `api_key` the SDK takes it from the provider's usual variable, without `api_base` it asks the provider's usual address.
        The SDK takes seconds to import: that begins here, in a thread, and not with the first request.
        """
        super().__init__(timeout_s=timeout_s, name=name)
        installed("litellm", extra="litellm")
        self.target = target
        self.model = model
        # The SDK's own deadline is later than ours, so that ours is the one that counts; what is repeated, we repeat.
        self.settings: dict[str, Any] = {"model": target, "api_key": api_key, "api_base": api_base, "timeout": timeout_s + 5.0}
        self.settings |= {"num_retries": 0, "max_retries": 0}
        loader = ThreadPoolExecutor(1, thread_name_prefix="litellm")
        self._loading = loader.submit(load, target, api_base)
        loader.shutdown(wait=False)

    async def warm_up(self) -> None:
        await self.load()

    async def load(self) -> Any:
        """The SDK, once it is there. Raises ConfigError for a provider that it does not know."""
        return self._loading.result() if self._loading.done() else await asyncio.shield(asyncio.wrap_future(self._loading))

    def request(
        self, method: str, path: str, *, headers: Headers = (), body: Body = None, hurry: bool = False
    ) -> LiteLLMExchange:
        """As any endpoint. No header goes to the provider: they are the client's, and the SDK has its own."""
        content = body(self) if callable(body) else body
        return LiteLLMExchange(self, method, path.partition("?")[0], content or b"", hurry=hurry)


class LiteLLMExchange(Exchange):
    """Leaving the context ends the call, and with it the connection to the provider."""

    def __init__(self, endpoint: LiteLLMEndpoint, method: str, path: str, body: bytes, *, hurry: bool) -> None:
        super().__init__(endpoint)
        self._model = endpoint
        self._asked = (method, path, body)
        self._hurry = hurry
        self._content: list[bytes] = []
        self._stream: Stream | None = None
        self._parts: AsyncIterator[Any] | None = None

    async def __aenter__(self) -> LiteLLMExchange:
        self.deadline = asyncio.get_running_loop().time() + self.endpoint.timeout_s
        try:
            async with asyncio.timeout_at(self.deadline):
                await self._answer(*self._asked)
        except TimeoutError as error:
            raise self.too_late(self.endpoint.timeout_s) from error
        except RequestError as error:
            self._say(error.status, error_body(error))
        return self

    async def _answer(self, method: str, path: str, body: bytes) -> None:
        """Raises RequestError for what is not to be sent to the provider, UpstreamError when there is no answer."""
        model = self._model
        if (method, path) == ("GET", "/models"):
            listed = {"id": model.model, "object": "model", "created": 0, "owned_by": model.target.partition("/")[0]}
            self._say(200, {"object": "list", "data": [listed]})
            return
        surface = SURFACES.get(path) if method == "POST" else None
        if surface is None:
            raise NotFound(f"Unknown request URL: {method} {path[:200]}: this base model only generates", code="unknown_url")
        data = _read(body, model, surface)
        given = {name: value for name, value in data.items() if name in surface.fields and value is not None}
        usage = bool((data.get("stream_options") or {}).get("include_usage"))
        stream = bool(data.get("stream"))
        live = stream and not surface.several(data)
        if live:
            given |= {"stream": True, "stream_options": {"include_usage": True}} if usage and surface.part else {"stream": True}
        answer = await self._call(surface.call, given)
        if answer is None:
            return
        try:
            if live:
                self._parts = aiter(answer)
                self._stream = Stream(surface, model.model, answer, usage=usage)
            else:
                whole = surface.whole(answer, model.model)
                self._content = [*surface.frames(whole, usage=usage)] if stream else [orjson.dumps(whole)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise garbled(self.endpoint) from error
        self._begin(200, "text/event-stream; charset=utf-8" if stream else "application/json")

    async def _call(self, call: str, given: Json) -> Any:
        """What the SDK gives; None when the provider's error is the answer. Connects anew, as any endpoint, while nothing was sent."""
        sdk = await self._model.load()
        for wait_s in (*CONNECT_WAITS_S, None):
            try:
                return await ask(sdk, call, **given, **self._model.settings)
            except Exception as error:
                said = told(error, self.endpoint)
                if said is not None:
                    self._say(said.status, error_body(said), said.headers)
                    return None
                lost = failure(error, self.endpoint, begun=False)
                if wait_s is None or self._hurry or not getattr(lost, "unsent", False):
                    raise lost from error
            await asyncio.sleep(wait_s * random.uniform(1, 1.5))  # noqa: S311 - spreads load, guards nothing
        raise AssertionError("the last attempt returns or raises")

    def _say(self, status: int, data: Json, headers: Mapping[str, str] | None = None) -> None:
        self._content = [orjson.dumps(data)]
        self._begin(status, "application/json", headers)

    def _begin(self, status: int, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = CIMultiDict(headers or {})
        self.headers["content-type"] = kind
        if self._parts is None:
            self.headers["content-length"] = str(sum(map(len, self._content)))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._parts is not None:
            await _leave(self._parts)

    async def chunks(self, idle_s: float | None = None) -> AsyncIterator[bytes]:
        for piece in self._content:
            yield piece
        if self._stream is None:
            return
        wait_s = self.endpoint.timeout_s if idle_s is None else min(idle_s, self.endpoint.timeout_s)
        while (part := await self._next(wait_s)) is not None:
            try:
                frame = self._stream.frame(part)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise garbled(self.endpoint) from error
            yield frame
        self._parts = None
        if not self._stream.ended:
            raise garbled(self.endpoint)
        if self._stream.close:
            yield self._stream.close

    async def _next(self, wait_s: float) -> Any:
        """None at the end. Raises UpstreamError."""
        assert self._parts is not None
        try:
            async with asyncio.timeout(wait_s):
                return await anext(self._parts, None)
        except TimeoutError as error:
            raise self.too_late(wait_s) from error
        except Exception as error:
            raise (told(error, self.endpoint) or failure(error, self.endpoint, begun=True)) from error


def _read(body: bytes, model: LiteLLMEndpoint, surface: Surface) -> Json:
    """The request. Raises RequestError for what this model, or the SDK in a call of ours, does not take."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the request body is not valid JSON: {error}", param="body", code="invalid_json") from error
    if not isinstance(data, dict):
        raise RequestError("the request body must be a JSON object", param="body", code="invalid_json")
    if data.get("model") not in (model.model, model.target):
        named = str(data.get("model"))[:200]
        raise NotFound(f"The model {named!r} does not exist; there is {model.model!r}.", param="model", code="model_not_found")
    for name, value in data.items():
        if value is not None and name not in surface.fields and name not in NOT_SENT:
            raise RequestError(f"Unrecognized request argument: {name[:200]!r}", param=name[:200], code="unknown_parameter")
    if not model.target.startswith(HANDED_ON):
        for name in ("messages", "input", "prompt"):
            if remote_url(data.get(name)) is not None:
                raise RequestError(
                    "this base model takes images and files as data: URLs only", param=name, code="invalid_image_url"
                )
    return data


async def _leave(parts: AsyncIterator[Any]) -> None:
    """Ends a stream that was not read to its end.

    The SDK's iterators have no common way to be closed. But whoever waits for the next part can be cancelled, and that closes the
    connection; parts that are there already are thrown away.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + _LEAVE_S
    while loop.time() < end:
        waiting = asyncio.ensure_future(anext(parts))
        await asyncio.sleep(0)
        waiting.cancel()
        if isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], BaseException):
            return
