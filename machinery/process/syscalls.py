"""The system calls that Python 3.11 lacks, by ctypes, all in this file. Each releases the GIL while it runs.

Errors are OSError with the errno of the call.
"""

import ctypes
import errno
import os
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4  # linux/fs.h: SYNC_FILE_RANGE_*
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16  # linux/falloc.h
_NOREPLACE = 1  # linux/fs.h: RENAME_NOREPLACE


def _function(name: str, *arguments: Any) -> Any:
    """Return a libc function that takes `arguments` and returns an int; one that fails with ENOSYS if libc lacks it."""
    try:
        function = getattr(_libc, name)
    except AttributeError:

        def missing(*_: object) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

        return missing
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function


_sync_file_range = _function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_fallocate = _function("fallocate64", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syncfs = _function("syncfs", ctypes.c_int)
_renameat2 = _function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_file_range(fd: int, start: int, size: int, *, wait: bool = False) -> None:
    """Start write-back of dirty pages in `size` bytes from `start` (size 0: to the end); with `wait`, until written.

    Neither metadata nor the device's cache is flushed: this is no fsync, only an early start for one. A kernel
    that lacks the call (ENOSYS, as in some sandboxes) does nothing, for nothing depends on it.
    """
    flags = _WAIT_BEFORE | _WRITE | _WAIT_AFTER if wait else _WRITE
    try:
        _check(_sync_file_range(fd, start, size, flags))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def punch_hole(fd: int, start: int, size: int) -> None:
    """Give the blocks of `size` bytes from `start` back; they read as zeroes. The file keeps its length."""
    _check(_fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, start, size))


def zero_range(fd: int, start: int, size: int) -> None:
    """Make `size` bytes from `start` read as zeroes; the kernel writes them where a block device has no faster way."""
    _check(_fallocate(fd, _ZERO_RANGE | _KEEP_SIZE, start, size))


def rename_noreplace(directory: int, old: str, new: str) -> None:
    """Rename within the directory open as `directory`. FileExistsError if `new` is there; EINVAL where unsupported."""
    _check(_renameat2(directory, os.fsencode(old), directory, os.fsencode(new), _NOREPLACE))


def move_noreplace(old: int, new: int, name: str) -> None:
    """Move an entry from one open directory to another of the same file system; errors as of rename_noreplace."""
    _check(_renameat2(old, os.fsencode(name), new, os.fsencode(name), _NOREPLACE))


def syncfs(fd: int) -> None:
    """Write out all of the file system that `fd` lies on: for many small files far sooner done than an fsync of each."""
    _check(_syncfs(fd))
