"""Adapters on disk: what is taken, what is not, and when a change counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import save

from tests.fakes.adapters import publish
from visa_proxy.engines.adapters import CONFIG, WEIGHTS, Adapter, Folder


def scanned(folder: Folder, name: str = "acme") -> Adapter | str:
    return folder.scan()[name]


def test_a_folder_of_adapters(tmp_path: Path) -> None:
    publish(tmp_path / "acme", rank=4)
    publish(tmp_path / "pebble", rank=16)
    publish(tmp_path / ".hidden")
    (tmp_path / "README.md").write_text("none")
    found = Folder(tmp_path).scan()
    assert {name: (adapter.rank, adapter.path) for name, adapter in found.items() if isinstance(adapter, Adapter)} == {
        "acme": (4, tmp_path / "acme"),
        "pebble": (16, tmp_path / "pebble"),
    }
    assert len(found) == 2


def test_named_folders(tmp_path: Path) -> None:
    publish(tmp_path / "v7")
    found = Folder({"acme": tmp_path / "v7", "gone": tmp_path / "nowhere"}).scan()
    assert isinstance(found["acme"], Adapter) and found["acme"].name == "acme"
    assert found["gone"] == f"there is no {CONFIG}"


def test_a_folder_that_is_not_there_has_no_adapters(tmp_path: Path) -> None:
    assert Folder(tmp_path / "nowhere").scan() == {}


def test_the_digest_tells_versions_apart_and_copies_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        publish(tmp_path / name, seed=seed)
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    digests = {name: found.digest for name, found in Folder(tmp_path).scan().items() if isinstance(found, Adapter)}
    assert digests["a"] == digests["c"] != digests["b"]


def test_a_change_counts_once_the_files_stand_still(tmp_path: Path) -> None:
    publish(tmp_path / "acme", seed=1)
    folder = Folder(tmp_path)
    before = scanned(folder)
    publish(tmp_path / "acme", seed=2)
    assert scanned(folder) == before, "it may still be being written"
    after = scanned(folder)
    assert isinstance(before, Adapter) and isinstance(after, Adapter) and after.digest != before.digest
    assert scanned(folder) is after, "what stands still is not read again"


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    publish(tmp_path / "versions" / "1", seed=1)
    publish(tmp_path / "versions" / "2", seed=2)
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "acme").symlink_to(tmp_path / "versions" / "1")
    folder = Folder(tmp_path / "live")
    first = scanned(folder)
    (tmp_path / "new").symlink_to(tmp_path / "versions" / "2")
    (tmp_path / "new").replace(tmp_path / "live" / "acme")
    folder.scan()
    second = scanned(folder)
    assert isinstance(first, Adapter) and isinstance(second, Adapter)
    assert (first.path.name, second.path.name) == ("1", "2")


def test_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    publish(tmp_path / "acme")
    folder = Folder(tmp_path)
    assert set(folder.scan()) == {"acme"}
    shutil.rmtree(tmp_path / "acme")
    assert set(folder.scan()) == {"acme"}, "it may be that a link is made anew"
    assert folder.scan() == {}


def test_what_cannot_be_looked_at_takes_no_other_along(tmp_path: Path) -> None:
    publish(tmp_path / "acme")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / CONFIG).write_text("[" * 100_000)
    publish(tmp_path / "odd")
    header = b'{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,"x"]}}'
    (tmp_path / "odd" / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    found = Folder(tmp_path).scan()
    assert isinstance(found["acme"], Adapter)
    assert found["nested"] == "its files are nested too deeply"
    assert found["odd"] == f"{WEIGHTS} is not a safetensors file"


CONFIG_JSON = {"peft_type": "LORA", "r": 4}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, f"there is no {CONFIG}"),
        ({CONFIG: b"{"}, f"{CONFIG} is not JSON"),
        ({CONFIG: b"\xff"}, f"{CONFIG} is not JSON"),
        ({CONFIG: b"[]"}, f"{CONFIG} is not that of a LoRA adapter"),
        ({CONFIG: json.dumps({"peft_type": "IA3"}).encode()}, "is not that of a LoRA adapter"),
        ({CONFIG: json.dumps({"peft_type": "LORA", "r": "4"}).encode()}, "is not that of a LoRA adapter"),
        ({CONFIG: json.dumps(CONFIG_JSON).encode()}, f"there is no {WEIGHTS}"),
        ({CONFIG: json.dumps(CONFIG_JSON).encode(), "adapter_model.bin": b"x"}, "as safetensors only, not as .bin"),
        ({CONFIG: json.dumps(CONFIG_JSON).encode(), WEIGHTS: b""}, f"{WEIGHTS} is not a safetensors file"),
        ({CONFIG: json.dumps(CONFIG_JSON).encode(), WEIGHTS: b"\xff" * 64}, f"{WEIGHTS} is not a safetensors file"),
        ({CONFIG: json.dumps(CONFIG_JSON).encode(), WEIGHTS: b"\x02" + b"\0" * 7 + b"[]"}, "is not a safetensors file"),
        ({CONFIG: json.dumps(CONFIG_JSON).encode(), WEIGHTS: save({})[:-1]}, f"{WEIGHTS} is not"),
    ],
)
def test_what_cannot_be_loaded_says_why(tmp_path: Path, files: dict[str, bytes], why: str) -> None:
    (tmp_path / "acme").mkdir()
    for name, content in files.items():
        (tmp_path / "acme" / name).write_bytes(content)
    found = scanned(Folder(tmp_path))
    assert isinstance(found, str) and why in found


@pytest.mark.parametrize("missing", [1, 100])
def test_half_written_weights_are_not_complete(tmp_path: Path, missing: int) -> None:
    publish(tmp_path / "acme")
    weights = tmp_path / "acme" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-missing])
    assert scanned(Folder(tmp_path)) == f"{WEIGHTS} is not complete"
