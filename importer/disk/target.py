"""The raw disk to be: hidden until it is whole, then there at once under its name.

The bytes go to a partial file beside the target. It is opened by the descriptor of its directory, so that nobody
can exchange the directory under us; it is locked, so that two imports cannot write one disk; and it is published
with a call that cannot replace what somebody else put there in the meantime.
"""

import errno
import hashlib
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from importer.api.failure import Failure
from importer.api.request import Preallocate
from importer.disk import space
from importer.disk.direct import DirectWriter
from importer.disk.errors import writing
from importer.disk.journal_file import JournalFile
from importer.disk.partial import claim
from importer.disk.tool_part import ToolPart
from machinery.process import syscalls

DEFAULT_NAME = "disk.img"
NAME_MAX = 255
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV, errno.ENOENT, errno.EINVAL})


class Target:
    """One raw file in the making. Calls block (briefly, but for writes and sync); writes may come from many threads."""

    def __init__(self, *, directory_fd: int, directory: str, name: str, fd: int, force: bool, is_directory: bool) -> None:
        """Use `Target.open`."""
        self._directory_fd = directory_fd
        self._fd = fd
        self._force = force
        self._published = False
        self._writer = DirectWriter(fd)
        self._ending = threading.RLock()
        """A cancelled caller may discard while its thread still syncs or publishes: that must end first."""
        self.directory = directory
        """Path of its directory, for messages and for what should lie beside it."""
        self.name = name
        self.is_directory = is_directory
        """True if a directory was asked for, where the disk becomes disk.img."""

    @classmethod
    def open(cls, path: str, *, force: bool, keep: bool = False) -> "Target":
        """Claim the target at `path`: a file to be, or an existing directory. What a dead import left is emptied, unless `keep`.

        Raises Failure: "target-exists", "target-directory", "target-unsupported", "permission", "busy", "no-space", "io".
        """
        is_directory, directory, name = parts_of(path)
        directory_fd = _open_directory(directory)
        try:
            refuse_existing(directory_fd, name, os.path.join(directory, name), force=force)
            fd = claim(directory_fd, partial_name(name), os.path.join(directory, partial_name(name)), name)
        except BaseException:
            os.close(directory_fd)
            raise
        target = cls(
            directory_fd=directory_fd, directory=directory, name=name, fd=fd, force=force, is_directory=is_directory
        )  # from here on discard() takes everything back
        if not keep:
            target.empty()
        return target

    @staticmethod
    def check(path: str, *, force: bool) -> None:
        """Raise the Failure that `open` would, as far as can be told without making or locking anything."""
        _, directory, name = parts_of(path)
        directory_fd = _open_directory(directory)
        try:
            refuse_existing(directory_fd, name, os.path.join(directory, name), force=force)
        finally:
            os.close(directory_fd)
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            with writing(directory):
                raise OSError(errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES, "")

    @property
    def path(self) -> str:
        """Where the disk will be."""
        return os.path.join(self.directory, self.name)

    @property
    def fd(self) -> int:
        """Descriptor of the partial, open to read and write."""
        return self._fd

    @property
    def identity(self) -> str:
        """Which file the partial is: device and inode."""
        facts = os.fstat(self._fd)
        return f"{facts.st_dev:x}:{facts.st_ino}"

    @property
    def capacity(self) -> int | None:
        """None: a file grows."""
        return None

    @property
    def reads_zero(self) -> bool:
        """True: what was not written are holes."""
        return True

    @property
    def length(self) -> int:
        """Bytes that it has now."""
        return os.fstat(self._fd).st_size

    def is_new(self) -> bool:
        """True if it was just made: it may well have the number of another that a journal means."""
        return self.length == 0

    def journal(self) -> JournalFile:
        """Return the journal beside the partial."""
        name = journal_name(self.name)
        return JournalFile(self._directory_fd, name, os.path.join(self.directory, name))

    # -- filling it

    def empty(self) -> None:
        """Throw away what an earlier import left."""
        with writing(self.path):
            os.ftruncate(self._fd, 0)

    def prepare(self, *, span: int | None) -> list[str]:
        """Nothing to be done: a new file reads as zeroes."""
        return []

    def cut(self, size: int, written: int) -> None:
        """Let the disk end at `size`."""
        self.size_to(size)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes that were written. Raises Failure("io")."""
        with writing(self.path):
            return os.pread(self._fd, size, offset)

    def size_to(self, virtual_size: int, preallocate: Preallocate | None = None) -> None:
        """Give it its length, and with `preallocate` its blocks too. Raises Failure("no-space" | "io")."""
        with writing(self.path):
            os.ftruncate(self._fd, virtual_size)
            if preallocate and virtual_size:
                os.posix_fallocate(self._fd, 0, virtual_size)

    def write(self, offset: int, data: memoryview | bytes, /) -> None:
        """Write all of `data` at `offset`. Raises Failure("no-space" | "io")."""
        with writing(self.path):
            self._writer.write(offset, data)

    def write_direct(self, offset: int, data: memoryview, /) -> None:
        """Like `write`, but around the page cache where the file system takes that: for long runs, aligned to 4 KiB."""
        with writing(self.path):
            self._writer.write_direct(offset, data)

    def punch(self, offset: int, size: int) -> None:
        """Make `size` bytes from `offset` read as zeroes, giving their blocks back where the file system can."""
        with writing(self.path):
            try:
                syscalls.punch_hole(self._fd, offset, size)
                return
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
            self._writer.write_zeroes(offset, size)

    def fill(self) -> None:
        """Write zeroes for real where no data went, so that the blocks are there and need no more bookkeeping."""
        with writing(self.path):
            os.fdatasync(self._fd)  # what was not written yet has no place that could be told from a hole
            end = os.fstat(self._fd).st_size
            at = 0
            while at < end and (hole := os.lseek(self._fd, at, os.SEEK_HOLE)) < end:
                at = _data_after(self._fd, hole, end)
                self._writer.write_zeroes(hole, at - hole)

    def flush(self) -> None:
        """Have all data written so far on the device. Raises Failure("io" | "no-space")."""
        with self._ending, writing(self.path):
            os.fdatasync(self._fd)

    def sync(self) -> None:
        """Have every byte on the device. Raises Failure("io" | "no-space"): late errors of writes come here."""
        with self._ending, writing(self.path):
            os.fsync(self._fd)

    def takes_direct(self) -> bool:
        """True if the file system takes O_DIRECT, and so `qemu-img -t none`."""
        return self._writer.takes_direct()

    def tool_parts(self, virtual_size: int) -> tuple[ToolPart, ...]:
        """Return what a tool is given to write the disk: all of it at once."""
        return (ToolPart(fd=self._fd),)

    def allocated(self) -> int:
        """Bytes of its blocks."""
        return os.fstat(self._fd).st_blocks * 512

    def free_space(self) -> int:
        """Bytes left on its file system for ordinary users."""
        return space.free_space(self._fd)

    def reserve(self, asked: int | None) -> int:
        """Bytes to leave free: as asked; else none on a volume that holds only this disk; else the default."""
        own = (self.name, partial_name(self.name)) if self.is_directory else ()
        with writing(self.directory):
            return space.reserve_of(self._directory_fd, asked, own_names=own)

    # -- ending it

    def publish(self) -> str:
        """Let the disk appear under its name, whole and on the device; return its path.

        Raises Failure, and then there is no target; the partial is there until `discard`:

        "target-exists" if somebody made one while we worked; with `force` a regular file is replaced.
        """
        with self._ending, writing(self.path):
            os.fchmod(self._fd, 0o666 & ~_umask())
            os.fsync(self._fd)
            if self._force:
                refuse_existing(self._directory_fd, self.name, self.path, force=True)
                self._require_partial()
                os.rename(self._partial, self.name, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
            else:
                self._link()
            try:
                self._remove(self._partial)
                os.fsync(self._directory_fd)
            except OSError:
                self._remove(self.name)
                raise
            self._published = True
            self.close()
        return self.path

    def _link(self) -> None:
        """Make the name, unless it is taken: by a link to the very file that is open, else by a rename that replaces nothing."""
        try:
            try:
                os.link(f"/proc/self/fd/{self._fd}", self.name, dst_dir_fd=self._directory_fd, follow_symlinks=True)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._require_partial()
                syscalls.rename_noreplace(self._directory_fd, self._partial, self.name)
        except FileExistsError as error:
            raise Failure("target-exists", "the target was made by somebody else meanwhile", path=self.path) from error

    def leave(self) -> None:
        """Let go of everything, but leave the partial for an import that goes on."""
        with self._ending:
            self.close()

    def discard(self) -> None:
        """Remove the partial, unless the target is published, and let go of everything. May be called again."""
        with self._ending:
            if self._fd >= 0 and not self._published:
                with suppress(OSError):
                    self._remove(self._partial)
            self.close()

    def close(self) -> None:
        """Close the descriptors, and with them the lock."""
        self._writer.close()
        for fd in (self._fd, self._directory_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._directory_fd = -1

    @property
    def _partial(self) -> str:
        return partial_name(self.name)

    def _is_ours(self, name: str) -> bool:
        """True if `name` is the file that we hold."""
        try:
            there = os.stat(name, dir_fd=self._directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def _require_partial(self) -> None:
        if not self._is_ours(self._partial):
            raise Failure("io", "the unfinished disk was removed or exchanged by somebody else", path=self.path)

    def _remove(self, name: str) -> None:
        """Remove `name` if it is the file that we hold."""
        if self._is_ours(name):
            os.unlink(name, dir_fd=self._directory_fd)

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.discard()


def parts_of(path: str) -> tuple[bool, str, str]:
    """Return whether `path` is an existing directory, the target's directory, and its name there."""
    is_directory = os.path.isdir(path)
    directory, name = (path, DEFAULT_NAME) if is_directory else os.path.split(path)
    if not name:
        raise Failure("target-directory", "the directory is not there", path=path)
    return is_directory, directory or ".", name


def _open_directory(directory: str) -> int:
    with writing(directory):
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def partial_name(name: str) -> str:
    """Return the name of the partial of target `name`: always the same, so that a second import finds the first."""
    partial = f".{name}.slipstream-partial"
    if len(os.fsencode(partial)) <= NAME_MAX - len(".journal.new"):
        return partial
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.slipstream-partial"


def journal_name(name: str) -> str:
    """Return the name of the journal beside the partial of target `name`."""
    return f"{partial_name(name)}.journal"


def refuse_existing(directory: int, name: str, path: str, *, force: bool) -> None:
    """Raise Failure if something lies at `name` that may not be replaced; `path` is for the message."""
    with writing(path):
        try:
            there = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return
    kind = stat.filemode(there.st_mode)[0]
    if stat.S_ISREG(there.st_mode):
        if not force:
            raise Failure("target-exists", "there is a file already", path=path, size=there.st_size)
    elif stat.S_ISLNK(there.st_mode) and not force:
        raise Failure("target-exists", "there is a symbolic link already", hint="choose another name", path=path)
    else:
        what = {"b": "a block device", "c": "a character device", "p": "a pipe", "s": "a socket", "d": "a directory"}
        raise Failure("target-unsupported", f"the target is {what.get(kind, 'a symbolic link')}", path=path)


def _data_after(fd: int, hole: int, end: int) -> int:
    """Return where data begins again behind a hole."""
    try:
        return os.lseek(fd, hole, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return end


def _umask() -> int:
    """Return the umask; asking the system call would change it for other threads for a moment."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077
