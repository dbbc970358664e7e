"""The port through which an import writes its disk, and the two that there are: a file in the making, a block device."""

import os
import stat
from typing import Protocol

from importer.api.failure import Failure
from importer.api.request import Preallocate
from importer.disk.journal_file import JournalFile
from importer.disk.target import Target
from importer.disk.tool_part import ToolPart


class Landing(Protocol):
    """Where the disk goes. Calls block (briefly, but for writes and sync); writes may come from many threads.

    Raises Failure: "no-space" where the disk does not fit, "io".
    """

    @property
    def path(self) -> str:
        """Where the disk will be."""
        ...

    @property
    def directory(self) -> str:
        """What an announced spill should lie in."""
        ...

    @property
    def fd(self) -> int:
        """Descriptor, open to read and write; for write-back, and facts."""
        ...

    @property
    def identity(self) -> str:
        """Which file or device it is: a journal is bound to that."""
        ...

    @property
    def capacity(self) -> int | None:
        """Bytes that it has, if that cannot be changed."""
        ...

    @property
    def reads_zero(self) -> bool:
        """True if what was not written reads as zeroes: known once it is prepared."""
        ...

    @property
    def length(self) -> int:
        """Bytes that can be read of it now."""
        ...

    def is_new(self) -> bool:
        """True if nothing that an earlier import wrote can be in it."""
        ...

    def journal(self) -> JournalFile:
        """Return the journal that belongs to it."""
        ...

    def empty(self) -> None:
        """Throw away what an earlier import left. A device is not touched yet."""
        ...

    def prepare(self, *, span: int | None) -> list[str]:
        """Get ready for the first write; return what a person should know of it.

        `span`: how many bytes must read as zeroes; 0 if every byte of the disk comes; None if all that there are.
        """
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes that were written."""
        ...

    def write(self, offset: int, data: memoryview | bytes, /) -> None:
        """Write all of `data` at `offset`."""
        ...

    def write_direct(self, offset: int, data: memoryview, /) -> None:
        """Write a long run, around the page cache where that pays."""
        ...

    def punch(self, offset: int, size: int) -> None:
        """Make `size` bytes from `offset` read as zeroes."""
        ...

    def size_to(self, virtual_size: int, preallocate: Preallocate | None = None) -> None:
        """Give it its length, and its blocks too if so asked."""
        ...

    def cut(self, size: int, written: int) -> None:
        """Let the disk end at `size`, though `written` bytes came."""
        ...

    def fill(self) -> None:
        """Write zeroes where no data went, for real."""
        ...

    def takes_direct(self) -> bool:
        """True if `qemu-img -t none` works with it."""
        ...

    def tool_parts(self, virtual_size: int) -> tuple[ToolPart, ...]:
        """Return what a tool is given to write all of the disk."""
        ...

    def allocated(self) -> int:
        """Bytes of its blocks."""
        ...

    def free_space(self) -> int:
        """Bytes left where it lies."""
        ...

    def reserve(self, asked: int | None) -> int:
        """Bytes to leave free there."""
        ...

    def flush(self) -> None:
        """Have all data written so far on the device."""
        ...

    def sync(self) -> None:
        """Have every byte on the device: late errors of writes come here."""
        ...

    def publish(self) -> str:
        """Let the disk be there, whole; return its path."""
        ...

    def leave(self) -> None:
        """Let go of everything, but leave what was written for an import that goes on."""
        ...

    def discard(self) -> None:
        """Let go of everything, and leave nothing that could be taken for a disk. May be called again."""
        ...


def is_device(path: str) -> bool:
    """True if there is a block device at `path`, or where a symbolic link there leads."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def open_landing(path: str, *, force: bool) -> Landing:
    """Claim the target at `path`, with what an earlier import left in it. Raises Failure as Target.open or Device.open do."""
    if is_device(path):
        from importer.disk.device import Device  # of use to few

        return Device.open(path, force=force)
    _refuse_among_devices(path)
    return Target.open(path, force=force, keep=True)


def check(path: str, *, force: bool) -> None:
    """Raise the Failure that opening would, as far as can be told without making anything."""
    if is_device(path):
        from importer.disk.device import Device

        Device.check(path, force=force)
    else:
        _refuse_among_devices(path)
        Target.check(path, force=force)


def _refuse_among_devices(path: str) -> None:
    """Raise Failure("target-directory") for a mistyped device: a file there would fill the memory, and be gone soon."""
    directory = os.path.realpath(os.path.dirname(path) or ".")
    if directory == "/dev" or directory.startswith(("/dev/disk", "/dev/mapper")):
        raise Failure("target-directory", "there is no such device", hint="check its name with lsblk", path=path)
