"""Config to detector."""

from __future__ import annotations

from visa_proxy.detector.base import Detector
from visa_proxy.detector.judge import JudgeDetector
from visa_proxy.detector.pooling import PoolingDetector
from visa_proxy.detector.weights import BUNDLED, load_encoder_detector
from visa_proxy.encoder.hub import folder_of
from visa_proxy.errors import ConfigError
from visa_proxy.llm.instrument import Open, Settings, not_opened
from visa_proxy.values import join, load_space, load_spaces


def load_detector(settings: Settings = Settings(), endpoint: Open = not_opened) -> Detector:  # noqa: B008 - frozen
    """The detector that the `detector` section of visa.yaml asks for; `endpoint` opens the one it names, for a kind that has one.

    Raises ConfigError for an unknown kind, and for spaces or weights that cannot be read.
    """
    match settings.kind:
        case "encoder":
            return load_encoder_detector(folder_of(settings.path, BUNDLED), settings.spaces)
        case "judge":
            space = join(load_spaces(settings.spaces))
            return JudgeDetector(endpoint(), settings.model, space, explain=settings.explain)
        case "vllm":
            return PoolingDetector(endpoint(), settings.model, load_space("schwartz"))
    raise ConfigError([f"detector.kind: unknown kind {settings.kind!r}; allowed: encoder, judge, vllm"])
