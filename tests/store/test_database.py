"""The schema and what is written into it, on both databases."""

from __future__ import annotations

import functools
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests.fakes.postgres import Postgres
from tests.fakes.stored import exposure, rows
from visa_proxy.errors import ConfigError
from visa_proxy.store import migrate
from visa_proxy.store.address import Address
from visa_proxy.store.database import Database, Unavailable
from visa_proxy.store.engine import open_engine
from visa_proxy.store.load import check_store
from visa_proxy.store.read import Reader
from visa_proxy.store.rows import Exposure, Feedback, Unmeasured
from visa_proxy.store.tables import METADATA

DAY = {"acme": 86_400.0}


def opened(url: str) -> Database:
    database = Database(Address.parse(url))
    database.check()
    return database


def test_migrations_make_the_tables_that_the_code_uses_and_can_be_run_again(url: str) -> None:
    opened(url).close()
    opened(url).close()
    engine = open_engine(Address.parse(url))
    with engine.begin() as connection:
        assert migrate.revision(connection) == migrate.HEAD
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_that_stores_open_at() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.HEAD


def test_the_schema_of_a_newer_version_stays(url: str) -> None:
    opened(url).close()
    engine = open_engine(Address.parse(url))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    database = opened(url)
    assert database.write([exposure()], {}) == 0
    database.close()
    assert [row["version_num"] for row in _versions(url)] == ["9999"]


def _versions(url: str) -> list[dict[str, str]]:
    engine = open_engine(Address.parse(url), reads=True)
    with engine.begin() as connection:
        found = [dict(row._mapping) for row in connection.execute(sa.text("SELECT version_num FROM alembic_version"))]
    engine.dispose()
    return found


def test_several_that_start_together_migrate_once(url: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        for database in pool.map(opened, [url] * 6):
            database.close()
    assert [row["version_num"] for row in _versions(url)] == [migrate.HEAD]


def test_several_processes_that_start_together_migrate_once(url: str) -> None:
    code = "import sys; from visa_proxy.store.database import *; Database(Address.parse(sys.argv[1])).check()"
    running = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in running] == [(b"", 0)] * 2
    assert [row["version_num"] for row in _versions(url)] == [migrate.HEAD]


def test_an_exposure_comes_back_as_it_was(url: str) -> None:
    database = opened(url)
    given = exposure(
        experiment="tone",
        arm="bold",
        unit_hash="0123456789abcdef",
        before={"power": -0.5, "stimulation": 0.125},
        after={"power": 0.0},
        target={"power": 1.0},
        similarity_before=0.1,
        similarity_after=0.2,
        consistency=0.9,
        rewrite_s=0.2,
        streamed=True,
        surface="responses",
    )
    assert database.write([given], {}) == 0
    said = Feedback("acme", given.request_id, given.at + 1, score=-0.25, thumbs="down", label="too loud")
    assert database.feedback([said], {}) == [True]
    database.close()
    with Reader(url) as reader:
        (measured,) = reader.exposures("acme", experiment="tone")
        assert measured.exposure == given and measured.feedback == said
        assert reader.experiments() == [("acme", "tone")] and reader.experiments("other") == []


@pytest.mark.parametrize("experiment", ["", "tone"])
def test_rows_of_which_more_and_less_is_known_are_written_together(url: str, experiment: str) -> None:
    database = opened(url)
    known: dict[str, Any] = {"tenant": "acme", "profile": "off", "experiment": experiment, "arm": "a", "unit_hash": "f"}
    known |= {"surface": "completions", "status": "passthrough", "latency_s": 0.5}
    least = [Unmeasured(request_id=f"u{i}", at=1000.0 + i, streamed=i % 2, **known) for i in range(200)]
    part = [Exposure(request_id=f"p{i}", at=2000.0 + i, rewrite_s=0.25, query="q", **known) for i in range(40)]
    whole = [Exposure(request_id=f"w{i}", at=3000.0 + i, target={"power": 1.0}, **known) for i in range(10)]
    assert database.write([*whole, *least, *part], DAY) == 0
    assert database.write([least[0]._replace(at=900.0, status="older")], DAY) == 0
    database.close()
    plain = [Exposure(**(each._asdict() | {"streamed": each.streamed == 1})) for each in least]
    with Reader(url) as reader:
        found = [measured.exposure for measured in reader.exposures("acme")]
    assert found == [*plain, *(replace(each, query=None) for each in part), *whole]
    assert [type(each.streamed) for each in found[:2]] == [bool, bool] and len(rows(url, "texts")) == 40


@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("experiment", ["", "tone"])
def test_batches_of_any_size_are_written_and_the_newest_of_an_id_wins(url: str, count: int, experiment: str) -> None:
    database = opened(url)
    made = functools.partial(exposure, experiment=experiment)
    first = [made(f"r{i}", status="aligned", at=1000.0 + i) for i in range(count)]
    for batch in (
        first,
        first,
        [made("r0", at=2000.0), made("r0", at=1500.0, status="aligned"), made("r0", "other")],
    ):
        assert database.write(batch, {}) == 0
    assert database.write([made("r0", at=500.0, status="late")], {}) == 0
    database.close()
    # In an experiment a request counts once already where it is stored.
    assert len(rows(url, "exposures")) == (count + 1 if experiment else 2 * count + 4)
    with Reader(url) as reader:
        found = [measured.exposure for measured in reader.exposures("acme")]
        assert sorted(each.request_id for each in found) == sorted(f"r{i}" for i in range(count))
        assert [each.status for each in found if each.request_id == "r0"] == ["adapted"]
        assert [each.at for each in found] == sorted(each.at for each in found)


def test_what_neither_database_can_hold_is_made_fit(url: str) -> None:
    database = opened(url)
    assert database.write([exposure(query="a\x00b\ud800c", answer="x" * 100_000)], DAY) == 0
    assert database.feedback([Feedback("acme", "r1", 1.0, label="\x00\udfff")], {}) == [True]
    database.close()
    (text,) = rows(url, "texts")
    assert text["query"] == "a\ufffdb?c" and len(text["answer"]) == 65_536
    assert rows(url, "feedback")[0]["label"] == "\ufffd?"


def test_a_row_that_the_database_refuses_costs_no_other(url: str) -> None:
    database = opened(url)
    bad = exposure("bad", latency_s=None)
    assert database.write([exposure("r1"), bad, exposure("r2")], {}) == 1
    database.close()
    assert sorted(row["request_id"] for row in rows(url, "exposures")) == ["r1", "r2"]


def test_the_same_feedback_twice_is_one_row_and_a_changed_one_replaces_it(url: str) -> None:
    database = opened(url)
    up, down = Feedback("acme", "r1", 1.0, thumbs="up", label="a"), Feedback("acme", "r1", 2.0, thumbs="down")
    other = Feedback("other", "r1", 1.0, thumbs="up", label="a")
    assert database.feedback([up, other, up], {}) == [True, True, False]
    assert database.feedback([Feedback("acme", "r1", 9.0, thumbs="up", label="a")], {}) == [False]
    assert database.feedback([down, up, down], {}) == [True, True, True]
    database.close()
    found = {row["tenant"]: row for row in rows(url, "feedback")}
    assert (found["acme"]["thumbs"], found["acme"]["label"], found["other"]["thumbs"]) == ("down", None, "up")


def test_feedback_may_come_first_and_stays_with_its_tenant(url: str) -> None:
    database = opened(url)
    database.feedback([Feedback("acme", "r1", 1.0, score=1.0), Feedback("other", "r2", 1.0, score=-1.0)], {})
    database.write([exposure("r1"), exposure("r2"), exposure("r1", "other")], {})
    database.close()
    with Reader(url) as reader:
        assert {m.exposure.request_id: m.feedback and m.feedback.score for m in reader.exposures("acme")} == {
            "r1": 1.0,
            "r2": None,
        }
        assert [m.feedback for m in reader.exposures("other")] == [None]


def test_a_reader_is_bounded_and_takes_the_newest(url: str) -> None:
    database = opened(url)
    database.write([exposure(f"r{i}", at=float(i), experiment="e" if i % 2 else "") for i in range(10)], {})
    database.close()
    with Reader(url) as reader:
        assert [m.exposure.at for m in reader.exposures("acme", limit=3)] == [7.0, 8.0, 9.0]
        assert [m.exposure.at for m in reader.exposures("acme", since=2.0, until=5.0)] == [2.0, 3.0, 4.0]
        assert [m.exposure.at for m in reader.exposures("acme", experiment="e", limit=2)] == [7.0, 9.0]
        assert reader.exposures("acme", limit=0) == [] and reader.exposures("nobody") == []


def test_texts_go_when_their_time_is_over_and_numbers_stay(url: str) -> None:
    database = opened(url)
    now = exposure().at
    database.write([exposure("old", at=now - 90_000, query="q"), *(exposure(f"r{i}", query="q") for i in range(1200))], DAY)
    database.feedback(
        [Feedback("acme", "old", now - 90_000, score=1.0, comment="c"), Feedback("acme", "r1", now, comment="d")], DAY
    )
    with Reader(url) as reader:
        seen = {m.exposure.request_id: m for m in reader.exposures("acme", texts=True)}
        assert seen["old"].exposure.query is None and seen["old"].feedback is not None and seen["old"].feedback.comment is None
        assert seen["r1"].exposure.query == "q" and seen["r1"].feedback is not None and seen["r1"].feedback.comment == "d"
        assert {m.exposure.query for m in reader.exposures("acme")} == {None}
    assert [database.sweep(DAY) for _ in range(3)] == [1, 1, 0]
    assert len(rows(url, "texts")) == 1200 and len(rows(url, "exposures")) == 1201
    # A policy that keeps texts no longer, or not so long, holds for those that are there.
    assert [database.sweep({"other": 0.0, "acme": 0.0}) for _ in range(5)] == [500, 500, 200, 1, 0]
    database.close()
    assert rows(url, "texts") == [] and len(rows(url, "exposures")) == 1201
    assert {row["request_id"]: (row["comment"], row["score"]) for row in rows(url, "feedback")} == {
        "old": (None, 1.0),
        "r1": (None, None),
    }


def test_texts_of_tenants_that_do_not_opt_in_are_never_written(url: str) -> None:
    database = opened(url)
    database.write([exposure(query="secret", answer="secret", rewrite="secret")], {"acme": 0.0, "other": 5.0})
    database.feedback([Feedback("acme", "r1", 1.0, score=1.0, comment="secret")], {})
    database.close()
    assert rows(url, "texts") == [] and rows(url, "feedback")[0]["comment"] is None


def test_deleted_texts_are_not_left_in_the_file(tmp_path: Path) -> None:
    database = opened(f"sqlite:///{tmp_path}/visa.db")
    database.write([exposure(query="the-secret-question " * 50)], DAY)
    database.close()
    assert b"the-secret-question" in (tmp_path / "visa.db").read_bytes()
    while database.sweep({"acme": 0.0}):
        pass
    database.close()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert left and b"the-secret-question" not in left


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    database = opened(f"sqlite:///{tmp_path}/visa.db")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    database.close()
    assert modes["visa.db"] == modes["visa.db-wal"] == 0o600


def test_a_connection_that_died_while_idle_is_no_failure(server: Postgres) -> None:
    database = opened(server.database("idle"))
    with open_engine(Address.parse(server.url())).begin() as connection:
        ended = connection.execute(sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'idle'")).all()
    assert len(ended) == 1
    assert database.feedback([Feedback("acme", "r1", 1.0, score=1.0)], {}) == [True]
    database.close()


def test_what_libpq_understands_works(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    server.database("several")
    monkeypatch.setenv("PGPASSWORD", "s3cret/word")
    url = f"postgresql://tester@127.0.0.1:1,127.0.0.1:{server.port}/several?target_session_attrs=read-write"
    database = opened(url)
    assert database.write([exposure()], {}) == 0
    database.close()
    assert len(rows(url, "exposures")) == 1


def test_errors_name_no_password(server: Postgres) -> None:
    for url in (
        server.url("nowhere"),
        server.url(password="wrong-word"),
        "postgresql://u:wrong-word@127.0.0.1:1/x",
        "postgresql://u:wrong-word@127.0.0.1:70000/x?bad=1",
        "postgresql://127.0.0.1:1/x?password=wrong-word&user=u",
    ):
        with pytest.raises(Unavailable) as down:
            Database(Address.parse(url)).check()
        with pytest.raises(ConfigError) as unread:
            Reader(url).experiments()
        for text in (str(down.value), str(unread.value), repr(Address.parse(url))):
            assert "wrong-word" not in text and "s3cret" not in text and "\n" not in text


def test_wrong_addresses_are_told_before_anything_starts(tmp_path: Path) -> None:
    for url in ("mysql://u:secret@h/d", "sqlite://", "sqlite:///", "secret", "postgresql://"):
        with pytest.raises(ConfigError, match="allowed: sqlite:///") as found:
            check_store(url)
        assert "secret" not in str(found.value)
    with pytest.raises(ConfigError, match="there is no folder"):
        check_store(f"sqlite:///{tmp_path}/missing/visa.db")
    with pytest.raises(ConfigError, match="there is no file"):
        Reader(f"sqlite:///{tmp_path}/visa.db").experiments()
    assert list(tmp_path.iterdir()) == []
