"""How a partial file is claimed: opened without following anything, ours, locked, and still there."""

import errno
import fcntl
import os
import stat
from contextlib import suppress

from importer.api.failure import Failure
from importer.disk.errors import writing

NOBODY = 65534
ATTEMPTS = 100
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: a pipe planted at the name must not make us wait for its other end."""


def claim(directory: int, partial: str, path: str, name: str) -> int:
    """Return a descriptor of the locked file `partial` in `directory`, with what an import left in it; `path` is for messages.

    `name` is the target's: an import that was killed between link and unlink left both names to one file.
    Raises Failure: "busy", "target-unsupported", "target-directory", "permission", "io".
    """
    with writing(path):
        for _ in range(ATTEMPTS):
            fd = _opened(directory, partial, path)
            try:
                if _held(fd, directory, partial, path, name):
                    os.fchmod(fd, 0o600)
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
    raise Failure("busy", "other imports of this target come and go", path=path)


def _opened(directory: int, partial: str, path: str) -> int:
    try:
        return os.open(partial, _FLAGS, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _planted(path) from error
        raise


def _held(fd: int, directory: int, partial: str, path: str, name: str) -> bool:
    """Lock the file and look whether it is what it should be; False: somebody removed it meanwhile, try again."""
    facts = os.fstat(fd)
    owners = {os.geteuid(), NOBODY} if os.geteuid() == 0 else {os.geteuid()}  # nobody's: a killed import had lent it
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in owners:
        raise _planted(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Failure("busy", "another import is writing this target", path=path) from error
    except OSError as error:
        raise Failure(
            "target-directory", "the file system has no locks", path=path, reason=os.strerror(error.errno or 0)
        ) from error
    facts = os.fstat(fd)
    if not _is(directory, partial, facts):
        return False
    if facts.st_nlink != 1:
        if not _is(directory, name, facts):
            raise _planted(path)
        os.unlink(partial, dir_fd=directory)
        return False
    if facts.st_uid != os.geteuid():
        with suppress(PermissionError):  # NFS gives all that root makes to nobody, and leaves it there
            os.fchown(fd, os.geteuid(), -1)
    return True


def _is(directory: int, name: str, facts: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), facts)
    except FileNotFoundError:
        return False


def _planted(path: str) -> Failure:
    return Failure(
        "target-unsupported",
        "at the place of the unfinished disk lies something that no import made",
        hint="look at it and remove it, or choose another target",
        path=path,
    )
