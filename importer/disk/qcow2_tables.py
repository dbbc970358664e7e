"""qcow2: what the L1 and L2 tables may claim. Pure.

How an image may end was tried with qemu-img 7.2 (convert, create with every preallocation, resize, qemu-io
writes, discards, snapshots; odd sizes; clusters of 512 bytes to 2 MiB). Plain clusters and L2 tables are always
there in full. Two things are not: with extended L2 entries nothing after the last allocated subcluster need be
there, and the last compressed cluster may end within its last sector. So a plain cluster must be there in full
(as far as the disk reaches), an extended one up to its last allocated subcluster, a compressed one up to the
first byte of its last sector; anything shorter was cut.
"""

import sys
from array import array
from dataclasses import dataclass

from importer.api.failure import Failure
from importer.disk.extents import Extents
from importer.disk.image import Image
from importer.disk.reads import Reads, Span

OFFSET = 0x00FFFFFFFFFFFE00
COMPRESSED = 1 << 62
ZERO = 1
L1_PIECE = 1 << 20
BATCH_SPANS = 32
BATCH_BYTES = 4 << 20
DEFLATE_RATIO = 1032
"""Deflate never packs more bytes into one."""
ZSTD_BLOCK = 128 << 10
SECTOR = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the walk needs of a qcow2 header. Bytes."""

    version: int
    cluster: int
    l1_offset: int
    reserved: tuple[tuple[int, int], ...]
    """Offset and size of header, refcount table and L1 table."""
    extended: bool
    zstd: bool
    table_bytes: int

    @property
    def entries(self) -> int:
        """Entries of an L2 table."""
        return self.cluster // (16 if self.extended else 8)

    @property
    def densest(self) -> int:
        """Fewest bytes a compressed cluster can take: for zstd a frame header and an RLE block for each 128 KiB."""
        return 6 + 4 * -(-self.cluster // ZSTD_BLOCK) if self.zstd else self.cluster // DEFLATE_RATIO + 1


def walk(image: Image, length: int, extents: Extents) -> Reads[None]:
    """Judge every entry that maps a part of the disk, in guest order; tables of snapshots are never read.

    Raises Failure: "truncated", "corrupt", "bomb", or "unsafe" for more table bytes than the limit.
    """
    layout = image.layout
    assert isinstance(layout, Layout)
    for offset, size in layout.reserved:
        if not extents.claim(offset, size):
            raise Failure("corrupt", "two tables of the image overlap", offset=offset)
    covers = layout.entries * layout.cluster
    needed = -(-image.virtual_size // covers)
    read = 0
    for first in range(0, needed, L1_PIECE // 8):
        last = min(needed, first + L1_PIECE // 8)
        (piece,) = yield (Span(layout.l1_offset + first * 8, layout.l1_offset + last * 8),)
        tables = [(first + index, entry & OFFSET) for index, entry in enumerate(_entries(piece)) if entry & OFFSET]
        read += len(piece) + len(tables) * layout.cluster
        if read > layout.table_bytes:
            raise Failure(
                "unsafe", "the mapping tables are larger than the limit", field="l1_size", value=read, limit=layout.table_bytes
            )
        for _, table in tables:
            _claim_table(table, layout, extents)
        yield from _walk_tables(tables, image, layout, extents)
    extents.refuse_mixed_units()


def _claim_table(table: int, layout: Layout, extents: Extents) -> None:
    if table % layout.cluster:
        raise Failure("corrupt", "an L2 table is not aligned to clusters", offset=table)
    if not extents.claim(table, layout.cluster):
        if any(table < offset + size and offset < table + layout.cluster for offset, size in layout.reserved):
            raise Failure("corrupt", "an L2 table lies in the header or in another table", offset=table)
        raise Failure("bomb", "two entries of the L1 table share an L2 table, or it lies in data", offset=table)


def _walk_tables(tables: list[tuple[int, int]], image: Image, layout: Layout, extents: Extents) -> Reads[None]:
    """Read L2 tables, given as L1 index and offset, in batches; neighbours in the object as one span."""
    judge = _judge_extended if layout.extended else _judge_standard
    batch = max(1, BATCH_BYTES // layout.cluster)
    at = 0
    while at < len(tables):
        spans: list[Span] = []
        begun = at
        while at < len(tables) and at - begun < batch:
            start = tables[at][1]
            if spans and spans[-1].end == start:
                spans[-1] = Span(spans[-1].start, start + layout.cluster)
            elif len(spans) == BATCH_SPANS:
                break
            else:
                spans.append(Span(start, start + layout.cluster))
            at += 1
        contents = yield tuple(spans)
        tables_read = (
            _entries(data[cut : cut + layout.cluster]) for data in contents for cut in range(0, len(data), layout.cluster)
        )
        for (index, _), entries in zip(tables[begun:at], tables_read, strict=True):
            judge(entries, index * layout.entries * layout.cluster, image.virtual_size, layout, extents)


def _entries(data: bytes) -> "array[int]":
    entries = array("Q", data)
    if sys.byteorder == "little":
        entries.byteswap()
    return entries


def _judge_standard(entries: "array[int]", guest: int, virtual_size: int, layout: Layout, extents: Extents) -> None:
    """Claim what one table maps. The loop is the cost of a large image: runs take one comparison a cluster."""
    cluster = layout.cluster
    reach = -(-(virtual_size - guest) // cluster)
    if reach < len(entries):
        entries = entries[:reach]
    packed: list[tuple[int, int]] = []
    start = follows = 0  # the current run's first host byte, and the entry that would continue it; 0: no run
    size = 0
    at = guest - cluster
    for entry in entries:
        at += cluster
        if entry == follows:
            if entry:
                follows += cluster
                size += cluster
            continue
        if follows:
            extents.add(at - size, start, size)
            follows = size = 0
        if not entry:
            continue
        if entry & COMPRESSED:
            packed.append((at, entry))
            continue
        start = _plain_host(entry, layout)
        if start:
            _claim_compressed(packed, layout, extents)  # guest order is what tells how a window would fare
            follows, size = entry + cluster, cluster
    if follows:
        # The disk may end within its last cluster; what lies after that need not be there.
        end = guest + len(entries) * cluster
        extents.add(end - size, start, size - max(0, end - virtual_size))
    _claim_compressed(packed, layout, extents)
    _judge_compressed(entries, layout)


def _plain_host(entry: int, layout: Layout) -> int:
    """Return where a plain entry's data lies, 0 if it has none: not allocated, or known to be zero."""
    host = entry & OFFSET
    if host % layout.cluster:
        raise Failure("corrupt", "a cluster is not aligned", offset=host)
    if entry & ZERO and not layout.extended:
        if layout.version < 3:
            raise Failure("corrupt", "a zero cluster in a version 2 image", entry=f"{entry:#x}")
        return 0
    return host


def _fields(layout: Layout) -> tuple[int, int, int]:
    """Return the shift of a compressed entry's sector count, the mask of its offset and that of its count."""
    shift = 62 - (layout.cluster.bit_length() - 1 - 8)
    return shift, (1 << shift) - 1, (1 << 62 - shift) - 1


def _judge_compressed(entries: "array[int]", layout: Layout) -> None:
    """Refuse a table in which two compressed clusters begin at the same byte."""
    mask = _fields(layout)[1]
    offsets = [entry & mask for entry in entries if entry & COMPRESSED]
    if len(set(offsets)) != len(offsets):
        raise Failure("bomb", "two places of the disk share the same compressed bytes of the image", table_begins_at=offsets[0])


def _claim_compressed(packed: list[tuple[int, int]], layout: Layout, extents: Extents) -> None:
    """Claim the compressed entries gathered so far, each with its place on the disk, and forget them."""
    if not packed:
        return
    shift, mask, sectors = _fields(layout)
    cluster, densest, length, add = layout.cluster, layout.densest, extents.length, extents.add_compressed
    for guest, entry in packed:
        host = entry & mask
        size = ((entry >> shift & sectors) + 1) * SECTOR - (host & SECTOR - 1)
        if host + size >= length + SECTOR:
            raise Failure(
                "truncated",
                "the image's tables point past its end",
                offset=host,
                needed_length=host + size - SECTOR + 1,
                length=length,
            )
        add(guest, host, size, holds=cluster, densest=densest)
    packed.clear()


def _judge_extended(entries: "array[int]", guest: int, virtual_size: int, layout: Layout, extents: Extents) -> None:
    """Claim what one table of 16-byte entries maps: an entry, then 32 bits of zero and 32 of allocated subclusters."""
    cluster = layout.cluster
    sub = cluster // 32
    packed: list[tuple[int, int]] = []
    for entry, bitmap in zip(entries[::2], entries[1::2], strict=True):
        reach = min(cluster, virtual_size - guest)
        guest += cluster
        if reach <= 0:
            break
        if entry & COMPRESSED:
            packed.append((guest - cluster, entry))
            continue
        host, allocated, zero = _plain_host(entry, layout), bitmap & 0xFFFFFFFF, bitmap >> 32
        if allocated & zero or (allocated and not host):
            raise Failure(
                "corrupt", "a subcluster is zero and allocated, or allocated nowhere", entry=f"{entry:#x}", bitmap=f"{bitmap:#x}"
            )
        if allocated:
            _claim_compressed(packed, layout, extents)
            covered, counted = (min(reach, count * sub) for count in (allocated.bit_length(), allocated.bit_count()))
            extents.add(guest - cluster, host, covered, data=counted)
    _claim_compressed(packed, layout, extents)
    _judge_compressed(entries[::2], layout)
