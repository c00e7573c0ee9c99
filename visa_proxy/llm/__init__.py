"""How we talk to any chat model."""
