"""What an image's tables claim, judged while they are walked. Pure.

A walker calls `add` for each run of guest data in guest order, `claim` for the tables themselves. The
claims are checked for runs past the end of the object (truncated), for two guest places that share host
bytes (how a 384 KiB file writes gigabytes), and for an order that would make a bounded read-ahead window
fetch the same bytes again and again.

Memory: one bit a unit, and for images with compressed clusters at most 16 MiB of counters.
"""

from array import array
from collections import OrderedDict

from importer.api.failure import Failure
from importer.disk.chart import Chart

GRANULES = 1 << 22
"""Most counters of compressed starts, 4 bytes each."""
BITMAP_BYTES = 128 << 20
"""Most bytes of the map of used units: 64 TiB in clusters of 64 KiB, 512 GiB in clusters of 512 bytes."""


class Extents:
    """Collects one image's claims; raises Failure("truncated" | "bomb") at the first that cannot stand."""

    def __init__(
        self, *, length: int, unit: int, window: int = 32 << 20, piece: int = 1 << 20, chart: Chart | None = None
    ) -> None:
        """Judge an object of `length` bytes mapped in units of `unit` bytes, as a window of `window` bytes would read it.

        What is claimed is also noted in `chart`, if given.

        Every plain run must begin at a multiple of `unit`: a format whose blocks are not aligned to their own
        size names a smaller unit that divides all offsets. Raises Failure("unsupported") for an object so long
        in units so small that it cannot be judged in bounded memory.
        """
        if length // unit >> 3 > BITMAP_BYTES:
            raise Failure("unsupported", "the image is too long for clusters this small", length=length, cluster=unit)
        self.length = length
        self.unit = unit
        self.chart = chart
        self.data_bytes = 0
        """Guest bytes backed by data (compressed ones count whole). Preallocated clusters count too, though they hold zeroes."""
        self.compressed_clusters = 0
        self.fetched = 0
        """Bytes that a window of this size would fetch, in pieces."""
        self._piece = piece
        self._slots = max(1, window // piece)
        self._recent: OrderedDict[int, None] = OrderedDict()
        self._latest = -1
        self._used = bytearray((length // unit >> 3) + 1)
        self._granule = max(512, -(-length // GRANULES))
        self._starts: array[int] | None = None

    def add(self, guest: int, host: int, size: int, *, data: int | None = None) -> None:
        """Claim `size` bytes at `host` as the disk's from `guest` on, of which `data` bytes count (all, unless said otherwise).

        A run that does not end at a multiple of `unit` still takes its last unit whole. Nothing for size 0.
        """
        if size <= 0:
            return
        if host + size > self.length:
            raise Failure(
                "truncated", "the image's tables point past its end", offset=host, needed_length=host + size, length=self.length
            )
        if not self._mark(host // self.unit, (host + size - 1) // self.unit):
            raise Failure("bomb", "two places of the disk share the same bytes of the image", offset=host, size=size)
        self.data_bytes += size if data is None else data
        self._touch(host, size)
        if self.chart is not None:
            self.chart.plain(guest, host, size)

    def claim(self, host: int, size: int) -> bool:
        """Claim the bytes of a table, which no data may share; False if some of them are claimed already.

        Raises Failure("truncated") if the table runs past the end of the object.
        """
        if host + size > self.length:
            raise Failure("truncated", "a table of the image lies past its end", needed_length=host + size, length=self.length)
        return size <= 0 or self._mark(host // self.unit, (host + size - 1) // self.unit)

    def add_compressed(self, guest: int, host: int, size: int, *, holds: int, densest: int) -> None:
        """Claim one compressed cluster: the disk's `holds` bytes from `guest` on, in up to `size` bytes at `host`.

        `densest` is the fewest bytes that can hold such a cluster: more starts in one stretch of the object
        than fit there means that entries share them. `size` may be rounded up to sectors past the end.
        """
        if not 0 <= host < self.length:
            raise Failure("truncated", "the image's tables point past its end", offset=host, length=self.length)
        starts = self._starts
        if starts is None:
            starts = self._starts = array("I", [0]) * (self.length // self._granule + 1)
        slot = host // self._granule
        starts[slot] += 1
        if starts[slot] > self._granule // (densest or 1) + 1:
            raise Failure("bomb", "many places of the disk share the same compressed bytes of the image", offset=host)
        self.compressed_clusters += 1
        self.data_bytes += holds
        end = host + size
        held = (end if end < self.length else self.length) - host
        self._touch(host, held)
        if self.chart is not None:
            self.chart.packed(guest, host, held)

    def refuse_mixed_units(self) -> None:
        """Refuse compressed clusters in units that a table or plain data takes, once all is claimed; only the chart knows them.

        Raises Failure("corrupt").
        """
        used, unit = self._used, self.unit
        for host, size in self.chart.packed_spans() if self.chart is not None else ():
            for index in range(host // unit, (host + size - 1) // unit + 1):
                if used[index >> 3] >> (index & 7) & 1:
                    raise Failure("corrupt", "a compressed cluster lies in a table or in other data", offset=host)

    def _mark(self, first: int, last: int) -> bool:
        """Set the bits first..last; False if one of them is set already (the others may then be set or not)."""
        used = self._used
        if first >> 3 == last >> 3:
            bits = (2 << last - first) - 1 << (first & 7)
            free = not used[first >> 3] & bits
            used[first >> 3] |= bits
            return free
        head, tail = 0xFF << (first & 7) & 0xFF, (2 << (last & 7)) - 1
        begin, end = (first >> 3) + 1, last >> 3
        free = not (used[begin - 1] & head or used[end] & tail or used.count(0, begin, end) != end - begin)
        used[begin - 1] |= head
        used[end] |= tail
        used[begin:end] = b"\xff" * (end - begin)
        return free

    def _touch(self, host: int, size: int) -> None:
        """Follow what a window of recently used pieces would have to fetch."""
        first, last = host // self._piece, (host + size - 1) // self._piece
        if first == last == self._latest:
            return
        recent = self._recent
        for piece in range(first, last + 1):
            if piece in recent:
                recent.move_to_end(piece)
                continue
            self.fetched += self._piece
            recent[piece] = None
            if len(recent) > self._slots:
                recent.popitem(last=False)
        self._latest = last

    @property
    def in_order(self) -> bool:
        """True if a bounded window fetches at most 1.05 x the object (the rest of the 1.1 x is for the tables)."""
        return self.fetched <= self.length * 1.05 + self._piece
