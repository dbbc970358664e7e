"""The hidden directory inside a target into which an archive is extracted, and the move of what it holds into place.

One import at a time holds its lock. A dead one's is emptied; what that had begun to move into place is taken back.
"""

import errno
import fcntl
import json
import os
import stat
from contextlib import suppress

from importer.api.failure import Failure
from importer.disk.errors import writing
from machinery.process import syscalls

NAME = ".slipstream-archive.partial"
_TREE = "tree"
_MOVING = "moving"
"""File that says which entries are being moved: names and inode numbers. Where it lies, everything was verified."""
_OURS = ("lost+found", NAME)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
ATTEMPTS = 100


class Staging:
    """One locked staging directory. Its entries reach the target all at once or, as long as this process lives, not at all."""

    def __init__(self, path: str) -> None:
        """Claim the one in the directory `path`. Raises Failure: busy, target-directory, target-unsupported, permission."""
        self.path = path
        with writing(path):
            self.target = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with writing(path):
                self._lock = self._claim()
                try:
                    _empty(self._lock, self.target)
                    os.mkdir(_TREE, 0o700, dir_fd=self._lock)
                    self.tree = os.open(_TREE, _FOLDER, dir_fd=self._lock)
                except BaseException:
                    with suppress(OSError):
                        os.rmdir(NAME, dir_fd=self.target)
                    os.close(self._lock)
                    raise
        except BaseException:
            os.close(self.target)
            raise

    def _claim(self) -> int:
        for _ in range(ATTEMPTS):
            with suppress(FileExistsError):
                os.mkdir(NAME, 0o700, dir_fd=self.target)
            try:
                fd = os.open(NAME, _FOLDER, dir_fd=self.target)
            except FileNotFoundError:
                continue
            except NotADirectoryError as error:
                raise _planted(self.path) from error
            if self._held(fd):
                return fd
            os.close(fd)
        raise Failure("busy", "other imports into this directory come and go", path=self.path)

    def _held(self, fd: int) -> bool:
        try:
            facts = os.fstat(fd)
            if facts.st_uid != os.geteuid():
                raise _planted(self.path)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.stat(NAME, dir_fd=self.target, follow_symlinks=False), facts)
        except FileNotFoundError:
            return False
        except BlockingIOError as error:
            os.close(fd)
            raise Failure("busy", "another import extracts into this directory", path=self.path) from error
        except BaseException:
            os.close(fd)
            raise

    def vacant(self, name: str) -> None:
        """Raise Failure("target-exists") if the target has an entry of this name; lost+found is not looked at."""
        if name != "lost+found" and _inode(self.target, name) is not None:
            hint = "move it away, or extract into another directory"
            raise Failure(
                "target-exists", "the directory holds something of this name", hint=hint, directory=self.path, name=name
            )

    def sync(self) -> None:
        """Make everything in it durable."""
        with writing(self.path):
            syscalls.syncfs(self.tree)

    def publish(self) -> None:
        """Move every entry into the target, replacing none. Raises Failure; then nothing was moved."""
        with suppress(OSError):  # one with something in it is a conflict
            if _inode(self.target, "lost+found") is not None:
                os.rmdir("lost+found", dir_fd=self.tree)
        names = sorted(os.listdir(self.tree))
        for name in names:
            if _inode(self.target, name) is not None:
                raise Failure("target-exists", "the directory holds something of this name", directory=self.path, name=name)
        with writing(self.path):
            self._write_down({name: _inode(self.tree, name) for name in names})
            try:
                for name in names:
                    _move(self.tree, self.target, name)
            except FileExistsError as error:
                raise Failure("target-exists", "something of this name came meanwhile", directory=self.path, name=name) from error
            os.fsync(self.target)
            os.unlink(_MOVING, dir_fd=self._lock)

    def _write_down(self, moving: dict[str, int | None]) -> None:
        fd = os.open(_MOVING + ".new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._lock)
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps(moving).encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(_MOVING + ".new", _MOVING, src_dir_fd=self._lock, dst_dir_fd=self._lock)
        os.fsync(self._lock)

    def close(self) -> None:
        """Take back what was moved by half, remove the rest and let go."""
        try:
            _empty(self._lock, self.target)
            os.rmdir(NAME, dir_fd=self.target)
            os.fsync(self.target)
        finally:
            for fd in (self.tree, self._lock, self.target):
                os.close(fd)


def _empty(staging: int, target: int) -> None:
    """Take back what a dead or failed import was moving, then remove all of it."""
    try:
        with open(os.open(_MOVING, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=staging), "rb") as file:
            moving = json.load(file)
    except FileNotFoundError:
        moving = {}
    for name, inode in moving.items():
        if _inode(target, name) == inode:
            _remove(target, name)
    for name in sorted(os.listdir(staging)):  # "moving" goes before "tree": nothing is removed from the target after it
        _remove(staging, name)


def _inode(directory: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def _move(old: int, new: int, name: str) -> None:
    try:
        syscalls.move_noreplace(old, new, name)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        if _inode(new, name) is not None:  # a file system that cannot refuse by itself, such as NFS
            raise FileExistsError(errno.EEXIST, name) from error
        os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)


def _remove(directory: int, name: str) -> None:
    """Remove an entry and all below it, following no link."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
        return
    os.chmod(name, 0o700, dir_fd=directory)  # nobody else can write here: it is still the directory
    fd = os.open(name, _FOLDER, dir_fd=directory)
    try:
        for below in os.listdir(fd):
            _remove(fd, below)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)


def _planted(path: str) -> Failure:
    hint = "look at it and remove it, or choose another directory"
    cause = "at the place of the unfinished extraction lies something that no import made"
    return Failure("target-unsupported", cause, hint=hint, path=f"{path}/{NAME}")
