"""Builds small sparse VMDK images byte by byte, so that each field can lie."""

import struct
import zlib
from dataclasses import dataclass, field, replace

SECTOR = 512
GRAIN = 16
"""Sectors of a grain here: 8 KiB."""
GRAIN_BYTES = GRAIN * SECTOR
AT_END = (1 << 64) - 1
CHECKED, REDUNDANT, ZERO_GRAINS, COMPRESSED, MARKERS = 1, 2, 4, 1 << 16, 1 << 17
DIRECTORY, TABLES, DATA = 21, 22, 64
"""Sectors where they lie unless a field says otherwise."""

TEXT = """# Disk DescriptorFile
version=1
CID=22d72a1e
parentCID=ffffffff
createType="{kind}"

# Extent description
{extents}

# The Disk Data Base
#DDB

ddb.adapterType = "ide"
"""


def descriptor(kind: str = "monolithicSparse", extents: str = 'RW 2048 SPARSE "disk.vmdk"', more: str = "") -> bytes:
    """Return the text of a descriptor; `more` lines follow its createType."""
    return (TEXT.format(kind=kind, extents=extents) + more).encode("latin-1")


@dataclass
class Vmdk:
    """An honest image of 1 MiB with one grain table, unless a field says otherwise. Offsets in sectors.

    Sectors of the file: 0 header, 1-20 descriptor, 21 grain directory, 22-25 a grain table, 64 and up grains.
    """

    magic: bytes = b"KDMV"
    version: int = 1
    flags: int = CHECKED
    capacity: int = 2048
    grain: int = GRAIN
    descriptor_offset: int = 1
    descriptor_size: int = 20
    table_entries: int = 512
    redundant_offset: int = 0
    directory_offset: int = DIRECTORY
    overhead: int = DATA
    unclean: int = 0
    line_ends: bytes = b"\n \r\n"
    compression: int = 0
    text: bytes = field(default_factory=descriptor)
    directory: list[int] = field(default_factory=lambda: [TABLES])
    table: list[int] = field(default_factory=list)
    data: bytes = b""
    """What begins at sector 64."""

    def header(self) -> bytes:
        """Return the first sector."""
        return struct.pack(
            "<4sIIQQQQIQQQB4sH433x",
            self.magic, self.version, self.flags, self.capacity, self.grain, self.descriptor_offset, self.descriptor_size,
            self.table_entries, self.redundant_offset, self.directory_offset, self.overhead, self.unclean, self.line_ends,
            self.compression,
        )  # fmt: skip

    def build(self) -> bytes:
        """Return the image."""
        image = bytearray(DATA * SECTOR)
        directory = struct.pack(f"<{len(self.directory)}I", *self.directory)
        table = struct.pack(f"<{len(self.table)}I", *self.table)
        for sector, content in ((0, self.header()), (1, self.text), (DIRECTORY, directory), (TABLES, table)):
            image[sector * SECTOR : sector * SECTOR + len(content)] = content
        return bytes(image) + self.data


def plain(grains: int = 4, **fields: object) -> Vmdk:
    """Return an image of `grains` plain grains of data."""
    table = [DATA + GRAIN * index for index in range(grains)]
    return Vmdk(table=table, data=b"d" * (grains * GRAIN_BYTES), **fields)  # type: ignore[arg-type]


def packed_grain(guest: int, content: bytes, *, size: int | None = None) -> bytes:
    """Return a compressed grain with its marker, whole sectors; `size` lies about its length."""
    data = zlib.compress(content)
    marked = struct.pack("<QI", guest, len(data) if size is None else size) + data
    return marked + bytes(-len(marked) % SECTOR)


def packed(grains: int = 4, content: bytes = b"d" * GRAIN_BYTES, **fields: object) -> Vmdk:
    """Return a streamOptimized image of `grains` grains, all of the same content, without a footer."""
    pieces = [packed_grain(GRAIN * index, content) for index in range(grains)]
    table, at = [], DATA
    for piece in pieces:
        table.append(at)
        at += len(piece) // SECTOR
    text = descriptor("streamOptimized", 'RDONLY 2048 SPARSE "call-me-stream.vmdk"')
    given: dict[str, object] = {"version": 3, "flags": CHECKED | COMPRESSED | MARKERS, "compression": 1, "text": text}
    return Vmdk(table=table, data=b"".join(pieces), **(given | fields))  # type: ignore[arg-type]


def footed(image: Vmdk, **lies: object) -> bytes:
    """Return the image with its grain directory told by a footer, whose fields may lie; a marker may be replaced."""
    kind = lies.pop("footer_marker", 3)
    ending = lies.pop("end_marker", bytes(SECTOR))
    footer = replace(image, **lies).header()  # type: ignore[arg-type]
    marker = struct.pack("<QII496x", 1, 0, kind)
    assert isinstance(ending, bytes)
    return replace(image, directory_offset=AT_END).build() + marker + footer + ending
