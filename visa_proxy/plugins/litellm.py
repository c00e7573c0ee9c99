"""A guardrail of LiteLLM's proxy: `guardrail: visa_proxy.plugins.litellm.VisaGuardrail` with `mode: post_call`.

LiteLLM imports this module; nothing else does. What it needs of its configuration comes from VISA_CONFIG (visa.yaml) and from the
guardrail's `litellm_params`: `tenant`, `profile`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from litellm.exceptions import GuardrailRaisedException
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.llms.base_llm.guardrail_translation import base_translation
from litellm.types.guardrails import GuardrailEventHooks

from visa_proxy.errors import ConfigError, NotReady, RequestError, RewriteRefused
from visa_proxy.plugins.host import chosen, host_of
from visa_proxy.policy.resolve import Tenant
from visa_proxy.server.call import new_request_id
from visa_proxy.server.draft import Said
from visa_proxy.server.generate import untouched
from visa_proxy.server.hosted import hosted_plan
from visa_proxy.server.plan import Plan
from visa_proxy.shield.answer import complete, gathered
from visa_proxy.shield.pipeline import Shield

logger = logging.getLogger(__name__)

REMEMBERED: Final = 1024
"""Answers whose status is kept until LiteLLM asks for response headers."""


class VisaGuardrail(CustomGuardrail):
    """Rewrites answers towards the values of one tenant's policy; what cannot be rewritten goes out as the model said it."""

    streaming_transform_mode: Final = "incremental_diff"

    def __init__(
        self, *, tenant: str | None = None, profile: str | None = None, streaming_sampling_rate: int = 5, **rest: Any
    ) -> None:
        """`tenant`: default: the only one; `profile`: default: the policy's. `streaming_sampling_rate`: chunks of a stream between two looks.

        Raises ConfigError or MissingExtra, which ends LiteLLM's start.
        """
        if not hasattr(base_translation, "StreamTransformSink"):
            raise ConfigError(["this LiteLLM drops every change to a stream; install litellm>=1.94"])
        self._host = host_of()
        self._name = chosen(self._host.policies, tenant, profile).name
        self._profile = profile
        self._statuses: OrderedDict[str, str] = OrderedDict()
        self._loading: asyncio.Task[Shield] | None = None
        self.streaming_sampling_rate = streaming_sampling_rate
        super().__init__(supported_event_hooks=[GuardrailEventHooks.post_call], **rest)
        with contextlib.suppress(RuntimeError):  # without a loop the first answer waits until the models are loaded
            self._loading = asyncio.get_running_loop().create_task(self._host.shield())

    async def apply_guardrail(
        self,
        inputs: Any,
        request_data: dict[str, Any],
        input_type: Literal["request", "response"],
        logging_obj: Any = None,
    ) -> Any:
        """The texts of an answer, rewritten; of a stream all texts so far, and how much of each is held back.

        Raises GuardrailRaisedException for a choice that the policy does not let callers make, and under `on_failure: error`.
        """
        texts: list[str] = inputs.get("texts") or []
        if input_type != "response" or not any(text.strip() for text in texts):
            return inputs
        try:
            return {**inputs, **await self._said(texts, request_data)}
        except (RequestError, RewriteRefused, NotReady) as error:
            raise GuardrailRaisedException(self.guardrail_name, error.message, should_wrap_with_default_message=False) from error
        except Exception as error:
            # Whatever it is, the model's own answer is better than none.
            logger.error("rewriting failed: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
            return inputs

    async def async_post_call_response_headers_hook(self, data: dict[str, Any], *_: Any, **__: Any) -> dict[str, str] | None:
        """X-Visa-* headers of an answer that this guardrail looked at, or of a stream that it will look at."""
        if self.should_run_guardrail(data=data, event_type=GuardrailEventHooks.post_call) is not True:
            return None
        try:
            plan, visa = self._plan(data)
        except (ConfigError, RequestError):
            return None
        call = _call_id(data)
        status = (None if call is None else self._statuses.pop(call, None)) or untouched(plan)
        headers = {"x-visa-tenant": plan.tenant.name, **{name.decode(): value for name, value in visa.items()}}
        if status is not None:
            headers["x-visa-status"] = status
        elif plan.request.stream:
            headers["x-visa-stream-mode"] = plan.stream_mode
        return headers

    def _plan(self, data: Mapping[str, Any]) -> tuple[Plan, dict[bytes, str]]:
        """Raises RequestError for the caller's choices; ConfigError when the tenant's policy is gone."""
        tenant: Tenant = chosen(self._host.policies, self._name, self._profile)
        messages = data.get("messages")
        headers = (data.get("proxy_server_request") or {}).get("headers") or {}
        known = {**data, "messages": messages if isinstance(messages, list) else []}
        return hosted_plan(tenant, known, {str(name): str(value) for name, value in headers.items()})

    async def _said(self, texts: list[str], data: dict[str, Any]) -> dict[str, Any]:
        plan, _ = self._plan(data)
        chunks = data.get("responses")
        # Of streams other than those of chat completions LiteLLM would drop what is changed.
        lost = plan.request.stream and not any(getattr(chunk, "choices", None) for chunk in chunks or ())
        if lost or untouched(plan) is not None:
            return {}
        shield = await self._shield(plan)
        if chunks is None:
            answers = [plan.open(shield, (place,), windows=False) for place in range(len(texts))]
            found = await gathered(complete(answer, text) for answer, text in zip(answers, texts, strict=True))
            self._note(data, [each.trace.status for each in found])
            return {"texts": [each.text for each in found]}
        said: list[Said] = await self._host.drafts.say(
            plan, shield, _call_id(data) or new_request_id(), texts, ended(chunks, len(texts))
        )
        return {"texts": [each.text for each in said], "stream_holdback_chars": [each.held for each in said]}

    async def _shield(self, plan: Plan) -> Shield:
        """Raises NotReady where the policy wants an error rather than the model's own answer."""
        try:
            return await self._host.shield()
        except Exception as error:
            if plan.tenant.shield.on_failure == "error":
                raise NotReady(f"nothing can be rewritten: {type(error).__name__}") from error
            raise

    def _note(self, data: Mapping[str, Any], statuses: Sequence[str]) -> None:
        call = _call_id(data)
        if call is None:
            return
        self._statuses[call] = next((status for status in statuses if status != "adapted"), "adapted")
        while len(self._statuses) > REMEMBERED:
            self._statuses.popitem(last=False)


def _call_id(data: Mapping[str, Any]) -> str | None:
    return str(data["litellm_call_id"]) if data.get("litellm_call_id") else None


def ended(chunks: Sequence[Any], count: int) -> list[bool] | None:
    """For each choice that has text in these chunks of a stream, whether it has said that it is finished; None: they are not `count`."""
    speaking: set[int] = set()
    finished: set[int] = set()
    for choice in (choice for chunk in chunks for choice in getattr(chunk, "choices", None) or ()):
        index = getattr(choice, "index", 0) or 0
        content = getattr(getattr(choice, "delta", None), "content", None)
        if isinstance(content, str) and content:
            speaking.add(index)
        if getattr(choice, "finish_reason", None) is not None:
            finished.add(index)
    return [index in finished for index in sorted(speaking)] if len(speaking) == count else None
