"""Who is asking: the tenant behind an API key."""

from __future__ import annotations

from visa_proxy.errors import AuthenticationError
from visa_proxy.policy.resolve import PolicySet, Tenant


def authenticate(headers: dict[bytes, bytes], policies: PolicySet) -> Tenant:
    """The tenant of `Authorization: Bearer <key>`, of `api-key: <key>` as Azure clients send it, or of `x-api-key: <key>` as LiteLLM does.

    Raises AuthenticationError.
    """
    key = presented(headers)
    if not key:
        raise AuthenticationError(
            "You didn't provide an API key. Provide it in an Authorization header: Authorization: Bearer YOUR_KEY",
            param="Authorization",
        )
    tenant = policies.tenant_for_key(key)
    if tenant is None:
        raise AuthenticationError("Incorrect API key provided.", param="Authorization")
    return tenant


def presented(headers: dict[bytes, bytes]) -> str:
    """The key of a request, or ""."""
    named = headers.get(b"api-key") or headers.get(b"x-api-key") or b""
    return bearer(headers) or named.decode("latin-1").strip()


def bearer(headers: dict[bytes, bytes]) -> str | None:
    """The token of an Authorization header of scheme Bearer, else None."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
