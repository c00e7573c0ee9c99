"""LiteLLM's SDK: brought in when it is asked for, with everything off that is not the call itself."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any, Final

from visa_proxy.errors import ConfigError
from visa_proxy.optional import need

_BEFORE_IMPORT: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}
"""Tables come from the package and not over the network, and no .env file of the working directory is read."""


def load(name: str, api_base: str | None) -> Any:
    """The SDK, ready to call the model `name`; takes seconds the first time. Raises MissingExtra, ConfigError for an unknown provider."""
    for variable, value in _BEFORE_IMPORT.items():
        os.environ.setdefault(variable, value)
    sdk = need("litellm", extra="litellm")
    # What it would bring in with the first request, on the event loop: its usual client, and the tokenizer with which it counts.
    need("openai.resources.chat", extra="litellm")
    need("openai.resources.responses", extra="litellm")
    sdk.token_counter(model="", text="")
    sdk.suppress_debug_info = True
    sdk.telemetry = False
    sdk.disable_hf_tokenizer_download = True  # to count tokens that the provider did not count
    # Its clients over aiohttp leave sessions behind that nobody closes, and a stream that is left early goes on at the provider.
    sdk.disable_aiohttp_transport = True
    if "LITELLM_LOG" not in os.environ:
        # What it reports as an error quotes requests and answers; we report errors ourselves.
        logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    for client in ("httpx", "httpx2"):  # they note every URL, and with some providers the key is in it
        logging.getLogger(client).setLevel(logging.WARNING)
    # So does this warning, about its own objects.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    try:
        bare, provider, *_ = sdk.get_llm_provider(model=name, api_base=api_base)
    except sdk.BadRequestError as error:
        raise ConfigError(
            [
                f"litellm: {name!r} names no provider that LiteLLM knows; allowed: provider/model, as in anthropic/claude-sonnet-4-5"
            ]
        ) from error
    if provider == "openai" and not {name, bare} & set(sdk.model_cost):
        # Of a model that is not in its tables it believes that a response cannot be streamed, and makes up a stream from a whole one.
        sdk.register_model({f"openai/{bare}": {"litellm_provider": "openai", "mode": "chat", "supports_native_streaming": True}})
    return sdk


async def ask(sdk: Any, call: str, *, model: str, **given: Any) -> Any:
    """What the SDK's function `call` gives: an object, or with `stream=True` something to iterate over."""
    if call != "atext_completion" or not given.get("stream"):
        return await getattr(sdk, call)(model=model, **given)
    # The stream of that function hides whether it has come to its end; so we ask for what it asks for.
    bare, provider, *_ = sdk.get_llm_provider(model=model, api_base=given["api_base"])
    if provider == "openai" and bare not in sdk.open_ai_chat_completion_models:
        model = f"text-completion-openai/{bare}"
    messages = [{"role": "user", "content": given.pop("prompt")}]
    return await sdk.acompletion(model=model, messages=messages, text_completion=True, **given)
