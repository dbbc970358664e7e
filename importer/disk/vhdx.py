"""VHDX, the disks of Hyper-V: dynamic and fixed, without a parent. Pure.

The limits are those of QEMU's driver, or stricter; the header and the tables that count are chosen as QEMU
chooses them. A log that was not played back is refused: QEMU would have to write to the image. Disks of
4096-byte sectors are refused because qemu-img 7.2 counts them in sectors of 512 and gives an eighth of them.

How an image may end was tried with qemu-img 7.2: a dynamic image ends with a whole block and has up to 4 MiB
after its tables that nothing uses; a fixed one ends where the disk ends, in the midst of its last block. So the
last block need only reach as far as the disk does.
"""

import itertools
import struct
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from importer.api.failure import Failure
from importer.disk.crc32c import guards
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

MIB = 1 << 20
HEADERS = (64 << 10, 128 << 10)
HEADER = 4096
REGIONS = 192 << 10
TABLE = 64 << 10
"""Bytes of the region table and of the metadata table."""
ITEMS_NEAR = 4096
"""Bytes read beyond the metadata table, in the hope that all its items are there."""
MOST_REGIONS = 2047
MOST_METADATA = 2047
CHUNK_SECTORS = 1 << 23
"""Sectors that one sector bitmap block describes."""
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, UNMAPPED_095, PRESENT, PARTIAL = 0, 1, 2, 3, 5, 6, 7
READ_AS_ZERO = frozenset({NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, UNMAPPED_095})

BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
DISK_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
PAGE_83 = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
LOGICAL_SECTOR = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556")
PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
ITEMS = {FILE_PARAMETERS: 8, DISK_SIZE: 8, LOGICAL_SECTOR: 4, PHYSICAL_SECTOR: 4, PAGE_83: 16}
"""Metadata that every image has, and its bytes."""

LOG_HINT = "attach it once to the hypervisor that wrote it, or run qemu-img check -r all on it, to play back its log"


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes start..start+size of the object."""

    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        """Byte after the last."""
        return self.start + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the walk needs of the headers."""

    bat_offset: int
    block: int
    """Bytes of a block."""
    ratio: int
    """Payload blocks between two entries of the BAT for sector bitmaps."""
    reserved: tuple[Region, ...]


def examine(length: int, limits: Limits) -> Reads[Image]:
    """Judge headers, region table and metadata; two reads of 324 KiB in all as a rule.

    Raises Failure: "unsafe", "unsupported", "corrupt", "truncated" or "too-large", with field and value.
    """
    refuse_beyond(REGIONS + TABLE, length, "the VHDX header section")
    (head,) = yield (Span(0, REGIONS + TABLE),)
    if head[:8] != b"vhdxfile":
        corrupt("there is no VHDX identifier", "signature", head[:8].hex(" "))
    log = _log(_current(*(head[at : at + HEADER] for at in HEADERS)))
    regions = _regions(head[REGIONS:], log)
    metadata, bat = regions[METADATA], regions[BAT]
    items = yield from _items(metadata, length)
    block, size, fixed = _geometry(items, limits)
    ratio = CHUNK_SECTORS * SECTOR // block
    _refuse_bat(bat, size, block, ratio, length, limits)
    return Image(
        format=Format.VHDX,
        virtual_size=size,
        subformat="fixed" if fixed else "dynamic",
        compressed=False,
        notes={"version": "1", "block size": str(block), "logical sector size": str(SECTOR)},
        layout=Layout(
            bat_offset=bat.start,
            block=block,
            ratio=ratio,
            reserved=(Region("header", 0, MIB), *((log,) if log.size else ()), metadata, bat),
        ),
    )


def _current(first: bytes, second: bytes) -> bytes:
    """Return the header that counts: the valid one with the larger sequence number."""
    valid = [header for header in (first, second) if header[:4] == b"head" and guards(header, 4) and header[66:68] == b"\1\0"]
    if not valid:
        corrupt("neither VHDX header is valid", "header", first[:8].hex(" "))
    if len(valid) == 2:
        numbers = [int.from_bytes(header[8:16], "little") for header in valid]
        if numbers[0] == numbers[1] and first[:80] != second[:80]:
            corrupt("two headers of one sequence number differ", "sequence_number", numbers[0])
        return valid[numbers.index(max(numbers))]
    return valid[0]


def _log(header: bytes) -> Region:
    """Refuse a log that would have to be played back; return where it lies."""
    guid = header[48:64]
    version, _, size, offset = struct.unpack_from("<HHIQ", header, 64)
    if version:
        unsupported("unknown version of the log", "log_version", version)
    if any(guid):
        unsupported("the image was not closed cleanly: its log must be played back", "log_guid", guid.hex(), hint=LOG_HINT)
    if offset % MIB or size % MIB or offset < MIB:
        corrupt("the log is not aligned or lies in the header", "log_offset", offset)
    return Region("log", offset, size)


def _regions(table: bytes, log: Region) -> dict[uuid.UUID, Region]:
    if table[:4] != b"regi" or not guards(table, 4):
        corrupt("the region table is damaged", "region_table", table[:8].hex(" "))
    (count,) = struct.unpack_from("<I", table, 8)
    if count > MOST_REGIONS:
        unsafe("absurd number of regions", "entry_count", count)
    known: dict[uuid.UUID, Region] = {}
    taken = [Region("header", 0, MIB), log]
    for at in range(16, 16 + 32 * count, 32):
        kind = uuid.UUID(bytes_le=table[at : at + 16])
        offset, size, flags = struct.unpack_from("<QII", table, at + 16)
        if kind not in (BAT, METADATA):
            if flags & 1:
                unsupported("the image needs an unknown region", "region", kind)
        elif kind in known:
            unsafe("two regions of one kind", "region", kind)
        name = {BAT: "BAT", METADATA: "metadata"}.get(kind, str(kind))
        region = known[kind] = Region(name, offset, size)
        if offset % MIB or size % MIB or not size:
            corrupt("a region is not aligned", f"{name}_offset", f"{offset}+{size}")
        taken.append(region)
    taken = sorted((region for region in taken if region.size), key=lambda region: region.start)
    for one, other in itertools.pairwise(taken):
        if one.end > other.start:
            unsafe("two regions overlap", "region", f"{one.name} {one.start}+{one.size}, {other.name} {other.start}+{other.size}")
    for kind, name in ((BAT, "BAT"), (METADATA, "metadata")):
        if kind not in known:
            corrupt("a region is missing", "region", name)
    return known


def _items(region: Region, length: int) -> Reads[dict[uuid.UUID, bytes]]:
    """Read the metadata that every image has: it nearly always lies right behind its table."""
    refuse_beyond(region.start + TABLE, length, "the metadata table")
    (data,) = yield (Span(region.start, min(region.start + TABLE + ITEMS_NEAR, length)),)
    places = _places(data[:TABLE], region)
    end = max(span.end for span in places.values())
    refuse_beyond(end, length, "the metadata")
    if end <= region.start + len(data):
        return {kind: data[span.start - region.start : span.end - region.start] for kind, span in places.items()}
    return dict(zip(places, (yield tuple(places.values())), strict=True))


def _places(table: bytes, region: Region) -> dict[uuid.UUID, Span]:
    """Return where the items lie that every image has; refuse unknown ones that it needs, and a parent's locator."""
    signature, count = struct.unpack_from("<8s2xH", table)
    if signature != b"metadata":
        corrupt("the metadata table is damaged", "metadata", signature.hex(" "))
    if count > MOST_METADATA:
        unsafe("absurd number of metadata entries", "entry_count", count)
    places: dict[uuid.UUID, Span] = {}
    for at in range(32, 32 + 32 * count, 32):
        kind = uuid.UUID(bytes_le=table[at : at + 16])
        offset, size, flags = struct.unpack_from("<III", table, at + 16)
        if kind == PARENT_LOCATOR:
            unsafe("the image names a parent", "parent_locator", f"{size} bytes")
        if kind not in ITEMS:
            if flags & 4:
                unsupported("the image needs unknown metadata", "metadata", kind)
            continue
        if kind in places:
            unsafe("two metadata entries of one kind", "metadata", kind)
        if offset < TABLE or offset + ITEMS[kind] > region.size or size < ITEMS[kind]:
            corrupt("metadata lies outside its region", "metadata", f"{kind} at {offset}, {size} bytes")
        places[kind] = Span(region.start + offset, region.start + offset + ITEMS[kind])
    for kind in ITEMS:
        if kind not in places:
            corrupt("metadata is missing", "metadata", kind)
    return places


def _geometry(items: dict[uuid.UUID, bytes], limits: Limits) -> tuple[int, int, bool]:
    """Return bytes of a block, bytes of the disk, and whether all blocks are allocated."""
    block, flags = struct.unpack("<II", items[FILE_PARAMETERS])
    if flags & 2:
        unsafe("the image holds only the differences to a parent", "has_parent", f"{flags:#x}")
    if not MIB <= block <= 256 * MIB or block & block - 1:
        unsafe("absurd block size", "block_size", block)
    sector = int.from_bytes(items[LOGICAL_SECTOR], "little")
    if sector != SECTOR:
        unsupported("the disk's sectors are not of 512 bytes", "logical_sector_size", sector)
    size = int.from_bytes(items[DISK_SIZE], "little")
    refuse_larger(size, limits, "virtual_disk_size")
    if not size or size % SECTOR:
        corrupt("the disk is empty or does not end with a sector", "virtual_disk_size", size)
    return block, size, bool(flags & 1)


def _entries(size: int, block: int, ratio: int) -> int:
    """Return how many entries of the BAT a disk of `size` bytes needs, those of sector bitmaps included."""
    blocks = -(-size // block)
    return blocks + (blocks - 1) // ratio if blocks else 0


def _refuse_bat(bat: Region, size: int, block: int, ratio: int, length: int, limits: Limits) -> None:
    refuse_huge_table(bat.size, limits.table_bytes, "BAT_length")
    needed = _entries(size, block, ratio) * 8
    refuse_idle_table(bat.size, needed, "BAT_length")
    if needed > bat.size:
        corrupt("the BAT does not cover the disk", "BAT_length", bat.size)
    # The driver reads all of the region, used or not.
    refuse_beyond(bat.end, length, "the BAT")


def unit(image: Image) -> int:
    """1 MiB: everything in a VHDX lies at a multiple of it."""
    return MIB


def walk(image: Image, length: int, extents: Extents) -> Reads[None]:
    """Judge the BAT as far as the disk reaches.

    Raises Failure: "truncated", "corrupt", "unsafe" for blocks that a parent completes, "bomb" for blocks that share bytes.
    """
    layout = image.layout
    assert isinstance(layout, Layout)
    for region in layout.reserved:
        if not extents.claim(region.start, min(region.size, max(0, length - region.start))):
            unsafe("two regions overlap", "region", region.name)
    block, chunk = layout.block, layout.ratio + 1
    for first, span in pieces(layout.bat_offset, _entries(image.virtual_size, block, layout.ratio), 8):
        (data,) = yield (span,)
        entries = words(data, "Q", "little")
        # Every chunk's last entry is for a sector bitmap, which only disks with a parent have.
        bitmaps = slice(layout.ratio - first % chunk, None, chunk)
        if any(entry & 7 for entry in entries[bitmaps]):
            unsafe("the image has a sector bitmap, which means a parent", "BAT_offset", layout.bat_offset)
        del entries[bitmaps]
        payload = first - first // chunk
        for index, host, count in runs(_hosts(entries), block):
            if host < MIB:
                raise Failure("corrupt", "a block lies in the header", offset=host)
            guest = (payload + index) * block
            extents.add(guest, host, min(count * block, image.virtual_size - guest))


def _hosts(entries: Iterable[int]) -> list[int]:
    """Return where the blocks lie, -1 for those without data."""
    hosts = []
    for entry in entries:
        state = entry & 7
        if state == PRESENT:
            hosts.append(entry >> 20 << 20)
        elif state in READ_AS_ZERO:
            hosts.append(-1)
        elif state == PARTIAL:
            unsafe("a block is completed by a parent", "BAT_entry", f"{entry:#x}")
        else:
            corrupt("unknown state of a block", "BAT_entry", f"{entry:#x}")
    return hosts
