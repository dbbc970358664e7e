"""Will the disk fit? Decided before a byte of the body is fetched. Pure."""

from dataclasses import dataclass
from typing import Literal

from importer.api.failure import Failure

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What can be said now about whether a disk fits. Sizes in bytes."""

    kind: Literal["fits", "warn", "refuse"]
    text: str
    """One sentence; empty if it fits."""
    needed: int
    """What must be written at least, or for preallocation."""
    free: int
    reserve: int

    @property
    def smallest(self) -> int:
        """The least free space with which it would be tried."""
        return self.needed + self.reserve

    def failure(self) -> Failure | None:
        """Return what an import ends with, None unless it is refused."""
        if self.kind != "refuse":
            return None
        return Failure(
            "no-space",
            self.text,
            needed=size_text(self.needed),
            free=size_text(self.free),
            reserve=size_text(self.reserve),
            smallest_free_space_that_works=size_text(self.smallest),
        )


def verdict(*, needed_lower_bound: int | None, virtual_size: int | None, free: int, reserve: int, preallocate: bool) -> Verdict:
    """Judge a disk of `virtual_size` bytes that holds at least `needed_lower_bound` bytes of data; None: unknown."""
    usable = max(0, free - reserve)
    needed = needed_lower_bound or 0
    if needed > usable:
        return Verdict(kind="refuse", text="the data alone is larger than the space", needed=needed, free=free, reserve=reserve)
    if virtual_size is None or virtual_size <= usable:
        return Verdict(kind="fits", text="", needed=needed, free=free, reserve=reserve)
    if preallocate:
        text = "the whole disk is to be allocated and is larger than the space"
        return Verdict(kind="refuse", text=text, needed=virtual_size, free=free, reserve=reserve)
    text = (
        f"the disk may grow to {size_text(virtual_size)}, of which {size_text(usable)} can be had: "
        "it fits now but the guest may run out of space later"
    )
    return Verdict(kind="warn", text=text, needed=needed, free=free, reserve=reserve)


LARGER = "choose a device that is as large as the disk"


def too_small(size: int, device: int) -> Failure:
    """Return what an import ends with whose disk of `size` bytes goes to a device of `device` bytes."""
    return Failure("no-space", "the disk is larger than the device", hint=LARGER, disk=size_text(size), device=size_text(device))


def default_reserve(total_bytes: int, *, shared: bool) -> int:
    """Return the bytes to leave free on a file system of `total_bytes`: none if it is there for this disk alone."""
    return min(GIB, total_bytes * 5 // 100) if shared else 0


def size_text(size: int) -> str:
    """Return a size for people, with the exact number: "1.5 GiB (1610612736)"."""
    for unit, name in ((1 << 40, "TiB"), (GIB, "GiB"), (MIB, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name} ({size})"
    return f"{size} bytes"
