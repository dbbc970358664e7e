"""How the parsers of VMDK, VHD, VHDX and VDI refuse: always with the field and its value. Pure."""

from typing import NoReturn

from importer.api.failure import Failure
from importer.disk.image import Limits

SPARE_TABLE = 16 << 20
"""Bytes of a mapping table beyond those a disk needs: some tools leave room to grow, xenserver's for 2 TiB."""


def unsafe(cause: str, field: str, value: object) -> NoReturn:
    """Refuse what would lead outside the image, or can only be meant to mislead."""
    raise Failure("unsafe", cause, field=field, value=value)


def unsupported(cause: str, field: str, value: object, hint: str | None = None) -> NoReturn:
    """Refuse an honest feature that is not read here."""
    raise Failure("unsupported", cause, hint=hint, field=field, value=value)


def corrupt(cause: str, field: str, value: object) -> NoReturn:
    """Refuse what contradicts itself."""
    raise Failure("corrupt", cause, field=field, value=value)


def refuse_beyond(end: int, length: int, what: str) -> None:
    """Refuse an object of `length` bytes in which `what` should end at `end`."""
    if end > length:
        raise Failure("truncated", f"{what} lies past the end of the image", needed_length=end, length=length)


def refuse_larger(virtual_size: int, limits: Limits, field: str) -> None:
    """Refuse a disk of more bytes than the limit."""
    if virtual_size > limits.max_size:
        raise Failure(
            "too-large", "the disk is larger than the limit", virtual_size=virtual_size, limit=limits.max_size, field=field
        )


def refuse_huge_table(size: int, limit: int, field: str) -> None:
    """Refuse mapping tables of more bytes than the limit."""
    if size > limit:
        raise Failure("unsafe", "the mapping tables are larger than the limit", field=field, value=size, limit=limit)


def refuse_idle_table(size: int, needed: int, field: str) -> None:
    """Refuse a mapping table of far more bytes than the disk needs: qemu-img holds all of it in memory."""
    if size > needed + SPARE_TABLE:
        raise Failure("unsafe", "the mapping table is far larger than the disk needs", field=field, value=size, needed=needed)
