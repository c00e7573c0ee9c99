"""What is kept of responses: by tenant, counted in bytes, and the largest gives way first."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import orjson

from visa_proxy.server.history import MAX_BYTES, OVERHEAD, PER_ITEM, History, Kept, Turn, written


def turn(size: int) -> Turn:
    """A finished response of `size` bytes."""
    return Turn(Kept(b"b" * (size - OVERHEAD - 2), b"[]", None, "adapted", "bold"))


def kept(history: History, tenant: str, *names: str) -> list[str]:
    """Those of `names` that are still there."""
    return [name for name in names if history.get(tenant, name) is not None]


def newest(history: History, tenant: str) -> list[Turn]:
    """All turns of a tenant, the newest first."""
    return list(reversed(history._turns.get(tenant, {}).values()))


def talk(*items: Any) -> Turn:
    """A finished response with this conversation."""
    array, places = written(items)
    return Turn(Kept(b"{}", array, None, "adapted", "bold", places))


def test_a_turn_weighs_what_it_holds() -> None:
    assert turn(5_000).size == 5_000
    assert Turn().size == OVERHEAD


def test_each_tenant_has_its_own() -> None:
    history = History()
    history.put("a", "r1", turn(2_000))
    assert history.get("a", "r1") == turn(2_000)
    assert history.get("b", "r1") is None
    history.forget("b", "r1")
    history.forget("a", "r2")
    assert kept(history, "a", "r1") == ["r1"]
    history.forget("a", "r1")
    assert history.get("a", "r1") is None and newest(history, "a") == []


def test_the_newest_comes_first_and_a_changed_turn_is_new() -> None:
    history = History()
    for i, name in enumerate(("r1", "r2", "r3", "r1")):
        history.put("a", name, turn(2_000 + i))
    assert [each.size for each in newest(history, "a")] == [2_003, 2_002, 2_001]


def test_the_oldest_goes_when_there_are_too_many_bytes() -> None:
    history = History(max_bytes=10_000)
    for i in range(5):
        history.put("a", f"r{i}", turn(2_000))
    assert kept(history, "a", *(f"r{i}" for i in range(5))) == ["r0", "r1", "r2", "r3", "r4"], "just as much as may be kept"
    history.put("a", "r5", turn(2_001))
    assert kept(history, "a", *(f"r{i}" for i in range(6))) == ["r2", "r3", "r4", "r5"]


def test_bytes_count_and_not_responses() -> None:
    history = History(max_bytes=100_000)
    for i in range(10):
        history.put("a", f"r{i}", turn(2_000))
    history.put("a", "long", turn(90_000))
    assert kept(history, "a", *(f"r{i}" for i in range(10))) == ["r5", "r6", "r7", "r8", "r9"]
    assert kept(history, "a", "long") == ["long"]


def test_a_turn_that_is_put_again_counts_once() -> None:
    history = History(max_bytes=10_000)
    for _ in range(20):
        history.put("a", "r1", turn(4_000))
    history.put("a", "r2", turn(4_000))
    assert kept(history, "a", "r1", "r2") == ["r1", "r2"]


def test_what_is_forgotten_makes_room() -> None:
    history = History(max_bytes=10_000)
    history.put("a", "r1", turn(6_000))
    history.forget("a", "r1")
    history.put("a", "r2", turn(4_000))
    history.put("a", "r3", turn(6_000))
    assert kept(history, "a", "r2", "r3") == ["r2", "r3"]


def test_a_tenant_that_keeps_much_pays_for_itself() -> None:
    """Another one with a few responses, the oldest of all, loses none."""
    history = History(max_bytes=20_000)
    history.put("small", "s1", turn(2_000))
    history.put("small", "s2", turn(2_000))
    for i in range(100):
        history.put("large", f"r{i}", turn(4_000))
    assert kept(history, "small", "s1", "s2") == ["s1", "s2"]
    assert kept(history, "large", *(f"r{i}" for i in range(100))) == ["r96", "r97", "r98", "r99"]
    # And when the small one grows beyond the other, it is the one that pays.
    for i in range(3, 10):
        history.put("small", f"s{i}", turn(2_000))
    assert kept(history, "large", "r98", "r99") == ["r98", "r99"]
    total = sum(each.size for tenant in ("small", "large") for each in newest(history, tenant))
    assert 16_000 < total <= 20_000


def test_a_turn_larger_than_all_that_may_be_kept_is_not_kept() -> None:
    history = History(max_bytes=10_000)
    history.put("a", "r1", turn(10_001))
    assert newest(history, "a") == []
    history.put("b", "r2", turn(10_000))
    assert kept(history, "b", "r2") == ["r2"]


def test_items_are_found_as_they_were_last() -> None:
    history = History()
    history.put("a", "r1", talk({"id": "i1", "v": 1}, {"id": "i2"}, {"role": "user"}, "text", {"id": 7}))
    history.put("a", "r2", talk({"id": "i1", "v": 2}, {"id": "i3", "v": 1}, {"id": "i3", "v": "é"}))
    history.put("a", "r3", Turn())
    assert history.items("a", ["i1", "i2", "i3", "i4"]) == {
        "i1": {"id": "i1", "v": 2},
        "i2": {"id": "i2"},
        "i3": {"id": "i3", "v": "é"},
    }
    assert history.items("b", ["i1"]) == {}
    history.put("a", "r1", talk({"id": "i1", "v": 3}))
    assert history.items("a", ["i1", "i2"]) == {"i1": {"id": "i1", "v": 3}}, "a changed turn is new"


def test_what_goes_takes_its_items_along_and_uncovers_older_ones() -> None:
    history = History()
    history.put("a", "r1", talk({"id": "i1", "v": 1}))
    history.put("a", "r2", talk({"id": "i1", "v": 2}, {"id": "i2"}))
    history.forget("a", "r2")
    assert history.items("a", ["i1", "i2"]) == {"i1": {"id": "i1", "v": 1}}
    history.put("a", "r1", Turn())
    assert history.items("a", ["i1"]) == {}
    history.forget("a", "r1")
    assert not history._holders and not history._bytes
    small = History(max_bytes=3 * talk({"id": "i1"}).size)
    for i in range(9):
        small.put("a", f"r{i}", talk({"id": f"i{i}"}))
    assert sorted(small.items("a", [f"i{i}" for i in range(9)])) == ["i6", "i7", "i8"]
    assert len(small._holders["a"]) == 3


def test_an_item_is_found_at_once_however_much_is_kept() -> None:
    """What is looked for last was said first, and nothing else that is kept is read."""
    history, filler = History(), "x" * 60_000
    for i in range(1_000):
        history.put("a", f"r{i}", talk({"id": f"i{i}", "text": filler}))
    assert sum(history._bytes.values()) < MAX_BYTES
    begun = time.process_time()
    found = history.items("a", [f"i{i}" for i in range(100)] + [f"none{i}" for i in range(1_000)])
    assert len(found) == 100 and time.process_time() - begun < 0.25


def test_items_weigh_what_it_takes_to_find_them() -> None:
    array, places = written({"id": f"item_{i:032}"} for i in range(2_000))
    tracemalloc.start()
    history = History()
    history.put("a", "r1", Turn(Kept(b"{}", array, None, "adapted", "bold", orjson.loads(orjson.dumps(places)))))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.3 * PER_ITEM < taken / 2_000 < PER_ITEM
