"""What a tool is given to write. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPart:
    """A part of the disk that a tool writes through a descriptor."""

    fd: int
    span: tuple[int, int] | None = None
    """Where it begins and ends, on the disk and in what is open; None: all of the disk, into a file of its own."""
    device: bool = False
    """True if the descriptor is of a block device."""
