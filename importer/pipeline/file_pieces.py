"""Pieces of a file of this machine, in ascending order: what a spill is read by."""

import asyncio
import os
from mmap import mmap

from importer.api.failure import Failure
from importer.pipeline.shelf import PIECE, Piece


class FilePieces:
    """Hands on the needed pieces of an open file (see movers.Pieces); each is read when it is asked for."""

    def __init__(self, descriptor: int, length: int, needed: bytearray) -> None:
        """Read `length` bytes; `needed` holds a byte for each piece, 0 for those to leave out."""
        self._descriptor = descriptor
        self._length = length
        self._needed = needed
        self._at = 0
        self._spare: list[mmap] = []
        self._lent: dict[int, mmap] = {}

    async def next(self) -> Piece | None:
        """Return the next piece (release it soon), or None after the last. Raises Failure("io")."""
        index = self._needed.find(1, self._at)
        if index < 0:
            return None
        self._at = index + 1
        memory = self._lent[index] = self._spare.pop() if self._spare else mmap(-1, PIECE)
        piece = Piece(index, memoryview(memory)[: min(PIECE, self._length - index * PIECE)])
        await asyncio.to_thread(self._fill, piece)
        return piece

    def _fill(self, piece: Piece) -> None:
        while not piece.full:
            count = os.preadv(self._descriptor, [piece.view[piece.filled :]], piece.start + piece.filled)
            if not count:
                raise Failure("io", "a file of our own ended early", offset=piece.start + piece.filled, length=self._length)
            piece.filled += count

    def release(self, piece: Piece) -> None:
        """Give the piece's buffer back."""
        piece.view.release()
        self._spare.append(self._lent.pop(piece.index))
