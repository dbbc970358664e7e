"""One door to the format parsers: judge an image's headers, then its tables. Pure."""

from typing import Protocol

from importer.api.failure import Failure
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


ISO_MAGIC_AT = 0x8001
RAW_UNIT = 1 << 20


def _parser(fmt: Format) -> Parser:
    """Return the parser of a format that is not raw, loading no other: each takes 2 to 5 ms."""
    match fmt:
        case Format.QCOW2:
            from importer.disk import qcow2

            return qcow2
        case Format.VMDK:
            from importer.disk import vmdk

            return vmdk
        case Format.VHD:
            from importer.disk import vhd

            return vhd
        case Format.VHDX:
            from importer.disk import vhdx

            return vhdx
        case Format.VDI:
            from importer.disk import vdi

            return vdi
        case Format.RAW:
            raise KeyError(fmt)


def examine(fmt: Format, length: int, limits: Limits) -> Reads[Image]:
    """Judge the headers of an object of `length` bytes in a few reads; every refusal that headers can show."""
    if fmt is Format.RAW:
        return _examine_raw(length, limits)
    return _parser(fmt).examine(length, limits)


def walk(image: Image, length: int, extents: Extents) -> Reads[None]:
    """Judge the mapping tables in guest order; every refusal that tables can show. Raw disks have none."""
    if image.format is Format.RAW:
        return _walk_raw(image, extents)
    return _parser(image.format).walk(image, length, extents)


def unit(image: Image) -> int:
    """Bytes in which the image maps its disk: what Extents is to be made with."""
    if image.format is Format.RAW:
        return RAW_UNIT
    return _parser(image.format).unit(image)


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
