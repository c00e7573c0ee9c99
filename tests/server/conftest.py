"""What several tests of the server ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.base import FakeBase, answers, completion
from tests.fakes.http import serving


@pytest.fixture
async def second() -> AsyncIterator[FakeBase]:
    """Another base than `base`, to stand in for it."""
    fake = FakeBase(answer=answers(completion("From the second base.")))
    async with serving(fake.app()) as url:
        fake.url = f"{url}/v1"
        yield fake
