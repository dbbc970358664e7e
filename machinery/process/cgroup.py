"""A memory limit for a child by a control group of its own, where we own the group we are in.

A group is used only if it is ours to divide: the root of all that this process sees (a container's own group),
or one that its manager delegated (systemd's Delegate=yes leaves a mark on it). That root could write into
somebody else's group is no reason to: managers count on being its only writer.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

REMOVE_SECONDS = 2.0
_numbers = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A group in which we may make groups."""

    path: Path
    unified: bool
    """cgroup v2; else the memory hierarchy of v1."""


class Group:
    """One group with a memory limit."""

    def __init__(self, path: Path, *, unified: bool) -> None:
        """Speak for the existing group at `path`."""
        self.path = path
        self._unified = unified

    def limit(self, size: int) -> None:
        """Allow `size` bytes of memory and no swap where that can be said. OSError if refused."""
        self._write("memory.max" if self._unified else "memory.limit_in_bytes", size)
        with suppress(OSError):  # kernels without swap accounting lack these files
            self._write("memory.swap.max" if self._unified else "memory.memsw.limit_in_bytes", 0 if self._unified else size)

    def add(self, pid: int) -> None:
        """Move a process into the group. OSError if refused or if it has ended."""
        self._write("cgroup.procs", pid)

    def killed(self) -> bool:
        """True if the kernel killed a process of the group because of the limit."""
        try:
            text = (self.path / ("memory.events" if self._unified else "memory.oom_control")).read_text()
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in text.splitlines())

    def _write(self, name: str, value: int) -> None:
        fd = os.open(self.path / name, os.O_WRONLY | os.O_CLOEXEC)  # never creates: these files are the kernel's
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)


@contextmanager
def group(parent: Parent | None, limit: int) -> Iterator[Group | None]:
    """Make a group limited to `limit` bytes of memory, remove it in the end; None where that cannot be had.

    Whatever ran in it must have ended before the context is left.
    """
    made = None if parent is None else _make(parent, limit)
    try:
        yield made
    finally:
        if made is not None:
            remove(made.path)


def _make(parent: Parent, limit: int) -> Group | None:
    path = parent.path / f"slipstream-{os.getpid()}-{next(_numbers)}"
    try:
        path.mkdir()
    except OSError:
        return None
    made = Group(path, unified=parent.unified)
    try:
        made.limit(limit)
    except OSError:  # v2 hands the controller on only if the parent says so, and to no parent that holds processes
        remove(path)
        return None
    return made


def remove(path: Path) -> None:
    """Remove a group; the kernel says busy for a moment after its last process was reaped. One still in use is left."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                return
            os.sched_yield()
        else:
            return


def find() -> Parent | None:
    """Return the group of this process if it is ours to divide, else None."""
    try:
        ours, mounts = Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    except OSError:
        return None
    parent = locate(ours, mounts)
    if parent is None or not os.access(parent.path, os.W_OK):
        return None
    is_root = any(str(parent.path) == mount.point for mount in _mounts(mounts))
    return parent if is_root or _delegated(parent.path) else None


def locate(ours: str, mounts: str) -> Parent | None:
    """Return the directory of our memory group, from the texts of /proc/self/cgroup and /proc/self/mountinfo."""
    groups: dict[str, str] = {}
    for line in ours.splitlines():
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)
    for mount in _mounts(mounts):
        name = "memory" if mount.kind == "cgroup" else ""
        if name in mount.options and name in groups:
            with suppress(ValueError):  # mounted elsewhere than where we are
                inside = PurePosixPath(groups[name]).relative_to(mount.root)
                if ".." not in inside.parts:
                    return Parent(path=Path(mount.point) / inside, unified=mount.kind == "cgroup2")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mount:
    root: str
    point: str
    kind: str
    options: tuple[str, ...]


def _mounts(text: str) -> list[_Mount]:
    """Read the control group mounts, v1 with memory before v2: where both are, v1 holds the controller or nobody does."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            extra = ("",) if kind == "cgroup2" else tuple(options.split(","))
            found.append(_Mount(root=fields[3], point=fields[4], kind=kind, options=extra))
    return sorted(found, key=lambda mount: mount.kind)


def _delegated(path: Path) -> bool:
    """True if systemd marked the group as handed over."""
    for name in ("trusted.delegate", "user.delegate"):
        with suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False
