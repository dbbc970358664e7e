"""VMDK in one sparse file: monolithicSparse and streamOptimized. Pure.

The limits are those of QEMU's driver, or stricter, and every place that QEMU looks at is looked at here: with a
capacity of 0 it opens the files that the embedded descriptor names, so that is refused; it reads parent and CIDs at
byte 512, wherever the header says the descriptor lies, so the descriptor must be there; a footer replaces the header.
The mapping tables are judged in vmdk_tables, the descriptor in vmdk_descriptor.
"""

import struct
from dataclasses import dataclass

from importer.api.failure import Failure
from importer.disk.image import SECTOR, Format, Image, Limits
from importer.disk.reads import Reads, Span
from importer.disk.refusals import corrupt, refuse_beyond, refuse_huge_table, refuse_larger, unsafe, unsupported
from importer.disk.vmdk_descriptor import FIXED_AT, FIXED_SIZE, read_descriptor
from importer.disk.vmdk_tables import TABLE_ENTRIES, Layout, walk

__all__ = ["examine", "unit", "walk"]

HEAD = 64 << 10
"""Bytes of the first read: header and descriptor."""
FOOTER = 3 * SECTOR
"""A marker, the footer, the end-of-stream marker."""
AT_END = 0xFFFFFFFFFFFFFFFF
FOOTER_MARKER = 3
MIN_GRAIN, MAX_GRAIN = 8, 2048
"""Sectors: 4 KiB to 1 MiB. VMware, VirtualBox and qemu-img write 64 KiB; QEMU holds three grains for every read, and
reads two compressed ones anew for every 2 MiB of the disk."""
CHECK_LINES, REDUNDANT, ZERO_GRAINS, COMPRESSED, MARKERS = 1 << 0, 1 << 1, 1 << 2, 1 << 16, 1 << 17
LINE_ENDS = b"\n \r\n"
"""In the header, to find out files that were transferred as text."""
DEFLATE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fields of a header or footer, as they stand. Sizes and offsets in sectors."""

    version: int
    flags: int
    capacity: int
    grain: int
    descriptor_offset: int
    descriptor_size: int
    table_entries: int
    redundant_offset: int
    directory_offset: int
    overhead: int
    unclean: int
    line_ends: bytes
    compression: int

    @property
    def directory_bytes(self) -> int:
        """Bytes of the grain directory as far as the disk reaches."""
        return -(-self.capacity // (self.grain * TABLE_ENTRIES)) * 4


def examine(length: int, limits: Limits) -> Reads[Image]:
    """Judge header, descriptor and footer; one or two reads.

    Raises Failure: "unsafe", "unsupported", "corrupt", "truncated" or "too-large", with field and value.
    """
    refuse_beyond(FIXED_AT + FIXED_SIZE, length, "the VMDK descriptor")
    (head,) = yield (Span(0, min(length, HEAD)),)
    header = _parse(head, "header")
    _refuse_fields(header, limits)
    kind = read_descriptor(head, header.descriptor_offset, header.descriptor_size)
    footed = header.directory_offset == AT_END
    if footed:
        if length % SECTOR:
            raise Failure("truncated", "the image does not end with a sector, so its footer is cut", length=length)
        (tail,) = yield (Span(length - FOOTER, length),)
        header = _footer(tail, header, limits)
    _refuse_directory(header, length, limits)
    if header.compression and kind != "streamOptimized":
        corrupt("compressed grains in an image of another type", "createType", kind)
    return Image(
        format=Format.VMDK,
        virtual_size=header.capacity * SECTOR,
        subformat=kind,
        compressed=bool(header.compression),
        exact_length=bool(header.compression) or footed,
        notes=_notes(header),
        layout=Layout(
            directory_offset=header.directory_offset * SECTOR,
            directory_bytes=header.directory_bytes,
            grain=header.grain * SECTOR,
            reserved=max(FIXED_AT + FIXED_SIZE, (header.descriptor_offset + header.descriptor_size) * SECTOR),
            compressed=bool(header.compression),
            zero_grains=bool(header.flags & ZERO_GRAINS),
            table_bytes=limits.table_bytes,
        ),
    )


def unit(image: Image) -> int:
    """A sector: tables and compressed grains lie at any."""
    return SECTOR


def _parse(data: bytes, what: str) -> Header:
    magic, *fields = struct.unpack_from("<4sIIQQQQIQQQB4sH", data)
    if magic != b"KDMV":
        corrupt(f"there is no VMDK {what}", "magic", magic.hex(" "))
    return Header(**dict(zip(Header.__slots__, fields, strict=True)))


def _refuse_fields(header: Header, limits: Limits) -> None:
    """Refuse what must not stand in a header, nor in a footer."""
    if not header.capacity:
        unsafe("without a capacity, readers open the files that the descriptor names", "capacity", 0)
    if not 1 <= header.version <= 3:
        unsupported("not a sparse VMDK of version 1 to 3", "version", header.version)
    if not MIN_GRAIN <= header.grain <= MAX_GRAIN or header.grain & header.grain - 1:
        unsafe(f"absurd grain size: not a power of two from {MIN_GRAIN} to {MAX_GRAIN} sectors", "grainSize", header.grain)
    if header.table_entries != TABLE_ENTRIES:
        unsafe("absurd size of grain tables", "numGTEsPerGT", header.table_entries)
    refuse_larger(header.capacity * SECTOR, limits, "capacity")
    if header.compression not in (0, DEFLATE):
        unsupported("unknown compression", "compressAlgorithm", header.compression)
    if bool(header.flags & COMPRESSED) != bool(header.compression):
        corrupt("flag and algorithm of compression disagree", "compressAlgorithm", header.compression)
    if header.compression and not header.flags & MARKERS:
        unsupported("compressed grains without markers", "flags", f"{header.flags:#x}")
    if header.flags & CHECK_LINES and header.line_ends != LINE_ENDS:
        corrupt("the image was transferred as text", "newLineChars", header.line_ends.hex(" "))


def _footer(tail: bytes, header: Header, limits: Limits) -> Header:
    """Return the footer, which replaces the header; refuse one that contradicts it."""
    *marker, kind = struct.unpack_from("<QII", tail)
    ending = struct.unpack_from("<QII", tail, 2 * SECTOR)
    if marker[1] or kind != FOOTER_MARKER or any(ending) or tail[SECTOR : SECTOR + 4] != b"KDMV":
        raise Failure("truncated", "the footer is missing at the end of the image", marker=tail[:16].hex(" "))
    footer = _parse(tail[SECTOR:], "footer")
    _refuse_fields(footer, limits)
    for field in ("capacity", "grain", "compression", "flags"):
        if getattr(footer, field) != getattr(header, field):
            unsafe("header and footer contradict each other", field, f"{getattr(header, field)}, {getattr(footer, field)}")
    if footer.directory_offset == AT_END:
        corrupt("the footer tells no place of the grain directory", "gdOffset", f"{AT_END:#x}")
    return footer


def _refuse_directory(header: Header, length: int, limits: Limits) -> None:
    refuse_huge_table(header.directory_bytes, limits.table_bytes, "capacity")
    if header.directory_offset == 0:
        corrupt("the grain directory lies in the header", "gdOffset", 0)
    refuse_beyond(header.directory_offset * SECTOR + header.directory_bytes, length, "the grain directory")
    if header.flags & REDUNDANT:
        refuse_beyond(header.redundant_offset * SECTOR + header.directory_bytes, length, "the redundant grain directory")
    refuse_beyond(header.overhead * SECTOR, length, "the first grain")


def _notes(header: Header) -> dict[str, str]:
    notes = {"version": str(header.version), "grain size": str(header.grain * SECTOR)}
    if header.unclean:
        notes["unclean"] = "not closed cleanly by what last wrote it"
    return notes
