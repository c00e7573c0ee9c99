"""Several workers write one store: each by itself, and their metrics add up."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.fakes.base import FakeBase
from tests.fakes.command import serving_command
from tests.fakes.policies import plain, write
from tests.fakes.stored import rows, soon

ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": "Hello?"}]}


async def test_two_workers_write_one_file(tmp_path: Path, base: FakeBase) -> None:
    (tmp_path / "policies").mkdir()
    write(tmp_path / "policies", plain(limits="{requests_per_minute: 100000, concurrent: 1000}"))
    url = f"sqlite:///{tmp_path}/visa.db"
    config = f'bases: {{default: {{url: "{base.url}"}}}}\nstore: sqlite:///visa.db\n'
    async with serving_command(tmp_path, config, "--workers", "2") as command:
        await command.ready(2)
        for share, pid in enumerate(command.workers()):
            with command.only(pid):
                for i in range(20):
                    assert (await command.post(ASK, {"X-Request-Id": f"{share}-{i}"})).status == 200
        said = [{"request_id": f"{i % 2}-{i % 20}", "score": i / 100} for i in range(100)]
        replies = await asyncio.gather(*(command.post(each, path="/v1/visa/feedback") for each in said))
        assert {reply.status for reply in replies} == {200}
        await soon(url, "exposures", 40)
        assert len(rows(url, "feedback")) == 20
        deadline = time.monotonic() + 10
        while (samples := await command.samples())['visa_store_writes_total{result="written"}'] != 140:
            assert time.monotonic() < deadline, samples
            await asyncio.sleep(0.05)
        assert (samples["visa_store_up"], samples["visa_store_queue"], samples["visa_store_dropped_total"]) == (1, 0, 0)
