"""How much space is left, whom it belongs to, and a guard that looks while we write."""

import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from importer.api.failure import Failure
from importer.disk.sizing import default_reserve, size_text

CHECK_EVERY = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """What a descriptor's file system is mounted as."""

    root: str
    """Which of its directories is mounted; "/" unless it is a bind mount of a part."""
    point: str
    kind: str
    """Such as ext4 or tmpfs."""


def mount_of(fd: int) -> Mount | None:
    """Return the mount that `fd` was opened through, None if /proc does not tell."""
    try:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    wanted = next((line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:")), "")
    for line in mounts.splitlines():
        fields = line.split()
        if fields[0] == wanted:
            kind = line.partition(" - ")[2].split()[0]
            return Mount(root=_plain(fields[3]), point=_plain(fields[4]), kind=kind)
    return None


def _plain(text: str) -> str:
    """Undo mountinfo's octal escapes of blanks and backslashes."""
    for code, letter in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, letter)
    return text


def free_space(fd: int) -> int:
    """Return the bytes that an ordinary user may still write on the file system of `fd`."""
    facts = os.fstatvfs(fd)
    return facts.f_bavail * facts.f_frsize


def total_space(fd: int) -> int:
    """Return the bytes of the file system of `fd`."""
    facts = os.fstatvfs(fd)
    return facts.f_blocks * facts.f_frsize


def holds_only(directory: int, names: Collection[str]) -> bool:
    """True if `directory` is the root of a volume that holds nothing but `names` (and lost+found), as a PVC's does."""
    mount = mount_of(directory)
    if mount is None or mount.root != "/" or mount.point != os.readlink(f"/proc/self/fd/{directory}"):
        return False
    return set(os.listdir(directory)) <= {"lost+found", *names}


def reserve_of(directory: int, asked: int | None, *, own_names: Collection[str] = ()) -> int:
    """Return the bytes to leave free: as asked, else by default, else none on a volume that holds only `own_names`."""
    if asked is not None:
        return asked
    shared = not (own_names and holds_only(directory, own_names))
    return default_reserve(total_space(directory), shared=shared)


class SpaceGuard:
    """Stops an import before it takes the last of the space. Safe to call from several threads."""

    def __init__(self, free: Callable[[], int], reserve: int) -> None:
        """`free` returns the bytes left on the file system; `reserve` of them are to stay."""
        self._free = free
        self._reserve = reserve
        self._unchecked = 0
        self._lock = threading.Lock()

    def wrote(self, size: int) -> None:
        """Take note of `size` bytes written; look at the space every 64 MiB. Raises Failure("no-space")."""
        with self._lock:
            self._unchecked += size
            if self._unchecked < CHECK_EVERY:
                return
            self._unchecked = 0
        self.check()

    def check(self) -> None:
        """Look at the space now. Raises Failure("no-space")."""
        free = self._free()
        if free < self._reserve:
            raise Failure(
                "no-space",
                "the space that is to stay free would be used up",
                free=size_text(free),
                reserve=size_text(self._reserve),
            )
