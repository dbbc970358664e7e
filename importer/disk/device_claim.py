"""How a block device is claimed: for us alone, and not if it holds what somebody may want to keep."""

import errno
import fcntl
import os
import pwd
import stat
from contextlib import suppress

from importer.api.failure import Failure
from importer.disk import errors, holders, signatures


def size_of(path: str) -> int:
    """Return the bytes of the device at `path`. Raises Failure."""
    with errors.writing(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)


def claim(path: str) -> int:
    """Return a descriptor of the device that nobody else uses, nor can mount or claim while we have it. Raises Failure."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(path, error) from error
    with suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # asks udev to look at it when we are done, not before
    if holders.is_read_only(os.fstat(fd).st_rdev):  # some kernels tell only when it is written
        os.close(fd)
        raise _read_only(path)
    if not os.lseek(fd, 0, os.SEEK_END):
        os.close(fd)
        raise Failure("target-unsupported", "the device has no medium", hint="attach one, or choose another device", path=path)
    return fd


def _refused(path: str, error: OSError) -> Failure:
    """Say why a device cannot be opened, and the one line that helps."""
    facts = os.stat(path)
    if error.errno == errno.EBUSY:
        by = holders.holding(facts.st_rdev) or "something outside of what this process can see"
        hint = "unmount it, or end what uses it; check that this is the device you mean"
        return Failure("busy", "the device is in use", hint=hint, path=path, used_by=by)
    if error.errno == errno.EROFS or holders.is_read_only(facts.st_rdev):
        return _read_only(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        uid = os.geteuid()
        hint = f"sudo chown {uid} {path}" if uid else "allow this container the device, to read and to write"
        owner = f"{_user(facts.st_uid)}, gid {facts.st_gid}"
        mode = stat.filemode(facts.st_mode)
        return Failure("permission", "this user may not write the device", hint=hint, path=path, owner=owner, mode=mode, uid=uid)
    return errors.failure(error, path)


def _read_only(path: str) -> Failure:
    hint = f"sudo blockdev --setrw {path}, if it may be written at all"
    return Failure("target-unsupported", "the device is read-only", hint=hint, path=path)


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def refuse_contents(fd: int, path: str, *, force: bool) -> None:
    """Raise Failure("target-exists") if the device holds something that is known and may not be overwritten."""
    if force:
        return
    try:
        head = os.pread(fd, signatures.REACH, 0)
    except OSError as error:
        raise errors.failure(error, path) from error
    if there := signatures.found(head):
        hint = "check that this is the device you mean; --force overwrites it"
        raise Failure("target-exists", f"the device holds {there}", hint=hint, path=path)
