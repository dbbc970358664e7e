"""Bytes that were judged stay what they were.

A server could pass inspection and then send other bytes. What the quarantine read is therefore kept and
served from here; where the same bytes come along again inside a larger piece they must be the same.
Beyond a budget only their digests are kept, cut at piece boundaries, so that memory stays bounded.
"""

from bisect import bisect_right
from hashlib import blake2b

from importer.api.failure import Failure
from importer.disk.reads import Span


class Pinned:
    """Spans of an object with the bytes (or digests of the bytes) that were judged."""

    def __init__(self, *, piece: int, budget: int = 24 << 20) -> None:
        """Keep up to `budget` bytes; digests are cut at multiples of `piece`."""
        self._piece = piece
        self._budget = budget
        self._kept = 0
        self._longest = 0
        self._starts: list[int] = []
        self._data: list[bytes] = []
        self._digests: dict[int, list[tuple[Span, bytes]]] = {}

    def add(self, start: int, data: bytes) -> None:
        """Pin `data` at `start`. Raises Failure("source-changed") if it contradicts what is pinned already."""
        if not data:
            return
        self.check(start, memoryview(data))
        if self.cover(start, start + len(data)) is not None:
            return
        self._longest = max(self._longest, len(data))
        if self._kept + len(data) <= self._budget:
            at = bisect_right(self._starts, start)
            self._starts.insert(at, start)
            self._data.insert(at, data)
            self._kept += len(data)
            return
        end = start + len(data)
        while start < end:
            stop = min(end, (start // self._piece + 1) * self._piece)
            part = data[len(data) - (end - start) : len(data) - (end - stop)]
            self._digests.setdefault(start // self._piece, []).append((Span(start, stop), _digest(part)))
            start = stop

    def cover(self, start: int, end: int) -> memoryview | None:
        """Return the bytes start..end if one pinned span holds them all, else None."""
        at = bisect_right(self._starts, start)
        for index in range(at - 1, max(-1, at - 4), -1):
            base, data = self._starts[index], self._data[index]
            if base <= start and end <= base + len(data):
                return memoryview(data)[start - base : end - base]
        return None

    def check(self, start: int, view: memoryview) -> None:
        """Compare fetched bytes with what was judged. Raises Failure("source-changed")."""
        end = start + len(view)
        at = bisect_right(self._starts, end - 1)
        for index in range(at - 1, -1, -1):
            base, data = self._starts[index], self._data[index]
            low, high = max(base, start), min(base + len(data), end)
            if low < high and view[low - start : high - start] != memoryview(data)[low - base : high - base]:
                raise _changed(low)
            if base + self._longest <= start:
                break
        for span, digest in self._digests.get(start // self._piece, ()):
            if span.start >= start and span.end <= end and _digest(view[span.start - start : span.end - start]) != digest:
                raise _changed(span.start)


def _digest(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _changed(offset: int) -> Failure:
    return Failure("source-changed", "the server sent other bytes than those that were judged", offset=offset)
