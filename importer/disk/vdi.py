"""VDI 1.1, the disks of VirtualBox: dynamic and static. Pure.

A header of one sector, a map of one number a block of 1 MiB, then the blocks. The limits are those of QEMU's
driver, or stricter. qemu-img 7.2 and VirtualBox write every allocated block whole; here the last block of the
disk need only reach as far as the disk does. Objects over 512 GiB whose blocks begin at multiples of no more
than 512 bytes cannot be judged in bounded memory and are refused as unsupported (see Extents).
"""

import math
import struct
from dataclasses import dataclass

from importer.disk.extents import Extents
from importer.disk.image import SECTOR, Format, Image, Limits
from importer.disk.reads import Reads, Span
from importer.disk.refusals import (
    corrupt,
    refuse_beyond,
    refuse_huge_table,
    refuse_idle_table,
    refuse_larger,
    unsafe,
    unsupported,
)
from importer.disk.tables import pieces, runs, words

SIGNATURE = b"\x7f\x10\xda\xbe"
VERSION = 0x00010001
BLOCK = 1 << 20
DYNAMIC, STATIC, UNDO, DIFFERENCING = 1, 2, 3, 4
ALLOCATED_BELOW = 0xFFFFFFFE
"""Larger entries mean "discarded" and "never allocated"; both read as zeroes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the walk needs of the header. Bytes."""

    map_offset: int
    data_offset: int


def examine(length: int, limits: Limits) -> Reads[Image]:
    """Judge the header; one read.

    Raises Failure: "unsafe", "unsupported", "corrupt", "truncated" or "too-large", with field and value.
    """
    refuse_beyond(SECTOR, length, "the VDI header")
    (head,) = yield (Span(0, SECTOR),)
    if head[0x40:0x44] != SIGNATURE:
        corrupt("there is no VDI header", "signature", head[0x40:0x44].hex(" "))
    kind = _refuse_kind(head)
    map_offset, data_offset, sector = struct.unpack_from("<II12xI", head, 0x154)
    disk, block, extra, blocks = struct.unpack_from("<QIII", head, 0x170)
    for field, value in (("offset_bmap", map_offset), ("offset_data", data_offset)):
        if value % SECTOR or value < SECTOR:
            corrupt("a table or the data begins in the header or between sectors", field, value)
    for field, value, only in (("sector_size", sector, SECTOR), ("block_size", block, BLOCK), ("block_extra", extra, 0)):
        if value != only:
            unsupported(f"a VDI whose {field} is not {only}", field, value)
    size = -(-disk // SECTOR) * SECTOR
    refuse_larger(size, limits, "disk_size")
    if size > blocks * BLOCK:
        corrupt("the block map does not cover the disk", "blocks_in_image", blocks)
    refuse_huge_table(blocks * 4, limits.table_bytes, "blocks_in_image")
    refuse_idle_table(blocks * 4, -(-size // BLOCK) * 4, "blocks_in_image")
    if data_offset < map_offset + blocks * 4:
        corrupt("the data overlaps the block map", "offset_data", data_offset)
    # The driver reads whole sectors of the map.
    refuse_beyond(map_offset + -(-blocks * 4 // SECTOR) * SECTOR, length, "the block map")
    return Image(
        format=Format.VDI,
        virtual_size=size,
        subformat="static" if kind == STATIC else "dynamic",
        compressed=False,
        notes={"block size": str(BLOCK)},
        layout=Layout(map_offset=map_offset, data_offset=data_offset),
    )


def _refuse_kind(head: bytes) -> int:
    """Refuse versions and kinds that are not read, and parents; return the kind."""
    version, _, kind = struct.unpack_from("<III", head, 0x44)
    if version != VERSION:
        unsupported("not a VDI of version 1.1", "version", f"{version >> 16}.{version & 0xFFFF}")
    if kind == DIFFERENCING:
        unsafe("the image holds only the differences to a parent", "image_type", kind)
    for field, at in (("uuid_link", 0x1A8), ("uuid_parent", 0x1B8)):
        if any(head[at : at + 16]):
            unsafe("the image names a parent", field, head[at : at + 16].hex())
    if kind not in (DYNAMIC, STATIC):
        unsupported("a VDI that is neither dynamic nor static", "image_type", kind)
    return int(kind)


def unit(image: Image) -> int:
    """Bytes that divide the places of all blocks."""
    assert isinstance(image.layout, Layout)
    return math.gcd(image.layout.data_offset, BLOCK)


def walk(image: Image, length: int, extents: Extents) -> Reads[None]:
    """Judge the map as far as the disk reaches.

    Raises Failure: "truncated", "bomb" for blocks that share bytes.
    """
    layout = image.layout
    assert isinstance(layout, Layout)
    for first, span in pieces(layout.map_offset, -(-image.virtual_size // BLOCK), 4):
        (data,) = yield (span,)
        base = layout.data_offset
        hosts = (base + entry * BLOCK if entry < ALLOCATED_BELOW else -1 for entry in words(data, "I", "little"))
        for index, host, count in runs(hosts, BLOCK):
            guest = (first + index) * BLOCK
            extents.add(guest, host, min(count * BLOCK, image.virtual_size - guest))
