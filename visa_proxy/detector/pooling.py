"""Ψ as a regression model with one output for each dimension (paper, Eq. 1), served by vLLM."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from visa_proxy.detector.base import Reading
from visa_proxy.errors import InstrumentError, UpstreamError
from visa_proxy.llm.base import Endpoint
from visa_proxy.llm.instrument import failure, garbled, late
from visa_proxy.values import Space, ValueVector

INSTRUMENT: Final = "detector"
MAX_REPLY_BYTES: Final = 64 * 1024


def model_input(query: str, answer: str) -> str:
    """The one text that such a model reads, in training and in service.

    The question is one line, so that no line of it can be taken for the beginning of the answer; the answer is as it is.
    """
    return f"Question: {' '.join(query.split())}\nAnswer: {answer}"


class PoolingDetector:
    """A model with a sequence-classification head (`AutoModelForSequenceClassification`) on `vllm serve --runner pooling`.

    Its outputs, in the order of the space's dimensions, are the components of v themselves: no softmax, no sigmoid.
    """

    def __init__(self, endpoint: Endpoint, model: str, space: Space) -> None:
        """`endpoint`: the root of the server, where vLLM has /classify; not its /v1."""
        self.space = space
        self._endpoint = endpoint
        self._model = model

    async def detect(self, query: str, answer: str) -> Reading:
        """Values alone; zero, without asking, for a blank answer. Raises InstrumentError.

        A text that is longer than the model takes is an error, as the server says it is: what is cut off would not be measured.
        """
        if not answer.strip():
            return Reading(ValueVector.zero(self.space))
        # vLLM applies softmax or sigmoid unless it is told not to.
        body = {"model": self._model, "input": model_input(query, answer), "use_activation": False}
        try:
            async with asyncio.timeout(self._endpoint.timeout_s):
                reply = await self._endpoint.json("/classify", body, max_bytes=MAX_REPLY_BYTES)
        except UpstreamError as error:
            raise failure(INSTRUMENT, error) from error
        except TimeoutError as error:
            raise late(INSTRUMENT, self._endpoint.timeout_s) from error
        return Reading(ValueVector(self.space, self._components(reply)))

    def _components(self, reply: Any) -> list[float]:
        try:
            (entry,) = reply["data"]
            outputs = entry["probs"]  # vLLM's name for them, with and without an activation
        except (KeyError, TypeError, ValueError) as error:
            raise garbled(INSTRUMENT, "something that is no classification") from error
        if not isinstance(outputs, list):
            raise garbled(INSTRUMENT, "something that is no classification")
        if len(outputs) != len(self.space):
            message = (
                f"the detector's model has {len(outputs)} outputs; the space {self.space.name} has {len(self.space)} dimensions"
            )
            raise InstrumentError(INSTRUMENT, message)
        if not all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in outputs):
            raise garbled(INSTRUMENT, "outputs that are not finite numbers")
        return outputs
