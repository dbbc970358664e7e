"""A file of this machine as a source: one descriptor from the first look to the last."""

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator

from importer.api.failure import Failure
from importer.sources.protocol import Basin, SourceFacts

CHUNK = 1 << 20
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


class LocalSource:
    """A regular file, opened once; renaming or replacing its path meanwhile does not matter."""

    def __init__(self, path: str, descriptor: int, head: bytes) -> None:
        """Take over an open descriptor; use `open` instead."""
        self._path = path
        self._descriptor = descriptor
        self._before = os.fstat(descriptor)
        self._head = head
        self._facts = SourceFacts(
            url=path,
            name=os.path.basename(path),
            length=self._before.st_size,
            ranges=True,
            latency=0.0,
            validators={
                "inode": f"{self._before.st_dev:x}:{self._before.st_ino}",
                "mtime": f"{self._before.st_mtime_ns}",
                "size": f"{self._before.st_size}",
            },
        )

    @classmethod
    async def open(cls, path: str) -> "LocalSource":
        """Open `path` for reading and read its head (1 MiB, or all of a smaller file).

        Raises Failure("not-found" | "permission" | "not-a-disk" | "io").
        """
        descriptor = _open(path)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
                raise Failure("not-a-disk", f"the source is {kind}", path=path, hint="give the path of a regular file")
            head = await asyncio.to_thread(_pread, descriptor, CHUNK, 0, path)
            return cls(path, descriptor, head)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def descriptor(self) -> int:
        """The open file: it can be read in any order at no cost."""
        return self._descriptor

    @property
    def facts(self) -> SourceFacts:
        """Path, size and what identifies this file."""
        return self._facts

    @property
    def head(self) -> bytes:
        """The first MiB, or all of a smaller file."""
        return self._head

    async def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield the bytes start..end in pieces of at most 1 MiB. Raises Failure("source-changed" | "io")."""
        stop = self._before.st_size if end is None else end
        place = start
        while place < stop:
            data = await asyncio.to_thread(_pread, self._descriptor, min(CHUNK, stop - place), place, self._path)
            if not data:
                raise Failure("source-changed", "the file became shorter while it was read", path=self._path, offset=place)
            place += len(data)
            yield data

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Read the bytes start..end straight into a basin. Raises Failure("source-changed" | "io")."""
        at = start
        while at < end:
            view = basin.place(at)[: end - at]
            reading = asyncio.ensure_future(asyncio.to_thread(_preadv, self._descriptor, view, at, self._path))
            try:
                count = await asyncio.shield(reading)
            except asyncio.CancelledError:
                await asyncio.wait([reading])  # a thread cannot be stopped: until it is done the place is not given away
                raise
            if not count:
                raise Failure("source-changed", "the file became shorter while it was read", path=self._path, offset=at)
            basin.filled(at, count)
            at += count

    async def settle(self) -> None:
        """Compare size, times and inode with those before the first read."""
        now, before = os.fstat(self._descriptor), self._before
        changed = [name for name in ("st_size", "st_mtime_ns", "st_ino", "st_dev") if getattr(now, name) != getattr(before, name)]
        # A write can be hidden by setting mtime back, which shows in ctime; so does a new link or a lost name, which is harmless.
        if not changed and now.st_nlink == before.st_nlink and now.st_ctime_ns != before.st_ctime_ns:
            changed = ["st_ctime_ns"]
        if changed:
            names = ", ".join(name.removeprefix("st_").removesuffix("_ns") for name in changed)
            raise Failure("source-changed", "the file changed while it was read", path=self._path, changed=names)

    async def close(self) -> None:
        """Close the descriptor; more than once does no harm."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(path: str) -> int:
    try:
        # O_NONBLOCK: a pipe without a writer must be refused, not waited for.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError:
        raise Failure("usage", "the path holds a NUL character") from None
    except OSError as error:
        if error.errno in _MISSING:
            raise Failure("not-found", "there is no such file", path=path, hint="check the path") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Failure("permission", "the file may not be read", path=path) from None
        if error.errno == errno.ENXIO:
            raise Failure("not-a-disk", "the source is a socket or a dead device", path=path) from None
        raise Failure("io", f"the file cannot be opened: {error.strerror}", path=path) from None


def _pread(descriptor: int, size: int, offset: int, path: str) -> bytes:
    try:
        return os.pread(descriptor, size, offset)
    except OSError as error:
        raise Failure("io", f"the file cannot be read: {error.strerror}", path=path, offset=offset) from error


def _preadv(descriptor: int, view: memoryview, offset: int, path: str) -> int:
    try:
        return os.preadv(descriptor, [view], offset)
    except OSError as error:
        raise Failure("io", f"the file cannot be read: {error.strerror}", path=path, offset=offset) from error
