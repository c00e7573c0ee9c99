"""Tenant API keys: made here, shown once, kept as hashes only."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "sk-visa-"


def create_key() -> tuple[str, str]:
    """A new key (256 random bits) and the hash that goes into the tenant's policy."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, hash_key(key)


def hash_key(key: str) -> str:
    """`sha256:` and 64 hex digits. Plain SHA-256 is enough for keys of full entropy, and cheap on every request."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
