"""What the decoders of all wrappers share: the two ports and how compressed bytes are taken in.

Everything here runs in a worker thread; the C libraries release the interpreter lock.
"""

from abc import ABC, abstractmethod
from typing import Protocol

READ = 256 << 10
"""Compressed bytes asked of a feed at once."""
OUTPUT = 256 << 10
"""Most decoded bytes made at once where a library can only return new ones: stays within the processor's cache."""
FIRST_SLICE = 4 << 10


class Feed(Protocol):
    """Where compressed bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return 1 to `size` bytes, waiting for them; b"" only at the true end of the object. May raise to cancel."""
        ...


class Decoder(Protocol):
    """One wrapped image (or one block of it), decoded in order."""

    mark: tuple[int, int] | None
    """The last place passed where a new decoder could begin: byte of the feed, decoded byte. None: there was none."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill `buffer` (of bytes) and return how many were written.

        Fewer than `len(buffer)`, or 0, only at the verified end: every member, frame or stream ended with its
        checksum checked, and the input is used up. Raises Failure: "truncated", "corrupt", "decoder-memory",
        "unsupported"; nothing can be read after that. A buffer filled to the brim says nothing of the end: ask
        again until a call comes back short.
        """
        ...


class StepDecoder(ABC):
    """A decoder made of steps, each of which may fill less than it could."""

    mark: tuple[int, int] | None = None

    @abstractmethod
    def step(self, room: memoryview) -> int:
        """Decode at least 1 byte into `room` and return how many; 0 only at the verified end, however often asked."""

    def readinto(self, buffer: memoryview, /) -> int:
        """See Decoder."""
        filled = 0
        while filled < len(buffer):
            got = self.step(buffer[filled:])
            if not got:
                break
            filled += got
        return filled


class Intake:
    """Compressed bytes on their way into a decoder, which may look ahead and hand back what it did not use.

    Slices start small at each member and grow while it lasts: what a decoder hands back at a member's end was
    copied twice, and an object may be made of millions of tiny members.
    """

    def __init__(self, feed: Feed, *, largest: int) -> None:
        """Take from `feed` in slices of at most `largest` bytes."""
        self._feed = feed
        self._largest = largest
        self._slice = FIRST_SLICE
        self._data = b""
        self._at = 0
        self._read = 0

    @property
    def position(self) -> int:
        """Bytes taken and not handed back."""
        return self._read - len(self._data) + self._at

    def restart(self) -> None:
        """Begin a new member: slices are small again."""
        self._slice = FIRST_SLICE

    def take(self) -> memoryview:
        """Return the next bytes; none at the end of the object."""
        self._refill()
        part = memoryview(self._data)[self._at : self._at + self._slice]
        self._at += len(part)
        self._slice = min(self._slice * 2, self._largest)
        return part

    def give_back(self, unused: bytes) -> None:
        """Hand back the last bytes taken."""
        if len(unused) <= self._at:
            self._at -= len(unused)
        else:  # They began in an earlier piece of the feed.
            self._data, self._at = unused + self._data[self._at :], 0

    def peek(self, size: int) -> bytes:
        """Return the next `size` bytes without taking them; fewer only at the end of the object."""
        while len(self._data) - self._at < size:
            more = self._feed.read(READ)
            if not more:
                break
            self._read += len(more)
            self._data, self._at = self._data[self._at :] + more, 0
        return self._data[self._at : self._at + size]

    def skip_zeroes(self) -> int:
        """Take all zero bytes up to the next other byte or the end, and return their number."""
        count = 0
        while self._refill():
            rest = self._data[self._at :].lstrip(b"\0")
            zeroes = len(self._data) - self._at - len(rest)
            self._at += zeroes
            count += zeroes
            if rest:
                break
        return count

    def _refill(self) -> bool:
        if self._at == len(self._data):
            self._data, self._at = self._feed.read(READ), 0
            self._read += len(self._data)
        return bool(self._data)
