"""What an import leaves that is killed between publishing its disk and taking its journal away."""

import fcntl
import os
import stat
from contextlib import ExitStack, suppress

from importer.api.failure import Failure
from importer.disk.journal import Damaged, Finished
from importer.disk.journal_file import JournalFile
from importer.disk.target import journal_name, partial_name, parts_of

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def tidy(path: str) -> Finished | None:
    """Remove what is left beside a target that is whole; return what its journal tells, None if all this is not so.

    None also if somebody changed the disk since. Raises Failure("busy") while its import is still at it.
    """
    with ExitStack() as stack:
        try:
            _, directory, name = parts_of(path)
            directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, directory_fd)
            fd = os.open(name, _FLAGS, dir_fd=directory_fd)
            stack.callback(os.close, fd)
        except (OSError, Failure):
            return None
        journal = JournalFile(directory_fd, journal_name(name), path)
        stack.callback(journal.close)
        finished = _told(journal)
        facts = os.fstat(fd)
        if finished is None or not stat.S_ISREG(facts.st_mode) or finished.file != f"{facts.st_dev:x}:{facts.st_ino}":
            return None
        _lock(fd, path)
        with suppress(OSError):
            if os.path.samestat(os.stat(partial_name(name), dir_fd=directory_fd, follow_symlinks=False), facts):
                os.unlink(partial_name(name), dir_fd=directory_fd)
        journal.remove()
        return finished if (facts.st_size, facts.st_mtime_ns) == (finished.size, finished.modified) else None


def _told(journal: JournalFile) -> Finished | None:
    try:
        past = journal.read()
    except Damaged:
        return None
    return past.finished if past is not None else None


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Failure("busy", "another import is writing this target", path=path) from error
    except OSError:
        return  # no locks here: then no import could hold one
