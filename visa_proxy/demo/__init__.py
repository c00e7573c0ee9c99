"""The embedded default: a sample base model, three tenants, the bundled rewriter."""
