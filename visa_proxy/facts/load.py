"""Config to fact analyzer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from visa_proxy.encoder.hub import folder_of
from visa_proxy.errors import ConfigError
from visa_proxy.facts.base import FactAnalyzer
from visa_proxy.facts.nli import EntailmentAnalyzer
from visa_proxy.llm.instrument import Settings

BUNDLED: Final = Path(__file__).parent.parent / "assets" / "facts"


def load_facts(settings: Settings = Settings(kind="nli")) -> FactAnalyzer:  # noqa: B008 - frozen
    """The fact analyzer that the `facts` section of visa.yaml asks for.

    Raises ConfigError for an unknown kind and for weights that cannot be read, MissingExtra without torch.
    """
    if settings.kind == "nli":
        return EntailmentAnalyzer(folder_of(settings.path, BUNDLED))
    raise ConfigError([f"facts.kind: unknown kind {settings.kind!r}; allowed: nli"])
