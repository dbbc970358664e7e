"""Builds small VHDX images byte by byte, so that each field can lie."""

import struct
import uuid
from dataclasses import dataclass

from importer.disk import vhdx
from importer.disk.crc32c import crc32c

MIB = 1 << 20
LOG, METADATA, BAT, DATA = MIB, 2 * MIB, 3 * MIB, 4 * MIB
PRESENT, PARTIAL = 6, 7


def summed(data: bytes, wrong: int = 0) -> bytes:
    """Return `data` with its checksum, wrong by `wrong`."""
    data = data[:4] + bytes(4) + data[8:]
    return data[:4] + struct.pack("<I", (crc32c(data) + wrong) & 0xFFFFFFFF) + data[8:]


def guid(name: str | uuid.UUID) -> bytes:
    """Return a GUID's bytes as they stand in the image."""
    return (name if isinstance(name, uuid.UUID) else uuid.UUID(name)).bytes_le


def header(sequence: int, *, log_guid: bytes = bytes(16), log: tuple[int, int] = (LOG, MIB), version: int = 1) -> bytes:
    """Return a header of 4096 bytes, its checksum not yet made."""
    fields = struct.pack("<4sIQ32s16sHHIQ", b"head", 0, sequence, b"g" * 32, log_guid, 0, version, log[1], log[0])
    return fields.ljust(4096, b"\0")


@dataclass
class Vhdx:
    """An honest dynamic image of 1 MiB blocks, two of them in use, unless a field says otherwise."""

    size: int = 8 * MIB
    block: int = MIB
    flags: int = 0
    sector: int = 512
    log_guid: bytes = bytes(16)
    log: tuple[int, int] = (LOG, MIB)
    sequences: tuple[int, int] = (1, 2)
    version: int = 1
    wrong: tuple[int, int] = (0, 0)
    """How wrong the checksums of the two headers are."""
    wrong_regions: int = 0
    bat_region: tuple[int, int] = (BAT, MIB)
    metadata_region: tuple[int, int] = (METADATA, MIB)
    regions: tuple[tuple[str | uuid.UUID, int, int, int], ...] = ()
    """More regions: GUID, offset, size, flags."""
    region_count: int | None = None
    items: tuple[tuple[str | uuid.UUID, int, int, int], ...] = ()
    """More metadata items: GUID, offset, size, flags."""
    without: uuid.UUID | None = None
    """A metadata item to leave out."""
    item_offset: int = 65536
    item_count: int | None = None
    bat: tuple[int, ...] = (DATA | PRESENT, (DATA + MIB) | PRESENT)
    data: int = 2 * MIB

    def build(self) -> bytes:
        """Return the whole image."""
        out = bytearray(DATA) + b"d" * self.data
        out[:8] = b"vhdxfile"
        for at, sequence, wrong in zip(vhdx.HEADERS, self.sequences, self.wrong, strict=True):
            plain = header(sequence, log_guid=self.log_guid, log=self.log, version=self.version)
            out[at : at + 4096] = summed(plain, wrong)
        table = summed(self._regions(), self.wrong_regions)
        for at in (vhdx.REGIONS, vhdx.REGIONS + 65536):
            out[at : at + 65536] = table
        metadata = self._metadata()
        out[METADATA : METADATA + len(metadata)] = metadata
        out[BAT : BAT + 8 * len(self.bat)] = struct.pack(f"<{len(self.bat)}Q", *self.bat)
        return bytes(out)

    def _regions(self) -> bytes:
        rows = ((vhdx.BAT, *self.bat_region, 1), (vhdx.METADATA, *self.metadata_region, 1), *self.regions)
        count = len(rows) if self.region_count is None else self.region_count
        body = b"".join(guid(name) + struct.pack("<QII", offset, size, flags) for name, offset, size, flags in rows)
        return (struct.pack("<4sIII", b"regi", 0, count, 0) + body).ljust(65536, b"\0")

    def _metadata(self) -> bytes:
        values = (
            (vhdx.FILE_PARAMETERS, struct.pack("<II", self.block, self.flags)),
            (vhdx.DISK_SIZE, struct.pack("<Q", self.size)),
            (vhdx.PAGE_83, b"p" * 16),
            (vhdx.LOGICAL_SECTOR, struct.pack("<I", self.sector)),
            (vhdx.PHYSICAL_SECTOR, struct.pack("<I", 4096)),
        )
        rows, body = b"", b""
        kept = [(name, value) for name, value in values if name != self.without]
        for name, value in kept:
            rows += guid(name) + struct.pack("<IIII", self.item_offset + len(body), len(value), 6, 0)
            body += value
        for name, offset, size, flags in self.items:
            rows += guid(name) + struct.pack("<IIII", offset, size, flags, 0)
        count = len(kept) + len(self.items) if self.item_count is None else self.item_count
        return (struct.pack("<8sHH20x", b"metadata", 0, count) + rows).ljust(65536, b"\0") + body
