"""VMDK: what the grain directory and the grain tables may claim. Pure.

How an image may end was tried with qemu-img 7.2 and qemu-io: plain grains are there in full, but only the part of
the last one that the disk reaches is asked for here. Compressed grains begin with a marker that tells their length;
the marker of the one that lies last is read, so that a cut is found wherever it falls: what lies before it was
there first. Images of more than 512 GiB are refused as unsupported (see Extents; grains lie at any sector).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from importer.api.failure import Failure
from importer.disk.extents import Extents
from importer.disk.image import SECTOR, Image
from importer.disk.reads import Reads, Span
from importer.disk.refusals import corrupt, refuse_beyond, refuse_huge_table
from importer.disk.tables import pieces, runs, words

TABLE_ENTRIES = 512
TABLE = TABLE_ENTRIES * 4
"""Bytes of a grain table."""
BATCH_SPANS = 32
BATCH_TABLES = (4 << 20) // TABLE
MARKER = 12
"""Bytes before the data of a compressed grain: its first sector on the disk (8), bytes of data (4)."""
DEFLATE_RATIO = 1032
"""Deflate never packs more bytes into one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the walk needs of header and footer. Bytes."""

    directory_offset: int
    directory_bytes: int
    grain: int
    reserved: int
    """Header and descriptor: where nothing else lies."""
    compressed: bool
    zero_grains: bool
    """True if the number 1 marks a grain of zeroes."""
    table_bytes: int

    @property
    def densest(self) -> int:
        """Fewest bytes that a compressed grain can take: grains begin with sectors."""
        return -(-(MARKER + self.grain // DEFLATE_RATIO + 1) // SECTOR) * SECTOR


def walk(image: Image, length: int, extents: Extents) -> Reads[None]:
    """Judge every entry that maps a part of the disk, in guest order; the redundant tables are never used.

    Raises Failure: "truncated", "corrupt", "bomb", or "unsafe" for more table bytes than the limit.
    """
    layout = image.layout
    assert isinstance(layout, Layout)
    extents.claim(0, layout.reserved)
    if not extents.claim(layout.directory_offset, layout.directory_bytes):
        corrupt("the grain directory lies in the header", "gdOffset", layout.directory_offset)
    read = last = 0
    for first, span in pieces(layout.directory_offset, layout.directory_bytes // 4, 4):
        (data,) = yield (span,)
        tables = [(first + index, entry * SECTOR) for index, entry in enumerate(words(data, "I", "little")) if entry]
        read += len(data) + len(tables) * TABLE
        refuse_huge_table(read, layout.table_bytes, "grain tables")
        for _, table in tables:
            _claim_table(table, layout, extents)
        last = max(last, (yield from _walk_tables(tables, image, layout, extents)))
    if last:
        yield from _refuse_cut(last, layout, length)


def _claim_table(table: int, layout: Layout, extents: Extents) -> None:
    if table < layout.reserved:
        raise Failure("corrupt", "a grain table lies in the header", offset=table)
    if not extents.claim(table, TABLE):
        raise Failure("bomb", "two entries of the grain directory share a grain table, or it lies in data", offset=table)


def _walk_tables(tables: list[tuple[int, int]], image: Image, layout: Layout, extents: Extents) -> Reads[int]:
    """Read grain tables, given as index and offset, in batches; return where the last compressed grain lies."""
    at = last = 0
    covers = TABLE_ENTRIES * layout.grain
    while at < len(tables):
        spans: list[Span] = []
        begun = at
        while at < len(tables) and at - begun < BATCH_TABLES:
            start = tables[at][1]
            if spans and spans[-1].end == start:
                spans[-1] = Span(spans[-1].start, start + TABLE)
            elif len(spans) == BATCH_SPANS:
                break
            else:
                spans.append(Span(start, start + TABLE))
            at += 1
        contents = yield tuple(spans)
        entries = words(b"".join(contents), "I", "little")
        for place, (index, _) in enumerate(tables[begun:at]):
            guest = index * covers
            reach = min(TABLE_ENTRIES, -(-(image.virtual_size - guest) // layout.grain))
            grains = entries[place * TABLE_ENTRIES : place * TABLE_ENTRIES + reach]
            if layout.compressed:
                last = max(last, _claim_compressed(grains, guest, layout, extents))
            else:
                _claim_plain(grains, guest, image.virtual_size, layout, extents)
    return last


def _claim_plain(grains: Sequence[int], guest: int, virtual_size: int, layout: Layout, extents: Extents) -> None:
    """Claim the grains of one table, which maps the disk from `guest` on."""
    absent = layout.zero_grains
    hosts = (grain * SECTOR if grain > absent else -1 for grain in grains)
    for index, host, count in runs(hosts, layout.grain):
        if host < layout.reserved:
            raise Failure("corrupt", "a grain lies in the header", offset=host)
        at = guest + index * layout.grain
        extents.add(at, host, min(count * layout.grain, virtual_size - at))


def _claim_compressed(grains: Sequence[int], guest: int, layout: Layout, extents: Extents) -> int:
    """Claim the compressed grains of one table, which maps the disk from `guest` on; return where the last lies, 0 for none."""
    absent, length, last = layout.zero_grains, extents.length, 0
    for index, grain in enumerate(grains):
        if grain <= absent:
            continue
        host = grain * SECTOR
        if host < layout.reserved:
            raise Failure("corrupt", "a grain lies in the header", offset=host)
        refuse_beyond(host + MARKER, length, "a grain")
        if not extents.claim(host, min(layout.densest, length - host)):
            raise Failure("bomb", "two places of the disk share the same compressed bytes of the image", offset=host)
        extents.add_compressed(
            guest + index * layout.grain, host, MARKER + 2 * layout.grain, holds=layout.grain, densest=layout.densest
        )
        last = max(last, host)
    return last


def _refuse_cut(host: int, layout: Layout, length: int) -> Reads[None]:
    """Refuse an image that ends within the compressed grain at `host`."""
    (marker,) = yield (Span(host, host + MARKER),)
    size = int.from_bytes(marker[8:MARKER], "little")
    if not 0 < size <= 2 * layout.grain - MARKER:
        raise Failure("corrupt", "a compressed grain has an absurd length", offset=host, size=size)
    refuse_beyond(host + MARKER + size, length, "the last compressed grain")
