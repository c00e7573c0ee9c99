"""OpenTelemetry traces: one span per request, with those of the calls to the base model and of the shield's stages below it."""
