"""`store:` of visa.yaml and of a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.policies import plain, write
from visa_proxy.errors import ConfigError
from visa_proxy.policy.config import load_config
from visa_proxy.policy.load import load_policies, policy_files
from visa_proxy.server.exposures import kept_seconds

BASES = "bases: {default: {url: 'http://127.0.0.1:1/v1'}}\n"


def config(folder: Path, store: str) -> Path:
    path = folder / "visa.yaml"
    path.write_text(BASES + f"store: {store}\n")
    return path


def test_files_are_beside_the_config_unless_absolute(tmp_path: Path) -> None:
    assert load_config(config(tmp_path, "sqlite:///data/visa.db")).store == f"sqlite:///{tmp_path}/data/visa.db"
    assert load_config(config(tmp_path, "sqlite:////var/lib/visa.db")).store == "sqlite:////var/lib/visa.db"
    for url in ("postgresql://u:p@h/d", "postgres://h1,h2:5433/d?target_session_attrs=read-write", "postgresql:///d"):
        assert load_config(config(tmp_path, url)).store == url
    loaded = load_config(config(tmp_path, "postgresql://u:secret@h/d"))
    assert "secret" not in repr(loaded)
    (tmp_path / "visa.yaml").write_text(BASES)
    assert load_config(tmp_path / "visa.yaml").store is None


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("mysql://u:secret@h/d", "store 'mysql' is not available in this version; allowed: sqlite:///visa.db"),
        ("secret", "this is no URL; allowed: sqlite:///visa.db"),
        ("postgresql://u:secret@h:port/d", "this is no address of a Postgres server"),
        ("postgresql://", "this is no address of a Postgres server"),
        ("sqlite://", "a store in SQLite is a file"),
        ("'sqlite:///:memory:'", "a store in SQLite is a file"),
        ("[secret]", "found a list, allowed: text"),
    ],
)
def test_wrong_stores_are_told_in_one_line_with_their_place_and_without_secrets(tmp_path: Path, store: str, said: str) -> None:
    with pytest.raises(ConfigError) as found:
        load_config(config(tmp_path, store))
    (problem,) = found.value.problems
    assert problem.startswith(f"{tmp_path}/visa.yaml:2:8: store: ") and said in problem and "secret" not in problem


def test_a_policy_says_whether_texts_are_kept_and_for_how_long(tmp_path: Path) -> None:
    write(tmp_path, plain() + "store: {text: true, retention_days: 2}\n")
    assert kept_seconds(load_policies(policy_files(tmp_path), bases={"default"})) == {"plain": 2 * 86_400.0}
    write(tmp_path, plain() + "store: {retention_days: 2}\n")
    assert kept_seconds(load_policies(policy_files(tmp_path), bases={"default"})) == {"plain": 0.0}
    write(tmp_path, plain() + "store: {text: true, retention_days: 0}\n")
    with pytest.raises(ConfigError, match=r"store\.retention_days: found 0, allowed: a number"):
        load_policies(policy_files(tmp_path), bases={"default"})
