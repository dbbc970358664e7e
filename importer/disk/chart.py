"""Where a disk's data lies in its image: what the tables map, put in the order of the image's bytes. Pure.

A reader that follows the chart fetches every byte once and never seeks back, in whatever order the disk was written.
"""

from array import array
from dataclasses import dataclass
from typing import NamedTuple

MOST_RUNS = 1 << 20
"""Most runs kept, 24 bytes each: 64 GiB in clusters of 64 KiB that are compressed or scattered, any size that lies in order."""


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

    def _add(self, guest: int, host: int, size: int) -> None:
        if len(self._hosts) == self._most:
            self.overflowed = True
            return
        self._hosts.append(host)
        self._guests.append(guest)
        self._sizes.append(size)

    def course(self) -> "Course":
        """Return the runs in the order of their bytes in the object."""
        hosts = self._hosts
        order = range(len(hosts)) if _ascending(hosts) else sorted(range(len(hosts)), key=hosts.__getitem__)
        return Course(
            hosts=array("Q", (hosts[at] for at in order)),
            guests=array("Q", (self._guests[at] for at in order)),
            sizes=array("Q", (self._sizes[at] for at in order)),
        )


def _ascending(numbers: "array[int]") -> bool:
    return all(map(int.__le__, numbers, numbers[1:]))


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
