"""One door to the format parsers: judge an image's headers, then its tables. Pure."""

from typing import Protocol

from importer.api.failure import Failure
from importer.disk import qcow2, vdi, vhd, vhdx, vmdk
from importer.disk.extents import Extents
from importer.disk.image import SECTOR, Format, Image, Limits
from importer.disk.reads import Reads, Span


class Parser(Protocol):
    """What the module of each format offers."""

    def examine(self, length: int, limits: Limits, /) -> Reads[Image]:
        """Judge the headers."""
        ...

    def walk(self, image: Image, length: int, extents: Extents, /) -> Reads[None]:
        """Judge the mapping tables."""
        ...

    def unit(self, image: Image, /) -> int:
        """Tell the granularity of the mapping."""
        ...


PARSERS: dict[Format, Parser] = {
    Format.QCOW2: qcow2,
    Format.VMDK: vmdk,
    Format.VHD: vhd,
    Format.VHDX: vhdx,
    Format.VDI: vdi,
}
ISO_MAGIC_AT = 0x8001
RAW_UNIT = 1 << 20


def examine(fmt: Format, length: int, limits: Limits) -> Reads[Image]:
    """Judge the headers of an object of `length` bytes in a few reads; every refusal that headers can show."""
    if fmt is Format.RAW:
        return _examine_raw(length, limits)
    return PARSERS[fmt].examine(length, limits)


def walk(image: Image, length: int, extents: Extents) -> Reads[None]:
    """Judge the mapping tables in guest order; every refusal that tables can show. Raw disks have none."""
    if image.format is Format.RAW:
        return _walk_raw(image, extents)
    return PARSERS[image.format].walk(image, length, extents)


def unit(image: Image) -> int:
    """Bytes in which the image maps its disk: what Extents is to be made with."""
    if image.format is Format.RAW:
        return RAW_UNIT
    return PARSERS[image.format].unit(image)


def _examine_raw(length: int, limits: Limits) -> Reads[Image]:
    if length == 0:
        raise Failure("empty", "the source holds no bytes")
    if length > limits.max_size:
        raise Failure("too-large", "the disk is larger than the limit", virtual_size=length, max_size=limits.max_size)
    notes: dict[str, str] = {}
    if length >= ISO_MAGIC_AT + 5:
        # Only a label for people: nothing that is decided depends on what a raw disk holds.
        (magic,) = yield (Span(ISO_MAGIC_AT, ISO_MAGIC_AT + 5),)
        if magic == b"CD001":
            notes["content"] = "ISO 9660"
    if length % SECTOR:
        notes["length"] = f"not a multiple of {SECTOR} bytes"
    return Image(format=Format.RAW, virtual_size=length, compressed=False, raw_span=(0, length), notes=notes)


def _walk_raw(image: Image, extents: Extents) -> Reads[None]:
    extents.add(0, 0, image.virtual_size)
    yield from ()
