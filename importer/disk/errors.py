"""What an error of the file system means to a person."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from importer.api.failure import Failure

_FULL = {errno.ENOSPC: "the file system is full", errno.EDQUOT: "the quota is used up"}
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


@contextmanager
def writing(path: str, *, hint: str | None = None) -> Iterator[None]:
    """Turn the OSErrors of the block into Failures that name `path`."""
    try:
        yield
    except OSError as error:
        raise failure(error, path, hint=hint) from error


def failure(error: OSError, path: str, *, hint: str | None = None) -> Failure:
    """Return the Failure for `error` at `path`; `hint` replaces the advice about space."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    if number in _FULL:
        return Failure("no-space", _FULL[number], hint=hint, path=path)
    if number == errno.EFBIG:
        advice = "choose a target on a file system for large files"
        return Failure("no-space", "the file system takes no file as large as this disk", hint=advice, path=path)
    if number in _MISSING:
        return Failure("target-directory", "the directory is not there", path=path, reason=reason)
    if number == errno.EROFS:
        return Failure("target-directory", "the file system is mounted read-only", path=path)
    if number in (errno.EACCES, errno.EPERM):
        return Failure("permission", "writing is not allowed here", path=path, owner=_owner(path), uid=os.geteuid())
    return Failure("io", "the file system failed", path=path, reason=reason)


def _owner(path: str) -> str:
    """Return who owns `path` or the nearest directory above it that can be seen."""
    while True:
        try:
            facts = os.stat(path)
        except OSError:
            above = os.path.dirname(path) or "."
            if above == path:
                return "unknown"
            path = above
        else:
            return f"uid {facts.st_uid}, gid {facts.st_gid}, {stat.filemode(facts.st_mode)} on {path}"
