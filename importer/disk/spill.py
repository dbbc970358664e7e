"""A temporary file without a name: where an image is decoded that cannot be read in order."""

import errno
import os
import tempfile
import threading
from types import TracebackType

from importer.api.failure import Failure
from importer.disk import space
from importer.disk.errors import writing

IN_MEMORY = frozenset({"tmpfs", "ramfs"})
HINT = "name a directory on a disk with --scratch-dir"


class Spill:
    """An unlinked file with a cap. The kernel takes it back when it is closed, however the process ends."""

    def __init__(self, fd: int, directory: str, cap: int) -> None:
        """Use `Spill.open`."""
        self._fd = fd
        self._size = 0
        self._lock = threading.Lock()
        self.directory = directory
        self.cap = cap

    @classmethod
    def open(cls, directory: str, *, cap: int) -> "Spill":
        """Make one in `directory` that takes at most `cap` bytes.

        Raises Failure: "no-space" where files live in memory, "target-directory", "permission", "io".
        """
        with writing(directory):
            fd = _unnamed(directory)
        mount = space.mount_of(fd)
        if mount is not None and mount.kind in IN_MEMORY:
            os.close(fd)
            cause = "an image may not be decoded into memory"
            raise Failure("no-space", cause, hint=HINT, directory=directory, file_system=mount.kind)
        return cls(fd, directory, cap)

    @property
    def fd(self) -> int:
        """Its descriptor, open to read and write."""
        return self._fd

    @property
    def size(self) -> int:
        """Where the furthest write ended."""
        return self._size

    def free_space(self) -> int:
        """Bytes left on its file system."""
        return space.free_space(self._fd)

    def write(self, offset: int, data: memoryview | bytes, /) -> None:
        """Write all of `data` at `offset`. Raises Failure: "bomb" beyond the cap, "no-space", "io"."""
        view = memoryview(data).cast("B")
        end = offset + len(view)
        if end > self.cap:
            raise Failure("bomb", "the decoded image outgrows its disk", decoded_at_least=end, cap=self.cap)
        with writing(self.directory, hint=HINT):
            while view:
                done = os.pwrite(self._fd, view, offset)
                offset, view = offset + done, view[done:]
        with self._lock:
            self._size = max(self._size, end)

    def write_direct(self, offset: int, data: memoryview, /) -> None:
        """The same as `write`: what is spilled is read again soon, so the page cache is wanted."""
        self.write(offset, data)

    def extend(self, size: int) -> None:
        """Let it reach `size` bytes at least, with zeroes: a stream may end in a run that was not written."""
        if size > self.cap:
            raise Failure("bomb", "the decoded image outgrows its disk", decoded_at_least=size, cap=self.cap)
        with self._lock:
            if size > self._size:
                with writing(self.directory, hint=HINT):
                    os.ftruncate(self._fd, size)
                self._size = size

    def pread_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; return how many bytes there were before the end. Raises Failure("io")."""
        done = 0
        with writing(self.directory):
            while done < len(buffer) and (got := os.preadv(self._fd, [buffer[done:]], offset + done)):
                done += got
        return done

    def close(self) -> None:
        """Give it back. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _unnamed(directory: str) -> int:
    """Open a file without a name in `directory`; OSError if it cannot be."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    fd, path = tempfile.mkstemp(prefix=".slipstream-spill-", dir=directory)  # NFS and old FUSE: named for a moment
    os.unlink(path)
    return fd
