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
    """All pieces of an object, or those that are needed (see fetcher.Orders), handed on in byte order."""

    ascending = True

    def __init__(
        self,
        *,
        length: int,
        capacity: int,
        pinned: Pinned,
        connections: int,
        ordered: bool = True,
        needed: bytearray | None = None,
    ) -> None:
        """Fetch `length` bytes with at most `capacity` pieces in hand; `ordered` False hands pieces on as they complete.

        `needed` holds a byte for each piece, 0 for those to leave out; None: all are needed.
        """
        self.changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._shelf = Shelf(length=length, capacity=capacity, pinned=pinned, on_full=self._full)
        self._run = max(1, min(8, capacity // (2 * connections), self._shelf.count // (2 * connections)))
        self._ordered = ordered
        self._needed = bytearray(b"\x01") * self._shelf.count if needed is None else needed
        self._next = self._needed_from(0)
        """The next piece to ask for."""
        self._hand = self._next
        """The next piece to hand on, where they go in order."""
        self._left = self._unasked = self._needed.count(1)
        """Pieces not yet handed on, and those not yet asked for."""
        self._returned: deque[Span] = deque()
        self._done: deque[Piece] = deque()
        self._stopped = False

    def _needed_from(self, index: int) -> int:
        """Return the first needed piece from `index` on, the number of pieces if there is none."""
        found = self._needed.find(1, index)
        return self._shelf.count if found < 0 else found

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
        """Return what an attempt left over, else the next run of pieces once all of it has room."""
        if self._returned:
            return self._returned.popleft()
        while self._has_room():
            first = self._reserve_next()
            if self._shelf.judged(first):
                continue
            end = first + 1
            while self._next == end < first + self._run and end < self._shelf.count and self._shelf.room:
                end = self._reserve_next() + 1
            return Span(first * PIECE, min(end * PIECE, self._shelf.length))
        return None

    def _has_room(self) -> bool:
        """True if a whole run fits: to ask for each piece as it finds room would be a request a piece."""
        return 0 < min(self._run, self._unasked) <= self._shelf.room

    def _reserve_next(self) -> int:
        index = self._next
        self._shelf.reserve(index)
        self._unasked -= 1
        self._next = self._needed_from(index + 1)
        return index

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
        if self.over:
            self.changed.set()

    async def next(self) -> Piece | None:
        """Return the next piece (release it soon), or None after the last."""
        while self._left:
            piece = self._pick()
            if piece is not None:
                self._left -= 1
                self._hand = self._needed_from(piece.index + 1)
                return piece
            if self._stopped:
                break
            self._ready.clear()
            await self._ready.wait()
        return None

    def _pick(self) -> Piece | None:
        if not self._ordered:
            return self._done.popleft() if self._done else None
        piece = self._shelf.pieces.get(self._hand)
        return piece if piece is not None and piece.full else None

    def release(self, piece: Piece) -> None:
        """Give the piece's buffer back, so that more can be fetched."""
        self._shelf.release(piece.index)
        if self._has_room():
            self.changed.set()
