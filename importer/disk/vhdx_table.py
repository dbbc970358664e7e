"""VHDX: what the block table (BAT) may claim. Pure.

An entry is 64 bits: a state, and where in the object the block lies in MiB. After every `ratio` blocks stands the
entry of a sector bitmap, which only differencing disks have.

How an image may end was tried with qemu-img 7.2 (create and convert, fixed and dynamic; blocks of 1 to 256 MiB; odd
sizes; qemu-io writes): blocks are always there in full. What lies past the disk's end in its last block is never
read, so it may be missing; anything shorter was cut.
"""

import sys
from array import array
from dataclasses import dataclass

from importer.api.failure import Failure
from importer.disk.extents import Extents
from importer.disk.image import Image
from importer.disk.reads import Reads, Span

MIB = 1 << 20
STATE = 7
RESERVED = MIB - 1 & ~STATE
EMPTY_STATES = (0, 1, 2, 3, 5)
"""Not present, undefined, zero, unmapped (as of version 1.0 and of 0.95): all read as zeroes."""
PRESENT, PARTIAL = 6, 7
PIECE = 1 << 20
BATCH = 4 * PIECE


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the walk needs of the headers. Bytes, unless said otherwise."""

    reserved: tuple[tuple[int, int], ...]
    """Offset and size of what no block may lie in: headers, log, all regions."""
    bat_offset: int
    block: int
    ratio: int
    """Blocks between two entries of sector bitmaps."""
    blocks: int
    """Blocks of the disk; the last may end past it."""

    @property
    def entries(self) -> int:
        """Entries of the BAT up to the last block's."""
        return self.blocks + (self.blocks - 1) // self.ratio


def walk(image: Image, length: int, extents: Extents) -> Reads[None]:
    """Judge every block of the disk in guest order.

    Raises Failure: "truncated", "corrupt", "bomb", or "unsafe" for blocks that need a parent.
    """
    layout = image.layout
    assert isinstance(layout, Layout)
    for offset, size in layout.reserved:
        if not extents.claim(offset, size):
            raise Failure("corrupt", "two regions of the image overlap", offset=offset)
    bat = layout.entries * 8
    for start in range(0, bat, BATCH):
        cuts = range(start, min(bat, start + BATCH), PIECE)
        pieces = yield tuple(Span(layout.bat_offset + at, layout.bat_offset + min(bat, at + PIECE)) for at in cuts)
        for at, piece in zip(cuts, pieces, strict=True):
            if piece.count(0) != len(piece):
                _judge_piece(piece, at // 8, image.virtual_size, layout, extents)


def _judge_piece(piece: bytes, index: int, virtual_size: int, layout: Layout, extents: Extents) -> None:
    """Judge entries beginning at entry `index` of the BAT: runs of blocks and the bitmaps between them."""
    entries = array("Q", piece)
    if sys.byteorder == "big":
        entries.byteswap()
    at = 0
    while at < len(entries):
        chunk, within = divmod(index + at, layout.ratio + 1)
        if within == layout.ratio:
            if entries[at] & STATE:
                raise Failure("unsafe", "VHDX: a sector bitmap needs a parent", field="bat_entry", value=f"{entries[at]:#x}")
            at += 1
            continue
        blocks = entries[at : at + layout.ratio - within]
        _judge_blocks(blocks, (chunk * layout.ratio + within) * layout.block, virtual_size, layout, extents)
        at += len(blocks)


def _judge_blocks(blocks: "array[int]", guest: int, virtual_size: int, layout: Layout, extents: Extents) -> None:
    """Claim the blocks from `guest` on; neighbours in the object as one run."""
    start = size = follows = 0
    for entry in blocks:
        if size and entry == follows:
            follows += layout.block
            size += layout.block
            continue
        if size:
            extents.add(start, size)
            size = 0
        if entry and (start := _host(entry)):
            size, follows = layout.block, entry + layout.block
    if size:
        beyond = guest + len(blocks) * layout.block - virtual_size
        extents.add(start, size - max(0, beyond))


def _host(entry: int) -> int:
    """Return where a block lies, 0 if it reads as zeroes."""
    state = entry & STATE
    if state in EMPTY_STATES:
        return 0
    if state == PARTIAL:
        raise Failure("unsafe", "VHDX: a block lies partially in a parent", field="bat_entry", value=f"{entry:#x}")
    if state != PRESENT or entry & RESERVED or entry < MIB:
        raise Failure("corrupt", "a block's state or place makes no sense", field="bat_entry", value=f"{entry:#x}")
    return entry - PRESENT
