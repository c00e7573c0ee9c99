"""visa-proxy: value injection via shielded adaptation, as a proxy in front of any OpenAI-compatible model."""

__version__ = "0.1.0"
