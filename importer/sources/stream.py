"""Standard input as a source: bytes that come once, in order, from who knows where."""

import asyncio
import fcntl
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

from importer.api.failure import Failure
from importer.sources.local import LocalSource
from importer.sources.protocol import Basin, Source, SourceFacts

HEAD = 1 << 20
CHUNK = 1 << 20


async def open_stdin() -> Source:
    """Return standard input as a source: a file that it was redirected from can be read in any order, a pipe cannot.

    Raises Failure("usage") for a terminal.
    """
    descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        raise Failure("usage", "standard input is closed") from None
    if os.isatty(descriptor):
        raise Failure("usage", "standard input is a terminal", hint="pipe an image into the command, or name it")
    if stat.S_ISREG(mode):
        if os.lseek(descriptor, 0, os.SEEK_CUR):
            raise Failure("usage", "somebody has read the beginning of the file on standard input", hint="name the file instead")
        return await LocalSource.open(f"/proc/self/fd/{descriptor}")
    return await StreamSource.open(descriptor)


class StreamSource:
    """A pipe or socket that is read once. It cannot stall: only who writes it knows how long that takes."""

    def __init__(self, descriptor: int, head: bytes) -> None:
        """Take over a descriptor whose first bytes were read; use `open` instead."""
        self._descriptor = descriptor
        self._head = head
        self._ended = len(head) < HEAD
        self._taken = False
        length = len(head) if self._ended else None
        self._facts = SourceFacts(url="-", name="-", length=length, ranges=False, once=True)

    @classmethod
    async def open(cls, descriptor: int) -> "StreamSource":
        """Read the head from an open pipe."""
        with suppress(OSError):  # no pipe, or more than users may have: slower, no worse
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, CHUNK)  # 64 KiB a read would be a turn of the event loop each
        head = b""
        while len(head) < HEAD and (part := await _read(descriptor, HEAD - len(head))):
            head += part
        return cls(descriptor, head)

    @property
    def facts(self) -> SourceFacts:
        """Nothing is known but the length of what ended within the head."""
        return self._facts

    @property
    def head(self) -> bytes:
        """The first MiB, or all of a shorter stream."""
        return self._head

    async def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield all of the stream, once; see Source.fetch."""
        if start or end not in (None, self._facts.length) or self._taken:
            raise Failure("internal", "a stream was asked for a range, or twice", start=start, end=end)
        self._taken = True
        yield self._head
        while not self._ended and (part := await _read(self._descriptor, CHUNK)):
            yield part

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Not for a source without ranges."""
        raise Failure("internal", "a range was asked of a source that has none", start=start, end=end)

    async def settle(self) -> None:
        """What was read once cannot have changed."""

    async def close(self) -> None:
        """Leave standard input open: it is not ours."""


async def _read(descriptor: int, size: int) -> bytes:
    """Return what there is, at most `size` bytes; b"" at the end. Not in a thread: a blocked one would outlive ^C."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # epoll takes no such file: it never blocks then, as /dev/zero
        return await asyncio.to_thread(os.read, descriptor, size)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    try:
        return os.read(descriptor, size)
    except OSError as error:
        raise Failure("io", f"standard input cannot be read: {error.strerror}") from error
