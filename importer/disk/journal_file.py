"""The journal's file beside an unfinished disk. Its lines are made in disk.journal; here they reach the device."""

import os
from contextlib import suppress

from importer.disk import journal
from importer.disk.errors import writing
from importer.disk.journal import Finished, Hashed, Mark, Past

_FLAGS = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class JournalFile:
    """One journal, in a directory that is open. Calls block; the caller holds the lock of the disk that it belongs to."""

    def __init__(self, directory_fd: int, name: str, path: str) -> None:
        """Name it: nothing is read or made yet. `path` is for messages. `close` it in the end."""
        self._directory = os.dup(directory_fd)  # the target closes its own when it is published
        self._name = name
        self._path = path
        self._fd = -1

    def read(self) -> Past | None:
        """Return what an earlier import left, None if there is nothing. Raises journal.Damaged, Failure."""
        try:
            fd = os.open(self._name, os.O_RDONLY | _FLAGS & ~os.O_CREAT, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except OSError:
            raise journal.Damaged("it cannot be opened") from None
        with os.fdopen(fd, "rb") as file:
            if os.fstat(fd).st_uid not in (os.geteuid(), 0):
                raise journal.Damaged("somebody else wrote it")
            data = file.read(journal.LARGEST + 1)
        if len(data) > journal.LARGEST:
            raise journal.Damaged("it is too large")
        return journal.replay(data)

    def begin(self, past: Past) -> None:
        """Put a journal that tells what `past` does in the place of any other, in one step. Raises Failure."""
        self._let_go()
        fresh = f"{self._name}.new"
        with writing(self._path):
            with suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=self._directory)
            self._fd = os.open(fresh, os.O_WRONLY | os.O_EXCL | _FLAGS, 0o600, dir_fd=self._directory)
            self._append(journal.whole(past))
            os.rename(fresh, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.fsync(self._directory)

    def add(self, done: list[int], hashed: Hashed | None, mark: Mark | None) -> None:
        """Add a record; returns once it is on the device. Data that it speaks of must be there before. Raises Failure."""
        with writing(self._path):
            self._append(journal.record(done, hashed, mark))

    def finish(self, finished: Finished) -> None:
        """Say that the disk is about to be published; `begin` must have been called. Raises Failure."""
        with writing(self._path):
            self._append(journal.ending(finished))

    def _append(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[os.write(self._fd, view) :]
        os.fdatasync(self._fd)

    def remove(self) -> None:
        """Take the journal away, if there is one; returns once that is on the device. Raises Failure."""
        self._let_go()
        with writing(self._path):
            for name in (self._name, f"{self._name}.new"):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._directory)
            os.fsync(self._directory)

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Close it; what it tells stays. More than once does no harm."""
        self._let_go()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
