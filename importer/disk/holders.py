"""Who uses a block device, and which one it is: what the kernel tells in /proc and /sys."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_NAMED = ("wwid", "device/wwid", "device/serial", "serial", "dm/uuid", "md/uuid")


def holding(rdev: int) -> str:
    """Say what uses a device or one of its partitions: mounts, swap, devices on top, processes. "" if nothing can be seen."""
    below = dict(_with_partitions(rdev))
    found = [*_mounts(below), *_swaps(below), *_stacked(below)]
    return ", ".join(found or [f"process {pid}" for pid in _processes(below)])


def serial(rdev: int) -> str:
    """Return what tells this very device from every other, also from a later one of its number.

    A name that the device was given for good; else the sequence number of its attachment since this boot; "" if there is neither.
    """
    place = _sysfs(rdev)
    if (place / "partition").exists():
        whole = place.resolve().parent
        above = serial(os.makedev(*map(int, _text(whole / "dev").split(":")))) if (whole / "dev").exists() else ""
        return f"{above}#{_text(place / 'partition')}@{_text(place / 'start')}" if above else ""
    for name in _NAMED:
        if text := _text(place / name):
            return f"{name}={text}"
    boot, attached = _text(Path("/proc/sys/kernel/random/boot_id")), _text(place / "diskseq")
    return f"boot={boot} diskseq={attached}" if boot and attached else ""


def is_read_only(rdev: int) -> bool:
    """True if the kernel lets nobody write it."""
    return _text(_sysfs(rdev) / "ro") == "1"


def discards(rdev: int) -> bool:
    """True if its blocks can be given back: only then is zeroing all of it a matter of moments."""
    place = _sysfs(rdev)
    queue = place / "queue" if (place / "queue").exists() else place.resolve().parent / "queue"
    return _text(queue / "discard_max_bytes") not in ("", "0")


def _sysfs(rdev: int) -> Path:
    return Path(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _with_partitions(rdev: int) -> Iterator[tuple[str, Path]]:
    """Yield "major:minor" and the place in sysfs of a device and of its partitions."""
    place = _sysfs(rdev)
    yield f"{os.major(rdev)}:{os.minor(rdev)}", place
    with suppress(OSError):
        for partition in place.glob("*/partition"):
            yield _text(partition.parent / "dev"), partition.parent


def _mounts(below: dict[str, Path]) -> Iterator[str]:
    for line in _text(Path("/proc/self/mountinfo")).splitlines():
        fields = line.split()
        # btrfs and others count devices of their own there: then the name of the source tells.
        source = line.partition(" - ")[2].split()[1]
        if fields[2] in below or _number(source) in below:
            yield f"mounted at {fields[4]}"


def _swaps(below: dict[str, Path]) -> Iterator[str]:
    for line in _text(Path("/proc/swaps")).splitlines()[1:]:
        if _number(line.split()[0]) in below:
            yield f"swap on {line.split()[0]}"


def _stacked(below: dict[str, Path]) -> Iterator[str]:
    for place in below.values():
        with suppress(OSError):
            yield from (f"the device {name} on top of it" for name in sorted(os.listdir(place / "holders")))


def _processes(below: dict[str, Path]) -> list[int]:
    """Return those that have it open, as far as we may look."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(link).startswith("/dev/") and _number(str(link)) in below:
                found.add(int(link.parts[2]))
    return sorted(found - {os.getpid()})


def _number(path: str) -> str:
    """Return "major:minor" of the block device at a path, "" if there is none."""
    if not path.startswith("/"):
        return ""
    try:
        facts = os.stat(path)
    except OSError:
        return ""
    return f"{os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)}" if stat.S_ISBLK(facts.st_mode) else ""
