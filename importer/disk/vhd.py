"""VHD, which qemu calls vpc: fixed disks and dynamic ones. Pure.

A fixed disk is the guest's bytes and a footer behind them; what else its first bytes look like is the guest's
business, so the footer at the end is looked at first. A dynamic disk has a copy of its footer in front, then a
header and a table (BAT) of 32 bit sector numbers: each block is a bitmap and then its data, always whole, even where
the disk ends within it. QEMU ignores the bitmaps, and so does this module.

How an image may end was tried with qemu-img 7.2 (create, convert, qemu-io writes; odd sizes): a footer is always in
the last 512 bytes and no block reaches into it. QEMU itself opens no image whose blocks are cut, so nothing may end short.
The disk's size is the footer's current size: readers must be told so (force_size_calc=current_size).
"""

import struct
import sys
from array import array
from dataclasses import dataclass

from importer.api.failure import Failure
from importer.disk.detect import is_fixed_vhd_footer
from importer.disk.extents import Extents
from importer.disk.image import GIB, SECTOR, Format, Image, Limits
from importer.disk.reads import Reads, Span
from importer.disk.refusals import refuse_idle_table, refuse_larger

FOOTER = 512
HEADER = 1024
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
MAX_SIZE = 2040 * GIB
"""Bytes of the largest disk that the format, and QEMU's driver, know."""
MIN_BLOCK, MAX_BLOCK = 512 << 10, 256 << 20
UNALLOCATED = 0xFFFFFFFF
PIECE = 1 << 20
BATCH = 4 * PIECE
FIXED_UNIT = 1 << 20
PARENT_FIELDS = (("parent_unique_id", 40, 56), ("parent_unicode_name", 64, 576), ("parent_locator_entries", 576, 768))
"""Of a dynamic header: all zero unless the disk lacks what another file holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the walk needs of a dynamic disk's headers. Bytes, unless said otherwise."""

    header_offset: int
    bat_offset: int
    entries: int
    """Entries of the BAT; those past the disk's end map nothing."""
    block: int

    @property
    def bitmap(self) -> int:
        """The bitmap in front of a block: a bit a sector, whole sectors."""
        return -(-self.block // SECTOR // 8 // SECTOR) * SECTOR


def examine(length: int, limits: Limits) -> Reads[Image]:
    """Judge footer, its copy and the dynamic header; two reads.

    Raises Failure: "unsafe", "unsupported", "corrupt", "truncated" or "too-large", with field and value.
    """
    if length < FOOTER:
        raise Failure("truncated", "the VHD footer is cut", needed_length=FOOTER, length=length)
    front, tail = yield (Span(0, FOOTER), Span(length - FOOTER, length))
    if is_fixed_vhd_footer(tail, length):
        return _fixed(tail, length, limits)
    size, header_offset = _judge_copy(front, limits)
    if header_offset < FOOTER or header_offset % SECTOR:
        raise Failure("corrupt", "the dynamic header lies in the footer's copy", field="data_offset", value=header_offset)
    _inside("the dynamic header lies past the end", "data_offset", header_offset, HEADER, length)
    (header,) = yield (Span(header_offset, header_offset + HEADER),)
    layout = _layout(header, header_offset)
    _judge_table(layout, size, length, limits)
    _judge_end(tail, size, length)
    notes = {"version": _version(front), "block size": str(layout.block), "logical sector size": str(SECTOR)}
    return Image(
        format=Format.VHD,
        virtual_size=size,
        subformat="dynamic",
        compressed=False,
        exact_length=True,
        notes=notes,
        layout=layout,
    )


def walk(image: Image, length: int, extents: Extents) -> Reads[None]:
    """Judge every block of the disk in guest order.

    Raises Failure: "truncated", "corrupt" or "bomb".
    """
    layout = image.layout
    if not isinstance(layout, Layout):
        extents.add(0, 0, image.virtual_size)
        return
    bat = layout.entries * 4
    for offset, size in ((0, FOOTER), (layout.header_offset, HEADER), (layout.bat_offset, bat), (length - FOOTER, FOOTER)):
        if not extents.claim(offset, size):
            raise Failure("corrupt", "two tables of the image overlap", offset=offset)
    for start in range(0, bat, BATCH):
        cuts = range(start, min(bat, start + BATCH), PIECE)
        pieces = yield tuple(Span(layout.bat_offset + at, layout.bat_offset + min(bat, at + PIECE)) for at in cuts)
        for at, piece in zip(cuts, pieces, strict=True):
            if piece.count(b"\xff") != len(piece):
                _judge_blocks(piece, at // 4, image.virtual_size, layout, extents)


def unit(image: Image) -> int:
    """Bytes of a sector, in which blocks are placed; a fixed disk has no blocks, so larger is cheaper."""
    return SECTOR if isinstance(image.layout, Layout) else FIXED_UNIT


def _version(footer: bytes) -> str:
    major, minor = struct.unpack_from(">HH", footer, 12)
    return f"{major}.{minor}"


def _sum_is(data: bytes, at: int) -> bool:
    """True if the checksum at `at` is that of all other bytes."""
    stated = int.from_bytes(data[at : at + 4], "big")
    return stated == ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


def _inside(cause: str, field: str, offset: int, size: int, length: int) -> None:
    if offset + size > length:
        raise Failure("truncated", cause, field=field, value=offset, needed_length=offset + size, length=length)


def _fixed(footer: bytes, length: int, limits: Limits) -> Image:
    size = length - FOOTER
    refuse_larger(size, limits, "current_size")
    return Image(
        format=Format.VHD,
        virtual_size=size,
        subformat="fixed",
        compressed=False,
        exact_length=True,
        raw_span=(0, size),
        notes={"version": _version(footer), "logical sector size": str(SECTOR)},
    )


def _judge_copy(footer: bytes, limits: Limits) -> tuple[int, int]:
    """Return the disk's size and the dynamic header's offset, of the footer's copy in front."""
    if not footer.startswith(b"conectix"):
        raise Failure("corrupt", "there is no VHD footer", first_bytes=footer[:16].hex(" "))
    size, kind = struct.unpack_from(">Q4xI", footer, 48)
    if kind == DIFFERENCING:
        raise Failure("unsafe", "VHD: a differencing disk needs its parent", field="disk_type", value=kind)
    if not _sum_is(footer, 64):
        raise Failure("corrupt", "the checksum of the VHD footer's copy is wrong", field="checksum", value=footer[64:68].hex())
    if kind == FIXED:
        raise Failure("corrupt", "a fixed VHD without a footer for its length at its end", field="disk_type", value=kind)
    if kind != DYNAMIC:
        raise Failure("unsupported", "not a fixed or dynamic VHD", field="disk_type", value=kind)
    refuse_larger(size, limits, "current_size")
    if size > MAX_SIZE:
        raise Failure("unsupported", "the disk is larger than a VHD can be", field="current_size", value=size, limit=MAX_SIZE)
    if size % SECTOR:
        raise Failure("corrupt", "the disk's size is not whole sectors", field="current_size", value=size)
    return size, int.from_bytes(footer[16:24], "big")


def _layout(header: bytes, offset: int) -> Layout:
    if not header.startswith(b"cxsparse"):
        raise Failure("corrupt", "there is no dynamic VHD header", first_bytes=header[:16].hex(" "))
    for field, start, end in PARENT_FIELDS:
        if any(header[start:end]):
            raise Failure("unsafe", "VHD: the image names a parent", field=field, value=header[start : start + 16].hex(" "))
    if not _sum_is(header, 36):
        raise Failure("corrupt", "the checksum of the dynamic VHD header is wrong", field="checksum", value=header[36:40].hex())
    bat_offset, version, entries, block = struct.unpack_from(">QIII", header, 16)
    if version >> 16 != 1:
        raise Failure("unsupported", "unknown version of the dynamic header", field="header_version", value=f"{version:#x}")
    if not MIN_BLOCK <= block <= MAX_BLOCK or block & block - 1:
        raise Failure("unsafe", "VHD: absurd block size", field="block_size", value=block)
    return Layout(header_offset=offset, bat_offset=bat_offset, entries=entries, block=block)


def _judge_table(layout: Layout, size: int, length: int, limits: Limits) -> None:
    if layout.entries * 4 > limits.table_bytes:
        raise Failure(
            "unsafe", "VHD: absurd block table", field="max_table_entries", value=layout.entries, limit=limits.table_bytes
        )
    if layout.entries * layout.block < size:
        raise Failure("corrupt", "the block table does not cover the disk", field="max_table_entries", value=layout.entries)
    refuse_idle_table(layout.entries * 4, -(-size // layout.block) * 4, "max_table_entries")
    if layout.bat_offset % SECTOR:
        raise Failure("corrupt", "the block table is not aligned to sectors", field="table_offset", value=layout.bat_offset)
    _inside("the block table lies past the end", "table_offset", layout.bat_offset, layout.entries * 4, length)


def _judge_end(tail: bytes, size: int, length: int) -> None:
    """Refuse an image without its footer: the last thing written, so the first to be missing."""
    if not tail.startswith(b"conectix") or not _sum_is(tail, 64):
        raise Failure("truncated", "there is no VHD footer at the end", field="footer", value=tail[:16].hex(" "), length=length)
    end_size, kind = struct.unpack_from(">Q4xI", tail, 48)
    if (end_size, kind) != (size, DYNAMIC):
        raise Failure("corrupt", "the VHD footer and its copy disagree", field="current_size", value=end_size, disk_type=kind)


def _judge_blocks(piece: bytes, index: int, virtual_size: int, layout: Layout, extents: Extents) -> None:
    """Claim the blocks that a piece of the BAT, beginning at entry `index`, names; neighbours as one run."""
    entries = array("I", piece)
    if sys.byteorder == "little":
        entries.byteswap()
    taken = layout.bitmap + layout.block
    stride = taken // SECTOR
    reach = max(0, -(-virtual_size // layout.block) - index)
    _judge_unused(entries[reach:], taken, extents.length)
    start = follows = blocks = 0
    at = (index - 1) * layout.block
    for entry in entries[:reach]:
        at += layout.block
        if blocks and entry == follows:
            follows += stride
            blocks += 1
            continue
        if blocks:
            extents.add(at - blocks * layout.block, start * SECTOR, blocks * taken, data=blocks * layout.block)
            blocks = 0
        if entry != UNALLOCATED:
            start, follows, blocks = entry, entry + stride, 1
    if blocks:
        # Bytes of the last block that lie past the disk's end are in the object, but no data.
        end = at + layout.block
        data = blocks * layout.block - max(0, end - virtual_size)
        extents.add(end - blocks * layout.block, start * SECTOR, blocks * taken, data=data)


def _judge_unused(entries: "array[int]", taken: int, length: int) -> None:
    """Refuse entries past the disk's end that name blocks past the object's: QEMU takes such an image for a cut one."""
    last = max((entry for entry in entries if entry != UNALLOCATED), default=None)
    if last is not None and last * SECTOR + taken > length:
        raise Failure(
            "truncated",
            "the image's tables point past its end",
            offset=last * SECTOR,
            needed_length=last * SECTOR + taken,
            length=length,
        )
