"""While data lands, writes down which: after it is on the device, never before."""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from importer.disk.journal import Hashed, Mark
from importer.pipeline.digest import Digests
from importer.pipeline.resume import Resume

EVERY_BYTES = 64 << 20
EVERY_SECONDS = 1.0


class Log(Protocol):
    """Where it is written: disk.journal_file.JournalFile."""

    def add(self, done: list[int], hashed: Hashed | None, mark: Mark | None) -> None:
        """Add a record, for good."""
        ...


class Flushable(Protocol):
    """Where the data goes: disk.target.Target."""

    def flush(self) -> None:
        """Have all data written so far on the device."""
        ...


class Checkpoints:
    """Used on the event loop; `save` blocks and may be called anywhere once nothing is written any more."""

    def __init__(self, log: Log, target: Flushable, digests: Digests, resume: Resume, *, piece: int) -> None:
        """Write to a journal that was begun with what `resume` tells. Units are pieces of so many bytes."""
        self.reach: Callable[[int], int] = lambda units: units * piece
        """Where in the object the data of the first so many units ends; a way whose units are blocks sets its own."""
        self._log = log
        self._target = target
        self._digests = digests
        self._landed = bytearray(resume.done)
        self._leading = 0
        self._fresh: list[int] = []
        self._bytes = 0
        self._mark = self._marked = resume.mark
        self._due = asyncio.Event()
        self._saving = threading.Lock()
        """A cancelled task leaves its thread saving: the journal must not be closed under it."""
        self._error: Exception | None = None
        self.saved = False
        """True once there is something to go on from."""

    def done(self, unit: int, size: int) -> None:
        """Take note that all data of a piece or block was written: `size` bytes."""
        self._fresh.append(unit)
        self._bytes += size
        if self._bytes >= EVERY_BYTES:
            self._due.set()

    def mark(self, mark: Mark) -> None:
        """Take note that all data before a mark was written."""
        self._mark = mark
        if mark.disk - (self._marked.disk if self._marked else 0) >= EVERY_BYTES:
            self._due.set()

    async def run(self) -> None:
        """Save whenever it is due, until cancelled. Raises Failure."""
        while True:
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            if self._fresh or self._mark != self._marked:
                await asyncio.to_thread(self.save)

    def save(self) -> None:
        """Write down what is done by now. Raises Failure, and then at every further call."""
        with self._saving:
            if self._error is not None:  # a device tells of a lost write once: what came after may not be believed
                raise self._error
            self._bytes = 0
            done, self._fresh, mark = self._fresh, [], self._mark
            if not done and mark == self._marked:
                return
            try:
                self._target.flush()
                self._log.add(done, self._hashed(done), mark)
            except Exception as error:
                self._error = error
                raise
            self._marked = mark
            self.saved = True

    def _hashed(self, done: list[int]) -> Hashed | None:
        """Return the digests as they were where the data of the leading units ends: all before is on the disk, nothing after."""
        if not self._digests.wanted:
            return None
        self._landed.extend(bytes(max(0, max(done, default=-1) + 1 - len(self._landed))))
        for unit in done:
            self._landed[unit] = 1
        end = self._landed.find(0, self._leading)
        self._leading = len(self._landed) if end < 0 else end
        return self._digests.snapshot(self._leading, self.reach(self._leading))

    def rest(self) -> None:
        """Return once no thread saves any more. Raises what went wrong in one that nobody waited for."""
        with self._saving:
            if self._error is not None:
                raise self._error
