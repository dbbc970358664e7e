"""Whether a process of ours does anything: what the kernel counts for it, and whether it waits for a device."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MOVING = ("rchar", "wchar", "read_bytes", "write_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """One look at a process."""

    moved: int
    """Bytes it has read and written so far, by any system call that the kernel counts."""
    blocked: bool
    """True if one of its threads waits in the kernel for a device or a network file system."""


def look(pid: int) -> Vitals:
    """Look at a process; one that is gone, or that we may not look at, has moved nothing and waits for nothing."""
    return Vitals(moved=_moved(Path(f"/proc/{pid}/io")), blocked=_blocked(Path(f"/proc/{pid}/task")))


def _moved(path: Path) -> int:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(value) for name, _, value in (line.partition(": ") for line in lines) if name in _MOVING)


def _blocked(tasks: Path) -> bool:
    with suppress(OSError):  # threads come and go
        for stat in tasks.glob("*/stat"):
            with suppress(OSError):
                if stat.read_text(errors="replace").rpartition(")")[2].split()[0] == "D":
                    return True
    return False
