"""A block device as the target. Its first MiB is written last of all, so that a disk that is not whole never boots.

Until then that MiB lies in a file of the state directory, and on the device it is zero, whatever happens to us.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex

from importer.api.failure import Failure
from importer.api.request import Preallocate
from importer.disk import holders, state
from importer.disk.device_claim import claim, refuse_contents
from importer.disk.direct import ALIGNMENT, DirectWriter
from importer.disk.journal_file import JournalFile
from importer.disk.sizing import LARGER, size_text, too_small
from importer.disk.tool_part import ToolPart
from machinery.process import syscalls

HEAD = 1 << 20
"""Bytes that are held back: partition tables, boot sectors and the superblocks of most file systems lie there."""
FIRST = 4096
"""Of these, the bytes that come at the very last: without them nothing finds the rest."""
_STEP = 1 << 30
"""Bytes zeroed by one call, which nothing can interrupt."""
_SMALL = 128 << 10
"""Bytes of zeroes below which writing them costs less than asking for it."""
_NOBODY = 65534


class Device:
    """One block device that nobody else uses. A Landing."""

    def __init__(self, path: str, fd: int, state_fd: int, head_fd: int, state_path: str) -> None:
        """Use `Device.open`."""
        self._fd = fd
        self._state_fd = state_fd
        self._head_fd = head_fd
        self._node_fd = -1
        self._rdev = os.fstat(fd).st_rdev
        self._state_path = state_path
        self._writer = DirectWriter(fd)
        self._touched = False
        self._stopped = False
        self._ending = threading.RLock()
        """A cancelled caller may discard while its thread still zeroes, syncs or publishes: that must end first."""
        self.path = path
        self.directory = state_path
        """An announced spill lies in the state directory, unless --scratch-dir names another."""
        self.length = os.lseek(fd, 0, os.SEEK_END)
        self.reads_zero = False
        serial = holders.serial(self._rdev) or token_hex(16)  # nothing tells it from others: then no journal is believed
        self.identity = f"block {self._name} {self.length} {serial}"

    @classmethod
    def open(cls, path: str, *, force: bool) -> "Device":
        """Claim the device at `path` for us alone; nothing on it is changed before `prepare`.

        Raises Failure: "busy" if anything uses it, "target-exists" if it holds something and there is no `force`,
        "permission", "target-unsupported", "target-directory", "io".
        """
        fd = claim(path)
        state_fd = -1
        try:
            state_fd, state_path = state.open_directory()
            name = _name_of(os.fstat(fd).st_rdev)
            head_fd = state.open_file(state_fd, f"{name}.head", os.path.join(state_path, f"{name}.head"))
            device = cls(path, fd, state_fd, head_fd, state_path)
        except BaseException:
            for one in (fd, state_fd):
                if one >= 0:
                    os.close(one)
            raise
        try:
            if device.is_new():
                refuse_contents(fd, path, force=force)
        except BaseException:
            device.discard()
            raise
        return device

    @staticmethod
    def check(path: str, *, force: bool) -> None:
        """Raise the Failure that `open` would, as far as can be told without making anything."""
        fd = claim(path)
        try:
            name = _name_of(os.fstat(fd).st_rdev)
            directory = state.directory_of(os.environ, root=os.geteuid() == 0)
            if not os.path.exists(os.path.join(directory, f"{name}.head")):
                refuse_contents(fd, path, force=force)
        finally:
            os.close(fd)

    @property
    def _name(self) -> str:
        return _name_of(self._rdev)

    @property
    def fd(self) -> int:
        """See Landing."""
        return self._fd

    @property
    def capacity(self) -> int | None:
        """See Landing."""
        return self.length

    def journal(self) -> JournalFile:
        """Return the journal of this device, in the state directory."""
        name = f"{self._name}.journal"
        return JournalFile(self._state_fd, name, os.path.join(self._state_path, name))

    def is_new(self) -> bool:
        """True unless the device is as an import left it: prepared, with its first MiB zero.

        An import that was killed while it published left some of that MiB there, but not its first block. With that block
        the disk is whole, and may have been used since; with any other content somebody else wrote here.
        """
        with self._writing():
            if os.fstat(self._head_fd).st_size != HEAD:
                return True
            held, there = os.pread(self._head_fd, HEAD, 0), os.pread(self._fd, HEAD, 0)
        blank = bytes(FIRST)
        if there[:FIRST] != blank:
            return True
        return any(
            there[at : at + FIRST] not in (blank, held[at : at + FIRST]) for at in range(FIRST, min(HEAD, len(there)), FIRST)
        )

    # -- filling it

    def empty(self) -> None:
        """Forget what an earlier import held back. The device itself is left alone until `prepare`."""
        with self._writing():
            os.ftruncate(self._head_fd, 0)
            os.fsync(self._head_fd)

    def prepare(self, *, span: int | None) -> list[str]:
        """Make the first MiB zero for good, and the rest too unless that was done before; see Landing.

        What was given back by the device need not be zeroed by writes, and then all of it is. Else that is done for `span` bytes.
        """
        with self._ending, self._writing():
            self._touched = True
            fresh = os.fstat(self._head_fd).st_size != HEAD
            self.reads_zero = self._give_back(0, min(HEAD, self.length)) and holders.discards(self._rdev)
            os.fsync(self._fd)
            if not fresh:
                return []
            notes = self._zero_all(self.length if span is None else min(span, self.length))
            os.fsync(self._fd)
            os.ftruncate(self._head_fd, HEAD)
            os.fsync(self._head_fd)
            os.fsync(self._state_fd)
            return notes

    def _zero_all(self, span: int) -> list[str]:
        if self.reads_zero:
            self._in_steps(self.length, syscalls.punch_hole)
            return []
        if span:
            self._in_steps(span, syscalls.zero_range)
            self.reads_zero = True
        return ["the device cannot be zeroed quickly: what lies behind the disk on it stays as it was"]

    def _in_steps(self, end: int, zero: Callable[[int, int, int], None]) -> None:
        """Call `zero` for all up to `end`, unless we are to stop meanwhile."""
        end = min(self.length, -(-end // ALIGNMENT) * ALIGNMENT)
        for start in range(0, end, _STEP):
            if self._stopped:
                raise Failure("interrupted", "stopped while the device was zeroed")
            zero(self._fd, start, min(_STEP, end - start))

    def _give_back(self, offset: int, size: int) -> bool:
        """Zero a range, by giving it back where the device can; return whether it could. Never less than zeroes for sure."""
        try:
            syscalls.punch_hole(self._fd, offset, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                raise
            self._writer.write_zeroes(offset, size)
            return False
        return True

    def punch(self, offset: int, size: int) -> None:
        """See Landing."""
        end = offset + size
        with self._writing():
            if offset < HEAD:
                held = min(end, HEAD)
                DirectWriter(self._head_fd).write_zeroes(offset, held - offset)
                offset = held
            if end - offset < _SMALL:
                self._writer.write_zeroes(offset, end - offset)
                return
            first, last = -(-offset // ALIGNMENT) * ALIGNMENT, end // ALIGNMENT * ALIGNMENT
            self._writer.write_zeroes(offset, first - offset)
            self._give_back(first, last - first)
            self._writer.write_zeroes(last, end - last)

    def read(self, offset: int, size: int) -> bytes:
        """See Landing."""
        with self._writing():
            held = os.pread(self._head_fd, min(size, HEAD - offset), offset) if offset < HEAD else b""
            return held + os.pread(self._fd, size - len(held), offset + len(held)) if len(held) < size else held

    def write(self, offset: int, data: memoryview | bytes, /) -> None:
        """See Landing."""
        with self._writing():
            self._writer.write(*self._beyond_head(offset, memoryview(data).cast("B")))

    def write_direct(self, offset: int, data: memoryview, /) -> None:
        """See Landing."""
        with self._writing():
            self._writer.write_direct(*self._beyond_head(offset, data.cast("B")))

    def _beyond_head(self, offset: int, view: memoryview) -> tuple[int, memoryview]:
        """Put what belongs into the first MiB aside; return the rest and its place."""
        if offset >= HEAD:
            return offset, view
        held = min(len(view), HEAD - offset)
        if offset + held > self.length:
            raise OSError(errno.ENOSPC, "")
        DirectWriter(self._head_fd).write(offset, view[:held])
        return offset + held, view[held:]

    def size_to(self, virtual_size: int, preallocate: Preallocate | None = None) -> None:
        """Raise Failure("no-space") if the disk is larger than the device, which has its length and all of its blocks."""
        if virtual_size > self.length:
            raise too_small(virtual_size, self.length)

    def cut(self, size: int, written: int) -> None:
        """See Landing: what came beyond the end is zeroed."""
        self.size_to(size)
        if written > size:
            self.punch(size, written - size)

    def fill(self) -> None:
        """Nothing to be done: a device has all of its blocks."""

    def takes_direct(self) -> bool:
        """See Landing."""
        return self._writer.takes_direct()

    def tool_parts(self, virtual_size: int) -> tuple[ToolPart, ...]:
        """The first MiB goes to the file that holds it back, the rest to the device: so no tool writes a disk that boots."""
        head = ToolPart(fd=self._head_fd, span=(0, min(HEAD, virtual_size)))
        if virtual_size <= HEAD:
            return (head,)
        return head, ToolPart(fd=self._lent(), span=(HEAD, virtual_size), device=True)

    def _lent(self) -> int:
        """Return a descriptor that user nobody, too, can open anew: of a node of our own that has no name any more.

        The owner of the node in /dev is not changed: a kill would leave it so. Where no node can be made, it is that in /dev.
        """
        if self._node_fd < 0 and os.geteuid() == 0:
            name = f"{self._name}.node"
            with suppress(OSError):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._state_fd)
                os.mknod(name, 0o600 | stat.S_IFBLK, self._rdev, dir_fd=self._state_fd)
                try:
                    os.chown(name, _NOBODY, -1, dir_fd=self._state_fd, follow_symlinks=False)
                    self._node_fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._state_fd)
                finally:
                    os.unlink(name, dir_fd=self._state_fd)
        return self._node_fd if self._node_fd >= 0 else self._fd

    def allocated(self) -> int:
        """All of it: nobody can tell which of its blocks a device really has."""
        return self.length

    def free_space(self) -> int:
        """See Landing."""
        return self.length

    def reserve(self, asked: int | None) -> int:
        """Nothing stays free on a device."""
        return 0

    def flush(self) -> None:
        """Have all data written so far on the device, and what is held back on its own."""
        with self._ending, self._writing():
            os.fdatasync(self._fd)
            os.fdatasync(self._head_fd)

    def sync(self) -> None:
        """See Landing."""
        self.flush()

    # -- ending it

    def publish(self) -> str:
        """Write the first MiB, its first block at the very last; return the path. Raises Failure: then `discard`."""
        with self._ending, self._writing():
            os.fsync(self._fd)
            head = memoryview(os.pread(self._head_fd, min(HEAD, self.length), 0))
            self._writer.write(FIRST, head[FIRST:])
            os.fsync(self._fd)
            self._writer.write(0, head[:FIRST])
            os.fsync(self._fd)
            self._touched = False
            self._forget()
            self.leave()
        return self.path

    def leave(self) -> None:
        """Let go of everything; the device and what is held back stay as they are."""
        self._stopped = True
        with self._ending:
            self._writer.close()
            for fd in (self._fd, self._state_fd, self._head_fd, self._node_fd):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._state_fd = self._head_fd = self._node_fd = -1

    def discard(self) -> None:
        """See that the first MiB is zero, if we touched the device at all, and let go of everything. May be called again."""
        self._stopped = True
        with self._ending:
            if self._fd >= 0:
                with suppress(OSError):
                    if self._touched:
                        self._writer.write_zeroes(0, min(HEAD, self.length))
                        os.fsync(self._fd)
                self._forget()
            self.leave()

    def _forget(self) -> None:
        with suppress(OSError):
            os.unlink(f"{self._name}.head", dir_fd=self._state_fd)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn OSErrors into Failures."""
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise Failure(
                    "no-space", "the disk is larger than the device", hint=LARGER, path=self.path, device=size_text(self.length)
                ) from error
            raise Failure("io", "the device failed", path=self.path, reason=os.strerror(error.errno or 0)) from error


def _name_of(rdev: int) -> str:
    """Return the name of a device's files in the state directory, always the same."""
    return f"block-{os.major(rdev)}-{os.minor(rdev)}"
