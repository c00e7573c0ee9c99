"""Hot reload on a real directory."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.policy.samples import GOOD, HASH, write
from visa_proxy.errors import ConfigError
from visa_proxy.policy.resolve import PolicySet
from visa_proxy.policy.watch import PolicyWatcher

OTHER = GOOD.replace("acme", "other").replace(HASH, "sha256:" + "cd" * 32)
BROKEN = GOOD.replace("stimulation", "stimulaton")


async def until(condition: Callable[[], bool], seconds: float = 3.0) -> float:
    """Seconds until `condition`; fails after `seconds`."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "did not take effect"
        await asyncio.sleep(0.01)
    return time.monotonic() - start


def bold(watcher: PolicyWatcher, name: str = "acme") -> float:
    target = watcher.current.tenants[name].profiles["bold"].target
    assert target is not None
    return target.values["stimulation"]


def settle(watcher: PolicyWatcher) -> None:
    watcher.poll()
    watcher.poll()


def test_a_change_takes_effect_within_a_second(tmp_path: Path) -> None:
    async def scenario() -> None:
        seen: list[PolicySet] = []
        path = write(tmp_path, GOOD)
        async with PolicyWatcher(tmp_path, on_change=seen.append) as watcher:
            path.write_text(GOOD.replace("stimulation: 1,", "stimulation: 0.5,"))
            assert await until(lambda: bold(watcher) == 0.5) < 1.0
            write(tmp_path, OTHER, "other.yml")
            assert await until(lambda: "other" in watcher.current.tenants) < 1.0
            path.unlink()
            assert await until(lambda: "acme" not in watcher.current.tenants) < 1.0
            await until(lambda: len(seen) == 3)
            assert seen[-1] is watcher.current

    asyncio.run(scenario())


def test_a_broken_file_keeps_its_last_good_version(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="visa_proxy.policy.watch")
    path, other = write(tmp_path, GOOD), write(tmp_path, OTHER, "other.yaml")
    watcher = PolicyWatcher(tmp_path)
    path.write_text(BROKEN)
    other.write_text(OTHER.replace("stimulation: 1,", "stimulation: 0.5,"))
    settle(watcher)
    assert bold(watcher) == 1 and bold(watcher, "other") == 0.5
    assert len(watcher.problems) == 1 and f"{path}:5:19" in watcher.problems[0]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1 and "acme.yaml" in errors[0] and "last good version" in errors[0]
    path.write_text(GOOD.replace("stimulation: 1,", "stimulation: -1,"))
    settle(watcher)
    assert bold(watcher) == -1 and not watcher.problems
    assert "sha256:" not in caplog.text and "stimulaton" not in caplog.text


def test_saving_by_rename_never_drops_the_tenant(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    watcher = PolicyWatcher(tmp_path)
    # As vim does: the old file goes away, the new one comes, with a look in between.
    path.rename(tmp_path / "acme.yaml~")
    watcher.poll()
    assert "acme" in watcher.current.tenants
    write(tmp_path, GOOD.replace("stimulation: 1,", "stimulation: 0.5,"), ".acme.yaml.swp").rename(path)
    watcher.poll()
    assert bold(watcher) == 1
    watcher.poll()
    assert bold(watcher) == 0.5 and not watcher.problems


def test_half_written_files_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    watcher = PolicyWatcher(tmp_path)
    path.write_text(GOOD[:60])
    watcher.poll()
    path.write_text(GOOD.replace("stimulation: 1,", "stimulation: 0.5,"))
    settle(watcher)
    watcher.poll()
    assert bold(watcher) == 0.5 and not watcher.problems


def test_a_configmap_swap_is_seen(tmp_path: Path) -> None:
    """Kubernetes: acme.yaml -> ..data/acme.yaml, ..data -> ..v1, and ..data is swapped by a rename."""
    for version, level in (("..v1", "1"), ("..v2", "0.5")):
        (tmp_path / version).mkdir()
        file = write(tmp_path / version, GOOD.replace("stimulation: 1,", f"stimulation: {level},"))
        os.utime(file, (1, 1))
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "acme.yaml").symlink_to("..data/acme.yaml")
    watcher = PolicyWatcher(tmp_path)
    assert bold(watcher) == 1
    (tmp_path / "..tmp").symlink_to("..v2")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    settle(watcher)
    assert bold(watcher) == 0.5


def test_a_file_cannot_take_over_another_ones_key(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "m.yaml")
    watcher = PolicyWatcher(tmp_path)
    # "a.yaml" comes first in the directory, but later in time.
    thief = write(tmp_path, GOOD.replace("acme", "thief"), "a.yaml")
    settle(watcher)
    assert set(watcher.current.tenants) == {"acme"}
    assert len(watcher.problems) == 1 and "already claimed" in watcher.problems[0]
    # Once the owner gives the key up the claim is good, although its file has not changed since.
    write(tmp_path, OTHER, "m.yaml")
    settle(watcher)
    assert set(watcher.current.tenants) == {"other", "thief"} and not watcher.problems
    thief.unlink()
    settle(watcher)
    assert set(watcher.current.tenants) == {"other"}


def test_a_key_may_move_between_files_in_one_go(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "a.yaml")
    write(tmp_path, OTHER, "b.yaml")
    watcher = PolicyWatcher(tmp_path)
    write(tmp_path, OTHER, "a.yaml")
    write(tmp_path, GOOD, "b.yaml")
    settle(watcher)
    assert not watcher.problems
    assert watcher.current.tenants["acme"].source.endswith("b.yaml")


def test_start_with_one_broken_file_serves_the_others_and_with_none_good_fails(tmp_path: Path) -> None:
    path = write(tmp_path, BROKEN)
    with pytest.raises(ConfigError, match=r"acme\.yaml:5:19"):
        PolicyWatcher(tmp_path)
    write(tmp_path, OTHER, "other.yaml")
    watcher = PolicyWatcher(tmp_path)
    assert set(watcher.current.tenants) == {"other"} and str(path) in watcher.problems[0]


def test_a_vanished_directory_leaves_everything_in_force(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    write(folder, GOOD)
    watcher = PolicyWatcher(folder)
    folder.rename(tmp_path / "away")
    settle(watcher)
    assert set(watcher.current.tenants) == {"acme"} and "cannot be read" in watcher.problems[0]
    (tmp_path / "away").rename(folder)
    settle(watcher)
    assert not watcher.problems
