"""Hot reload: the policies in force follow their files, one file at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from visa_proxy.errors import ConfigError
from visa_proxy.policy.load import load_policy, policy_files
from visa_proxy.policy.resolve import PolicySet, Tenant, conflicts
from visa_proxy.tasks import end
from visa_proxy.values import Space

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 0.2

Signature = tuple[int, int, int, int]
"""Inode, size, mtime and ctime (ns) of the file behind symlinks: a ConfigMap's swapped ..data changes the inode."""


@dataclass
class _Entry:
    """One file's state."""

    good: Tenant | None = None
    """Last version without a problem."""
    problems: tuple[str, ...] = ()


class PolicyWatcher:
    """Polls a directory; a change takes effect after two equal polls (0.2 to 0.4 s), so no half-written file is read.

    Polling, because inotify sees neither every mount (NFS, container file shares) nor a swapped symlink above a watched
    file. A broken file keeps its last good version in force and does not hold up the others. A file that is missing for
    one poll only, as while an editor saves by renaming, stays in force.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bases: Collection[str] | None = None,
        space: Space | None = None,
        interval_s: float = INTERVAL_S,
        on_change: Callable[[PolicySet], None] | None = None,
    ) -> None:
        """Loads all files. Raises ConfigError when the directory cannot be read, or holds files but not one good one.

        `on_change` is called in the event loop after every reload, with the new set.
        """
        self.directory = directory
        self._bases = bases
        self._space = space
        self._interval_s = interval_s
        self._on_change = on_change
        self._entries: dict[Path, _Entry] = {}
        self._seen = self._applied = self._scan()
        self._task: asyncio.Task[None] | None = None
        self.current = PolicySet()
        """In force. Read it once per request: a reload swaps it."""
        self._directory_problems: list[str] = []
        self._file_problems: list[str] = []
        self._apply(set(self._applied))
        if self.problems and not self.current.tenants:
            raise ConfigError(self.problems)

    @property
    def problems(self) -> list[str]:
        """What is wrong with the files as they are now; empty when what they say is in force."""
        return self._directory_problems + self._file_problems

    async def __aenter__(self) -> PolicyWatcher:
        self._task = asyncio.create_task(self._watch(), name="policy-watcher")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)
        self._task = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                changed = await asyncio.to_thread(self.poll)
                if changed and self._on_change is not None:
                    self._on_change(self.current)
            except Exception:
                # The watcher must outlive whatever one poll or one hook runs into.
                logger.exception("policy reload failed; the policies in force stay")

    def poll(self) -> bool:
        """Look once, and apply what has been the same for two looks. True when something was applied."""
        try:
            scan = self._scan()
        except ConfigError as error:
            if not self._directory_problems:
                logger.error("policy directory %s cannot be read; the policies in force stay", self.directory)
            self._directory_problems = error.problems
            return False
        self._directory_problems = []
        settled = scan == self._seen
        self._seen = scan
        changed = {path for path in scan.keys() | self._applied.keys() if scan.get(path) != self._applied.get(path)}
        if not settled or not changed:
            return False
        self._applied = scan
        self._apply(changed)
        return True

    def _scan(self) -> dict[Path, Signature | None]:
        found: dict[Path, Signature | None] = {}
        for path in policy_files(self.directory):
            try:
                stat = path.stat()
            except OSError:
                found[path] = None
                continue
            found[path] = (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        return found

    def _apply(self, changed: set[Path]) -> None:
        """Read the changed files, settle conflicts, swap the set."""
        before = {path: entry.good for path, entry in self._entries.items()}
        # A file that lost a conflict has not changed itself, but may be right now.
        changed |= {path for path, entry in self._entries.items() if entry.problems}
        for path in sorted(changed):
            if path not in self._applied:
                self._entries.pop(path, None)
                logger.info("policy %s removed", path.name)
                continue
            entry = self._entries.setdefault(path, _Entry())
            try:
                entry.good, entry.problems = load_policy(path, bases=self._bases, space=self._space), ()
            except ConfigError as error:
                entry.problems = tuple(error.problems)
        self._revert_conflicts(before)
        self.current = PolicySet(entry.good for _, entry in sorted(self._entries.items()) if entry.good is not None)
        self._file_problems = [problem for _, entry in sorted(self._entries.items()) for problem in entry.problems]
        self._log(changed)

    def _revert_conflicts(self, before: dict[Path, Tenant | None]) -> None:
        """While two files claim one name or key, take back the newer claim: the later file's, unless it is unchanged.

        Ends, because each round takes back one change, and the set before all changes had no conflict.
        """
        while found := conflicts([e.good for _, e in sorted(self._entries.items()) if e.good is not None]):
            earlier, later, problem = found[0]
            by_tenant = {id(entry.good): path for path, entry in self._entries.items()}
            paths = by_tenant[id(later)], by_tenant[id(earlier)]
            path = next(path for path in paths if self._entries[path].good is not before.get(path))
            self._entries[path].good = before.get(path)
            self._entries[path].problems += (problem,)

    def _log(self, changed: set[Path]) -> None:
        for path in sorted(changed & self._entries.keys()):
            entry = self._entries[path]
            if not entry.problems:
                logger.info("policy %s loaded", path.name)
                continue
            stays = "its last good version stays in force" if entry.good else "it has none to fall back on"
            # Only places: a message quotes what was found, and what was found may be anything, a pasted key included.
            places = ", ".join(problem.split(": ", 1)[0] for problem in entry.problems)
            logger.error("policy %s is broken (%s), see /readyz; %s", path.name, places, stays)
