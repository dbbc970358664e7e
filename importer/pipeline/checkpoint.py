"""While pieces land, writes down which of them have: after their data is on the device, never before."""

import asyncio
import threading
from typing import Protocol

from importer.disk.journal import Hashed
from importer.pipeline.digest import Digests
from importer.pipeline.shelf import Piece

EVERY_BYTES = 64 << 20
EVERY_SECONDS = 1.0


class Log(Protocol):
    """Where it is written: disk.journal_file.JournalFile."""

    def add(self, done: list[int], hashed: Hashed | None) -> None:
        """Add a record, for good."""
        ...


class Flushable(Protocol):
    """Where the data goes: disk.target.Target."""

    def flush(self) -> None:
        """Have all data written so far on the device."""
        ...


class Checkpoints:
    """Used on the event loop; `save` blocks and may be called anywhere once nothing is written any more."""

    def __init__(self, log: Log, target: Flushable, digests: Digests) -> None:
        """Write to a journal that was begun."""
        self._log = log
        self._target = target
        self._digests = digests
        self._fresh: list[int] = []
        self._bytes = 0
        self._due = asyncio.Event()
        self._saving = threading.Lock()
        """A cancelled task leaves its thread saving: the journal must not be closed under it."""
        self.saved = False
        """True once there is something to go on from."""

    def done(self, piece: Piece) -> None:
        """Take note that all data of a piece was written."""
        self._fresh.append(piece.index)
        self._bytes += len(piece.view)
        if self._bytes >= EVERY_BYTES:
            self._due.set()

    async def run(self) -> None:
        """Save whenever it is due, until cancelled. Raises Failure."""
        while True:
            try:
                async with asyncio.timeout(EVERY_SECONDS):
                    await self._due.wait()
            except TimeoutError:
                pass
            if self._fresh:
                await asyncio.to_thread(self.save)

    def save(self) -> None:
        """Write down what is done by now. Raises Failure."""
        with self._saving:
            self._due.clear()
            self._bytes = 0
            done, self._fresh = self._fresh, []
            if not done:
                return
            hashed = self._digests.snapshot() if self._digests.wanted else None
            self._target.flush()
            self._log.add(done, hashed)
            self.saved = True

    def rest(self) -> None:
        """Return once no thread saves any more."""
        with self._saving:
            return
