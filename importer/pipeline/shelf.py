"""A bounded number of page-aligned buffers in which pieces of an object are put together.

This bound is the importer's memory limit: nothing is fetched before a place on the shelf is reserved for it.
"""

from collections.abc import Callable
from mmap import mmap

from importer.pipeline.pinned import Pinned

PIECE = 1 << 20


class Piece:
    """One piece: bytes of the object from `index` x PIECE on; `view` is full once `filled` equals its length."""

    __slots__ = ("filled", "index", "touched", "users", "view")

    def __init__(self, index: int, view: memoryview) -> None:
        """Begin an empty piece."""
        self.index = index
        self.view = view
        self.filled = 0
        self.users = 0
        self.touched = False

    @property
    def full(self) -> bool:
        """True once every byte is there."""
        return self.filled == len(self.view)

    @property
    def start(self) -> int:
        """Offset of its first byte in the object."""
        return self.index * PIECE


class Shelf:
    """Pieces in hand, whatever their state. Used on the event loop only."""

    def __init__(self, *, length: int, capacity: int, pinned: Pinned, on_full: Callable[[Piece], None]) -> None:
        """Hold up to `capacity` pieces of an object of `length` bytes; `on_full` hears of each completed one."""
        self.length = length
        self.capacity = capacity
        self.pieces: dict[int, Piece] = {}
        self._pinned = pinned
        self._on_full = on_full
        self._spare: list[mmap] = []
        self._lent: dict[int, mmap] = {}

    @property
    def room(self) -> int:
        """How many more pieces can be reserved."""
        return self.capacity - len(self.pieces)

    @property
    def count(self) -> int:
        """Pieces of the whole object."""
        return -(-self.length // PIECE)

    def reserve(self, index: int) -> Piece:
        """Take a buffer for piece `index`; the caller made sure there is room."""
        memory = self._spare.pop() if self._spare else mmap(-1, PIECE)
        self._lent[index] = memory
        piece = Piece(index, memoryview(memory)[: min(PIECE, self.length - index * PIECE)])
        self.pieces[index] = piece
        return piece

    def judged(self, index: int) -> bool:
        """Fill piece `index` from pinned bytes if they cover it; True if they do."""
        piece = self.pieces[index]
        data = self._pinned.cover(piece.start, piece.start + len(piece.view))
        if data is None:
            return False
        piece.view[:] = data
        piece.filled = len(piece.view)
        self._on_full(piece)
        return True

    def place(self, at: int) -> memoryview:
        """Return where the bytes from `at` on go, up to the end of their piece."""
        piece = self.pieces[at // PIECE]
        return piece.view[at - piece.start :]

    def filled(self, at: int, count: int) -> None:
        """Note `count` bytes of one piece at `at`. Raises Failure("source-changed") when judged bytes came back different."""
        piece = self.pieces[at // PIECE]
        piece.filled = at - piece.start + count
        if piece.full:
            self._pinned.check(piece.start, piece.view)
            self._on_full(piece)

    def release(self, index: int) -> None:
        """Give the buffer of piece `index` back."""
        piece = self.pieces.pop(index)
        piece.view.release()
        self._spare.append(self._lent.pop(index))

    def close(self) -> None:
        """Let all memory go."""
        self.pieces.clear()
        self._spare.clear()
        self._lent.clear()
