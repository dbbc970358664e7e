"""Where a disk's data lies in its image: what the tables map, put in the order of the image's bytes. Pure.

A reader that follows the chart fetches every byte once and never seeks back, in whatever order the disk was written.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

from importer.api.failure import Failure

SECTOR = 512
MOST_RUNS = 1 << 20
"""Most runs kept, 24 bytes each: 64 GiB in clusters of 64 KiB that are compressed or scattered, any size that lies in order."""
BUCKET_BITS = 12


class Run(NamedTuple):
    """Bytes `host`..`host + size` of the object are the disk's from `guest` on, or hold one compressed cluster of it."""

    host: int
    guest: int
    size: int
    """Bytes in the object; for a compressed cluster the most that it can take."""
    packed: bool


class Chart:
    """Collects runs as a walk over the tables finds them, in any order."""

    def __init__(self, most: int = MOST_RUNS) -> None:
        """Keep up to `most` runs."""
        self.overflowed = False
        """True once there were more runs than could be kept: the chart is then of no use."""
        self._most = most
        self._hosts = array("Q")
        self._guests = array("Q")
        self._sizes = array("Q")
        """Bytes shifted left by one; the low bit marks a compressed cluster."""

    def __len__(self) -> int:
        return len(self._hosts)

    def plain(self, guest: int, host: int, size: int) -> None:
        """Note that `size` bytes at `host` are the disk's from `guest` on; a run that continues the last one is joined to it."""
        sizes = self._sizes
        if sizes and not sizes[-1] & 1:
            last = sizes[-1] >> 1
            if self._hosts[-1] + last == host and self._guests[-1] + last == guest:
                sizes[-1] += size << 1
                return
        self._add(guest, host, size << 1)

    def packed(self, guest: int, host: int, size: int) -> None:
        """Note one compressed cluster of the disk, in up to `size` bytes at `host`."""
        self._add(guest, host, size << 1 | 1)

    def packed_spans(self) -> Iterator[tuple[int, int]]:
        """Yield where compressed clusters lie, in no order: their first byte and how many they may take."""
        for host, size in zip(self._hosts, self._sizes, strict=True):
            if size & 1:
                yield host, size >> 1

    def _add(self, guest: int, host: int, size: int) -> None:
        if len(self._hosts) == self._most:
            self.overflowed = True
            return
        self._hosts.append(host)
        self._guests.append(guest)
        self._sizes.append(size)

    def course(self, *, clipped: bool = False) -> "Course":
        """Return the runs in the order of their bytes in the object; `clipped` ends a compressed cluster where the next begins.

        Raises Failure("corrupt") for runs that overlap.
        """
        order = _ascending(self._hosts)
        sorted_hosts = array("Q", map(self._hosts.__getitem__, order))
        sizes = array("Q", map(self._sizes.__getitem__, order))
        if clipped:
            sizes = array("Q", _clipped(sorted_hosts, sizes))
        _refuse_overlaps(sorted_hosts, sizes)
        return Course(hosts=sorted_hosts, guests=array("Q", map(self._guests.__getitem__, order)), sizes=sizes)


def _ascending(hosts: "array[int]") -> Sequence[int]:
    """Return the indices of `hosts` in ascending order of their values.

    In buckets: to sort a million at once takes 80 MiB for a moment, more than all else.
    """
    if all(first <= second for first, second in pairwise(hosts)):
        return range(len(hosts))
    highest = max(hosts)
    shift = max(0, highest.bit_length() - BUCKET_BITS)
    buckets = [array("I") for _ in range((highest >> shift) + 1)]
    for index, host in enumerate(hosts):
        buckets[host >> shift].append(index)
    return array("I", chain.from_iterable(sorted(bucket, key=hosts.__getitem__) for bucket in buckets))


def _clipped(hosts: Sequence[int], sizes: Sequence[int]) -> Iterator[int]:
    for (host, after), size in zip(pairwise(chain(hosts, (1 << 63,))), sizes, strict=True):
        yield min(size >> 1, after - host) << 1 | 1 if size & 1 else size


def _refuse_overlaps(hosts: Sequence[int], sizes: Sequence[int]) -> None:
    """Compressed clusters may meet within a sector, as their sizes are told in sectors, but each has a byte of its own."""
    end = 0
    for host, size in zip(hosts, sizes, strict=True):
        if host < end:
            raise Failure("corrupt", "two places of the disk share the same bytes of the image", offset=host)
        end = host + (size >> 1)
        if size & 1:
            end = max(host + 1, end - (SECTOR - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Runs in ascending order of `host`. Three parallel columns: a million runs as objects would take 200 MiB."""

    hosts: "array[int]"
    guests: "array[int]"
    sizes: "array[int]"
    """As in Chart: bytes shifted left by one, the low bit for a compressed cluster."""

    def __len__(self) -> int:
        return len(self.hosts)

    def run(self, index: int) -> Run:
        """Return run `index`."""
        size = self.sizes[index]
        return Run(self.hosts[index], self.guests[index], size >> 1, bool(size & 1))

    def fingerprint(self) -> str:
        """Return a digest of all runs."""
        digest = hashlib.sha256()
        for column in (self.hosts, self.guests, self.sizes):
            digest.update(column)
        return digest.hexdigest()

    def without(self, done: bytes, piece: int) -> "Course":
        """Return what is left when the data of some pieces has landed: `done` holds a byte for each, 1 where it has.

        A compressed cluster has landed with the piece that brought its last byte; others are left out piece by piece.
        """
        if not any(done):
            return self
        left = Course(hosts=array("Q"), guests=array("Q"), sizes=array("Q"))
        for host, guest, size in zip(self.hosts, self.guests, self.sizes, strict=True):
            end = host + (size >> 1)
            if size & 1:
                if not _is_done(done, (end - 1) // piece):
                    left._append(host, guest, size)
                continue
            at = host
            while at < end:
                landed = _is_done(done, at // piece)
                until = at // piece + 1
                while until * piece < end and _is_done(done, until) == landed:
                    until += 1
                stop = min(end, until * piece)
                if not landed:
                    left._append(at, guest + at - host, stop - at << 1)
                at = stop
        return left

    def _append(self, host: int, guest: int, size: int) -> None:
        self.hosts.append(host)
        self.guests.append(guest)
        self.sizes.append(size)

    def pieces(self, length: int, piece: int) -> bytearray:
        """Return a byte for each piece of an object of `length` bytes: 1 where some run needs bytes of it."""
        needed = bytearray(-(-length // piece))
        for host, size in zip(self.hosts, self.sizes, strict=True):
            first, last = host // piece, min(host + (size >> 1), length) - 1
            last //= piece
            if first == last:
                needed[first] = 1
            elif first < last:
                needed[first : last + 1] = b"\x01" * (last + 1 - first)
        return needed


def _is_done(done: bytes, piece: int) -> bool:
    return piece < len(done) and done[piece] == 1
