"""What qemu-img reads through our NBD server: an object behind a window, or a file of ours.

Both serve judged bytes from where they were pinned, and both remember why a read failed, since NBD can only say EIO.
"""

import asyncio
import os
import time

from importer.api.failure import Failure
from importer.pipeline.meter import Clock
from importer.pipeline.nbd import Parts, ReadFailed
from importer.pipeline.pinned import Pinned
from importer.pipeline.shelf import PIECE, Piece
from importer.pipeline.window import Window

BEYOND = 1 << 40
"""How much larger than the object the export is: qemu-img takes what lies past the end of a file for zeroes, so it must
never see that end; a read there is a sign of a truncated image."""


SECTOR = 512


class _Object:
    """What both exports share: the object's length, its pinned bytes, and the failure behind the first EIO.

    qemu reads compressed clusters in whole sectors, but an image may end within its last one: that rest reads as zeroes.
    """

    def __init__(self, *, length: int, exact: bool, pinned: Pinned) -> None:
        self.size = length if exact else length + BEYOND
        self.failure: Failure | None = None
        self.reads = 0
        """Reads asked for so far."""
        self._length = length
        self._pinned = pinned
        self._waiting = 0

    def _surplus(self, offset: int, length: int) -> int:
        """Return how many of the bytes asked for lie past the end, within its sector. Raises ReadFailed for more."""
        self.reads += 1
        surplus = max(0, offset + length - self._length)
        if surplus > -self._length % SECTOR or surplus >= length:
            self.fail(
                Failure(
                    "truncated",
                    "the image's data lies beyond its end",
                    offset=offset,
                    needed_length=offset + length,
                    length=self._length,
                )
            )
            raise ReadFailed
        return surplus

    @property
    def held(self) -> bool:
        """True while a read waits for its bytes."""
        return self._waiting > 0

    def fail(self, failure: Failure) -> None:
        """Remember the first failure."""
        self.failure = self.failure or failure


class _Lent(list[memoryview]):
    """Parts of one read, and the pieces they lie in."""

    pieces: tuple[Piece, ...] = ()


class WindowExport(_Object):
    """A remote object (see nbd.PromptExport)."""

    def __init__(self, window: Window, clock: Clock, *, length: int, exact: bool, pinned: Pinned) -> None:
        """Serve `length` bytes through `window`; `clock` counts how long any read waits."""
        super().__init__(length=length, exact=exact, pinned=pinned)
        self._window = window
        self._clock = clock
        self._since = 0.0

    def ready(self, offset: int, length: int) -> Parts | None:
        """Return the parts if no fetch is needed. Raises ReadFailed."""
        surplus = self._surplus(offset, length)
        end = offset + length - surplus
        judged = self._pinned.cover(offset, end)
        if judged is not None:
            return _padded(_Lent([judged]), surplus)
        pieces = self._window.at_hand(offset // PIECE, (end - 1) // PIECE)
        return None if pieces is None else _padded(_parts(tuple(pieces), offset, end), surplus)

    async def read(self, offset: int, length: int) -> Parts:
        """Return the parts, fetched if need be. Raises ReadFailed."""
        surplus = self._surplus(offset, length)
        end = offset + length - surplus
        judged = self._pinned.cover(offset, end)
        if judged is not None:
            return _padded(_Lent([judged]), surplus)
        pieces: list[Piece] = []
        self._begin_wait()
        try:
            for index in range(offset // PIECE, (end - 1) // PIECE + 1):
                pieces.append(await self._window.acquire(index))
        except BaseException as error:
            for piece in pieces:
                self._window.release(piece)
            if isinstance(error, Failure):
                self.fail(error)
                raise ReadFailed from error
            raise
        finally:
            self._end_wait()
        return _padded(_parts(tuple(pieces), offset, end), surplus)

    def _begin_wait(self) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting += 1

    def _end_wait(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._clock.waiting += time.monotonic() - self._since

    def done(self, parts: Parts) -> None:
        """Let the pieces go."""
        if isinstance(parts, _Lent):
            for piece in parts.pieces:
                self._window.release(piece)


def _parts(pieces: tuple[Piece, ...], offset: int, end: int) -> _Lent:
    parts = _Lent(piece.view[max(0, offset - piece.start) : end - piece.start] for piece in pieces)
    parts.pieces = pieces
    return parts


def _padded(parts: _Lent, surplus: int) -> _Lent:
    if surplus:
        parts.append(memoryview(bytes(surplus)))
    return parts


class FileExport(_Object):
    """A descriptor of ours: a spill, or a local image."""

    def __init__(self, fd: int, *, length: int, exact: bool, pinned: Pinned) -> None:
        """Serve `length` bytes of `fd`."""
        super().__init__(length=length, exact=exact, pinned=pinned)
        self._fd = fd

    async def read(self, offset: int, length: int) -> Parts:
        """Return the bytes. Raises ReadFailed."""
        surplus = self._surplus(offset, length)
        judged = self._pinned.cover(offset, offset + length - surplus)
        if judged is not None:
            return _padded(_Lent([judged]), surplus)
        self._waiting += 1
        try:
            data = await asyncio.to_thread(_pread, self._fd, offset, length - surplus)
        finally:
            self._waiting -= 1
        try:
            if len(data) < length - surplus:
                raise Failure("source-changed", "the file became shorter while it was read", offset=offset)
            self._pinned.check(offset, memoryview(data))
        except Failure as failure:
            self.fail(failure)
            raise ReadFailed from failure
        return _padded(_Lent([memoryview(data)]), surplus)

    def done(self, parts: Parts) -> None:
        """Nothing was lent."""


def _pread(fd: int, offset: int, length: int) -> bytes:
    data = os.pread(fd, length, offset)
    while len(data) < length and (more := os.pread(fd, length - len(data), offset + len(data))):
        data += more
    return data
