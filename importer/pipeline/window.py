"""Random reads of a remote object through a bounded, read-ahead window.

qemu-img first walks all mapping tables (isolated reads, all over the object) and then reads data more or less in
order, many reads at once. So the read-ahead follows sequential reads only; an isolated read fetches the pieces it
needs and nothing else; and a demanded piece may always evict one that nobody uses, so that demand never waits for
the read-ahead.
"""

import asyncio
from collections import Counter, OrderedDict, deque

from importer.disk.reads import Span
from importer.pipeline.pinned import Pinned
from importer.pipeline.shelf import PIECE, Piece, Shelf

RUN = 4
"""Pieces asked for in one ranged request of the read-ahead."""


class Window:
    """Pieces on demand and ahead of demand (see fetcher.Orders)."""

    ascending = False

    def __init__(self, *, length: int, capacity: int, pinned: Pinned) -> None:
        """Keep at most `capacity` pieces of an object of `length` bytes."""
        self.changed = asyncio.Event()
        self._shelf = Shelf(length=length, capacity=capacity, pinned=pinned, on_full=self._full)
        self._behind = capacity // 3
        self._ahead = capacity - self._behind - RUN
        self._front = 0
        self._base = 0
        self._follower: int | None = None
        self._returned: deque[Span] = deque()
        self._demanded: OrderedDict[int, None] = OrderedDict()
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._arrivals: dict[int, asyncio.Event] = {}
        self._awaited: Counter[int] = Counter()
        """How many readers wait for a piece: one that has just come must not be evicted before they wake."""
        self._stopped = False
        self._advanced = asyncio.Event()
        self.reader_done = False
        self._error: BaseException | None = None

    @property
    def over(self) -> bool:
        """True once the reader is done."""
        return self._stopped

    def stop(self, error: BaseException | None = None) -> None:
        """End; reads still waiting fail with `error`."""
        self._stopped = True
        self._error = error
        for event in self._arrivals.values():
            event.set()
        self._advanced.set()
        self.changed.set()

    @property
    def count(self) -> int:
        """Pieces of the whole object."""
        return self._shelf.count

    async def until_base(self, index: int) -> None:
        """Wait until the reader has come as far as piece `index`."""
        while self._base < index and not self._stopped and not self.reader_done:
            self._advanced.clear()
            await self._advanced.wait()

    def lead(self) -> None:
        """The reader is done; from now on the follower sets the pace."""
        self.reader_done = True
        self._advanced.set()

    def _move(self, base: int) -> None:
        self._base = base
        self._advanced.set()
        self.changed.set()

    def follow(self, index: int) -> None:
        """Keep pieces from `index` on until a digest has seen them, as far as they lie behind the reader."""
        self._follower = index
        self.changed.set()

    async def acquire(self, index: int, *, leads: bool = True) -> Piece:
        """Return piece `index`, full; `release` it when its bytes have been used. `leads` False moves no read-ahead."""
        if leads:
            self._steer(index)
        while True:
            if self._stopped:
                raise self._error or asyncio.CancelledError
            piece = self._shelf.pieces.get(index)
            if piece is not None and piece.full:
                break
            if piece is None and index not in self._demanded:
                self._demanded[index] = None
                self.changed.set()
            self._awaited[index] += 1
            try:
                await self._arrivals.setdefault(index, asyncio.Event()).wait()
            finally:
                self._awaited[index] -= 1
        self._use(piece)
        return piece

    def at_hand(self, first: int, last: int) -> list[Piece] | None:
        """Acquire pieces first..last if all of them are full already, else none of them."""
        pieces = []
        for index in range(first, last + 1):
            piece = self._shelf.pieces.get(index)
            if piece is None or not piece.full:
                return None
            pieces.append(piece)
        for piece in pieces:
            self._steer(piece.index)
            self._use(piece)
        return pieces

    def _use(self, piece: Piece) -> None:
        piece.users += 1
        piece.touched = True
        self._idle.pop(piece.index, None)

    def release(self, piece: Piece) -> None:
        """Allow the piece to be evicted once nobody else uses it."""
        piece.users -= 1
        if not piece.users:
            self._idle[piece.index] = None
            self.changed.set()

    def _steer(self, index: int) -> None:
        if self._base - self._behind <= index <= self._front:
            if index > self._base:
                self._move(index)
        elif index - 1 in self._shelf.pieces:  # the second of two neighbours: a new run begins here
            self._front = index
            self._move(index)

    def take(self) -> Span | None:
        """Return a broken span, else a demanded piece, else the next run of the read-ahead."""
        if self._returned:
            return self._returned.popleft()
        while self._demanded:
            index = next(iter(self._demanded))
            if index not in self._shelf.pieces:
                if not self._make_room(demand=True):
                    return None
                del self._demanded[index]
                if span := self._fetch_from(index, index + 1):
                    return span
            else:
                del self._demanded[index]
        while self._front < min(self._base + self._ahead, self._shelf.count):
            if self._front in self._shelf.pieces:
                self._front += 1
                continue
            if not self._make_room(demand=False):
                return None
            first = self._front
            span = self._fetch_from(first, min(first + RUN, self._base + self._ahead, self._shelf.count))
            self._front = max(first + 1, -(-span.end // PIECE)) if span else first + 1
            if span:
                return span
        return None

    def _fetch_from(self, first: int, end: int) -> Span | None:
        shelf = self._shelf
        shelf.reserve(first)
        if shelf.judged(first):
            return None
        last = first + 1
        while last < end and last not in shelf.pieces and self._make_room(demand=False):
            shelf.reserve(last)
            last += 1
        return Span(first * PIECE, min(last * PIECE, shelf.length))

    def _make_room(self, *, demand: bool) -> bool:
        if self._shelf.room:
            return True
        victim = self._victim(demand=demand)
        if victim is None:
            return False
        self._idle.pop(victim)
        self._shelf.release(victim)
        return True

    def _victim(self, *, demand: bool) -> int | None:
        """Return the piece to evict, None to wait for one."""
        wanted = None
        for index in self._idle:
            if self._awaited[index]:
                continue
            unhashed = self._follower is not None and index >= self._follower
            if unhashed or (self._base <= index < self._front and not self._shelf.pieces[index].touched):
                wanted = index if wanted is None else max(index, wanted)
            elif demand or not self._base - self._behind <= index <= self._base:
                return index
        return wanted if demand and not self._follower_goes_on() else None

    def _follower_goes_on(self) -> bool:
        """True if the digest will make room by itself, so that nothing it has not seen need be dropped."""
        follower = -1 if self._follower is None else self._follower
        return follower in self._shelf.pieces and (follower <= self._base or self.reader_done)

    def give_back(self, span: Span) -> None:
        """Queue what an attempt did not bring: somebody may be waiting for it."""
        self._returned.append(span)
        self.changed.set()

    def place(self, at: int) -> memoryview:
        """See Shelf.place."""
        return self._shelf.place(at)

    def filled(self, at: int, count: int) -> None:
        """See Shelf.filled."""
        self._shelf.filled(at, count)

    def _full(self, piece: Piece) -> None:
        self._idle[piece.index] = None
        event = self._arrivals.pop(piece.index, None)
        if event:
            event.set()
        self.changed.set()
