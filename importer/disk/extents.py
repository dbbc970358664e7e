"""What an image's tables claim, judged while they are walked. Pure.

A walker calls `add` for each run of guest data in guest order. The claims are checked for runs
past the end of the object (truncated), for two guest places that share host bytes (how a 384 KiB
file writes gigabytes), and for an order that would make a bounded read-ahead window fetch the same
bytes again and again.
"""

from array import array
from collections import OrderedDict

from importer.api.failure import Failure

GRANULES = 1 << 23


class Extents:
    """Collects one image's claims; raises Failure("truncated" | "bomb") at the first that cannot stand."""

    def __init__(self, *, length: int, unit: int, window: int = 32 << 20, piece: int = 1 << 20) -> None:
        """Judge an object of `length` bytes mapped in clusters of `unit` bytes, as a window of `window` bytes would read it."""
        self.length = length
        self.unit = unit
        self.data_bytes = 0
        """Guest bytes backed by data: the lower bound of what the disk needs (compressed ones count whole)."""
        self.compressed_clusters = 0
        self.fetched = 0
        """Bytes that a window of this size would fetch, in pieces."""
        self._piece = piece
        self._slots = max(1, window // piece)
        self._recent: OrderedDict[int, None] = OrderedDict()
        self._used = bytearray((length // unit >> 3) + 1)
        self._granule = max(512, -(-length // GRANULES))
        self._starts: array[int] | None = None

    def add(self, host: int, size: int) -> None:
        """Claim `size` bytes of plain data at `host`; a multiple of `unit`, save a cut last cluster."""
        if host + size > self.length:
            raise Failure(
                "truncated", "the image's tables point past its end", offset=host, needed_length=host + size, length=self.length
            )
        first, last = host // self.unit, (host + size - 1) // self.unit
        for cluster in range(first, last + 1):
            byte, bit = cluster >> 3, 1 << (cluster & 7)
            if self._used[byte] & bit:
                raise Failure("bomb", "two places of the disk share the same bytes of the image", offset=cluster * self.unit)
            self._used[byte] |= bit
        self.data_bytes += size
        self._touch(host, size)

    def add_compressed(self, host: int, size: int, guest: int, densest: int) -> None:
        """Claim one compressed cluster of `guest` bytes held in up to `size` bytes at `host`.

        `densest` is the fewest bytes that can hold such a cluster: more starts in one stretch of the object
        than fit there means that entries share them. `size` may be rounded up to sectors past the end.
        """
        if host >= self.length:
            raise Failure("truncated", "the image's tables point past its end", offset=host, length=self.length)
        if self._starts is None:
            self._starts = array("L", bytes(8 * (self.length // self._granule + 1)))
        slot = host // self._granule
        self._starts[slot] += 1
        if self._starts[slot] > self._granule // max(1, densest) + 1:
            raise Failure("bomb", "many places of the disk share the same compressed bytes of the image", offset=host)
        self.compressed_clusters += 1
        self.data_bytes += guest
        self._touch(host, min(size, self.length - host))

    def _touch(self, host: int, size: int) -> None:
        for piece in range(host // self._piece, (host + size - 1) // self._piece + 1):
            if piece in self._recent:
                self._recent.move_to_end(piece)
                continue
            self.fetched += self._piece
            self._recent[piece] = None
            if len(self._recent) > self._slots:
                self._recent.popitem(last=False)

    @property
    def in_order(self) -> bool:
        """True if a bounded window fetches at most 1.05 x the object (the rest of the 1.1 x is for the tables)."""
        return self.fetched <= self.length * 1.05 + self._piece
