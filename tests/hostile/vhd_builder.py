"""Builds small VHD images byte by byte, so that each field can lie."""

import struct
from dataclasses import dataclass, field

BLOCK = 2 << 20
TAKEN = 512 + BLOCK
"""Bytes of a block with its bitmap."""
FREE = 0xFFFFFFFF


def summed(data: bytes, at: int, wrong: int = 0) -> bytes:
    """Return `data` with its checksum at `at`, wrong by `wrong`."""
    data = data[:at] + bytes(4) + data[at + 4 :]
    return data[:at] + struct.pack(">I", (~sum(data) + wrong) & 0xFFFFFFFF) + data[at + 4 :]


@dataclass
class Vhd:
    """An honest dynamic image unless a field says otherwise: footer, header, table, `blocks` blocks, footer."""

    size: int = 8 << 20
    kind: int = 3
    data_offset: int = 512
    block: int = BLOCK
    entries: int = 4
    table_offset: int = 1536
    version: int = 0x10000
    magic: bytes = b"cxsparse"
    parent_id: bytes = bytes(16)
    parent_name: bytes = b""
    locators: bytes = b""
    bat: list[int] | None = None
    blocks: int = 2
    wrong_footer: int = 0
    wrong_header: int = 0
    end: bytes | None = None
    extra: bytes = field(default=b"", repr=False)
    """Bytes between the blocks and the footer."""

    @staticmethod
    def sector(index: int) -> int:
        """Sector of block `index` of the file."""
        return 4 + index * TAKEN // 512

    def footer(self) -> bytes:
        """Return the footer with its checksum."""
        fields = struct.pack(">8sIIQI4sI4sQQIII", b"conectix", 2, 0x10000, self.data_offset, 0, b"win ", 0, b"Wi2k",
                             self.size, self.size, 0, self.kind, 0)  # fmt: skip
        return summed(fields.ljust(512, b"\0"), 64, self.wrong_footer)

    def build(self) -> bytes:
        """Return the whole image."""
        fields = struct.pack(">8sQQIII", self.magic, (1 << 64) - 1, self.table_offset, self.version, self.entries, self.block)
        fields = fields.ljust(40, b"\0") + self.parent_id.ljust(24, b"\0") + self.parent_name.ljust(512, b"\0") + self.locators
        header = summed(fields.ljust(1024, b"\0"), 36, self.wrong_header)
        bat = [self.sector(index) for index in range(self.blocks)] if self.bat is None else self.bat
        table = struct.pack(f">{len(bat)}I", *bat).ljust(512, b"\xff")
        data = (b"\xff" * 512 + b"d" * BLOCK) * self.blocks
        return self.footer() + header + table + data + self.extra + (self.footer() if self.end is None else self.end)
