"""What of a chat request decides what happens to its answer."""

from __future__ import annotations

import pytest

from visa_proxy.server.surfaces.base import split_model


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("sample", ("sample", "")),
        ("sample@bold", ("sample", "bold")),
        ("@bold", ("", "bold")),
        ("@cf/meta/llama", ("@cf/meta/llama", "")),
        ("@cf/meta/llama@bold", ("@cf/meta/llama", "bold")),
        ("claude@20240229", ("claude@20240229", "")),
        ("claude@20240229@bold", ("claude@20240229", "bold")),
        ("sample@", ("sample", "")),
    ],
)
def test_split_model(name: str, parts: tuple[str, str]) -> None:
    assert split_model(name) == parts
