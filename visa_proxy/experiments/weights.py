"""The policy of one tenant, which says what shares the arms of its experiments should have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from visa_proxy.errors import ConfigError
from visa_proxy.policy.document import read_document
from visa_proxy.policy.load import build_tenant
from visa_proxy.policy.resolve import Tenant
from visa_proxy.values import Space


def policy_of(tenant: str, paths: Iterable[Path], space: Space) -> Tenant | None:
    """The policy of `tenant` among `paths`, None where none is. What is wrong in other policies does not matter here.

    Raises ConfigError with every problem of the tenant's own.
    """
    for path in paths:
        try:
            document = read_document(path)
        except ConfigError:
            continue
        if isinstance(document.data, dict) and document.data.get("tenant") == tenant:
            return build_tenant(document, space=space)
    return None
