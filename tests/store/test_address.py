"""URLs of stores, and what is never said of them."""

from __future__ import annotations

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.store.address import Address


def test_a_file_and_a_server() -> None:
    assert Address.parse("sqlite:////var/lib/visa.db").place == "/var/lib/visa.db"
    assert Address.parse("sqlite:///visa.db").place == "visa.db"
    for url in ("postgresql://h/d", "postgres://u:p@h1,h2/d?sslmode=require"):
        address = Address.parse(url)
        assert (address.kind, address.place) == ("postgresql", url)


@pytest.mark.parametrize("secret", ["pa%73sword", "p@ss:word", "pa%2Fss%40", "x" * 40])
def test_the_password_is_hidden_however_it_is_written(secret: str) -> None:
    from urllib.parse import unquote

    address = Address.parse(f"postgresql://user:{secret}@host:5432/db")
    for text in (f"a {secret} b", f"a {unquote(secret)} b", f"bad URL {address.place}\nsecond line"):
        shown = address.hide(text)
        assert secret not in shown and unquote(secret) not in shown and "\n" not in shown
    assert secret not in repr(address) and "host" not in repr(address)


def test_what_is_no_store_is_refused_without_being_repeated() -> None:
    for url in ("", "secret", "sqlite://", "sqlite:///", "mysql://u:secret@h/d", "postgresql://"):
        with pytest.raises(ConfigError) as found:
            Address.parse(url)
        assert "secret" not in str(found.value) and "\n" not in str(found.value)
