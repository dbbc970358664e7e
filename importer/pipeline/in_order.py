"""Orders that run through an object from its first byte to its last, a bounded way ahead of their consumer.

Pieces are fetched in parallel and arrive in any order. A raw disk takes them as they come; decoders and
digests take them in byte order through `next`.
"""

import asyncio
from collections import deque

from importer.disk.reads import Span
from importer.pipeline.pinned import Pinned
from importer.pipeline.shelf import PIECE, Piece, Shelf


class InOrder:
    """All pieces of start..end of an object (see fetcher.Orders), handed on in byte order."""

    def __init__(self, *, length: int, capacity: int, pinned: Pinned, connections: int, ordered: bool = True) -> None:
        """Fetch `length` bytes with at most `capacity` pieces in hand; `ordered` False hands pieces on as they complete."""
        self.changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._shelf = Shelf(length=length, capacity=capacity, pinned=pinned, on_full=self._full)
        self._run = max(1, min(8, capacity // (2 * connections), self._shelf.count // (2 * connections)))
        self._ordered = ordered
        self._next = 0
        self._handed = 0
        self._returned: deque[Span] = deque()
        self._done: deque[Piece] = deque()
        self._stopped = False

    @property
    def over(self) -> bool:
        """True once every byte was brought, or nobody wants them any more."""
        return self._stopped or (self._next == self._shelf.count and not self._returned and self._all_full())

    def _all_full(self) -> bool:
        return all(piece.full for piece in self._shelf.pieces.values())

    def stop(self) -> None:
        """Ask for nothing more."""
        self._stopped = True
        self.changed.set()
        self._ready.set()

    def take(self) -> Span | None:
        """Return what an attempt left over, else the next run of pieces that has room."""
        if self._returned:
            return self._returned.popleft()
        shelf = self._shelf
        while shelf.room and self._next < shelf.count:
            first = self._next
            self._next += 1
            shelf.reserve(first)
            if shelf.judged(first):
                continue
            while self._next < min(first + self._run, shelf.count) and shelf.room:
                shelf.reserve(self._next)
                self._next += 1
            return Span(first * PIECE, min(self._next * PIECE, shelf.length))
        return None

    def give_back(self, span: Span) -> None:
        """Queue what an attempt did not bring, lowest first: the consumer waits for it."""
        self._returned = deque(sorted([*self._returned, span]))
        self.changed.set()

    def place(self, at: int) -> memoryview:
        """See Shelf.place."""
        return self._shelf.place(at)

    def filled(self, at: int, count: int) -> None:
        """See Shelf.filled."""
        self._shelf.filled(at, count)

    def _full(self, piece: Piece) -> None:
        if not self._ordered:
            self._done.append(piece)
        self._ready.set()
        self.changed.set()

    async def next(self) -> Piece | None:
        """Return the next piece (release it soon), or None after the last."""
        while self._handed < self._shelf.count:
            piece = self._pick()
            if piece is not None:
                self._handed += 1
                return piece
            if self._stopped:
                break
            self._ready.clear()
            await self._ready.wait()
        return None

    def _pick(self) -> Piece | None:
        if not self._ordered:
            return self._done.popleft() if self._done else None
        piece = self._shelf.pieces.get(self._handed)
        return piece if piece is not None and piece.full else None

    def release(self, piece: Piece) -> None:
        """Give the piece's buffer back, so that more can be fetched."""
        self._shelf.release(piece.index)
        self.changed.set()
