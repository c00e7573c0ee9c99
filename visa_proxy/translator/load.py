"""Config to translator."""

from __future__ import annotations

from visa_proxy.encoder.hub import folder_of
from visa_proxy.errors import ConfigError
from visa_proxy.llm.instrument import Open, Settings, not_opened
from visa_proxy.translator.base import Translator
from visa_proxy.translator.encoder import BUNDLED, EncoderTranslator
from visa_proxy.translator.llm import LlmTranslator
from visa_proxy.values import load_space


def load_translator(settings: Settings = Settings(), endpoint: Open = not_opened) -> Translator:  # noqa: B008 - frozen
    """The translator that the `translator` section of visa.yaml asks for; `endpoint` opens the one it names, for a kind that has one.

    Raises ConfigError for an unknown kind, and for weights that cannot be read.
    """
    match settings.kind:
        case "encoder":
            return EncoderTranslator(folder_of(settings.path, BUNDLED))
        case "llm":
            return LlmTranslator(endpoint(), settings.model, load_space("schwartz"))
    raise ConfigError([f"translator.kind: unknown kind {settings.kind!r}; allowed: encoder, llm"])
