"""Builds small VDI images byte by byte, so that each field can lie."""

import struct
from dataclasses import dataclass, field

SECTOR = 512
BLOCK = 1 << 20
MAP, DATA = 512, 1024
"""Where they lie unless a field says otherwise."""
FREE, ZERO = 0xFFFFFFFF, 0xFFFFFFFE


@dataclass
class Vdi:
    """An honest dynamic image of 4 MiB, unless a field says otherwise: header, map, blocks."""

    signature: int = 0xBEDA107F
    version: int = 0x00010001
    kind: int = 1
    map_offset: int = MAP
    data_offset: int = DATA
    sector: int = SECTOR
    size: int = 4 * BLOCK
    block: int = BLOCK
    extra: int = 0
    blocks: int | None = None
    link: bytes = bytes(16)
    parent: bytes = bytes(16)
    entries: list[int] = field(default_factory=lambda: [1, FREE, ZERO, 0])
    data: bytes = b"d" * (2 * BLOCK)

    def build(self) -> bytes:
        """Return the image."""
        blocks = len(self.entries) if self.blocks is None else self.blocks
        head = struct.pack("<64sIIIII256s", b"<<< a test >>>\n", self.signature, self.version, 0x180, self.kind, 0, b"")
        head += struct.pack("<II12xII", self.map_offset, self.data_offset, self.sector, 0)
        head += struct.pack("<QIIII", self.size, self.block, self.extra, blocks, 0)
        head += bytes(range(32)) + self.link + self.parent
        table = struct.pack(f"<{len(self.entries)}I", *self.entries)
        return head.ljust(MAP, b"\0") + table.ljust(DATA - MAP, b"\0") + self.data
