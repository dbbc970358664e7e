"""VHDX images that must be refused: parents, logs to replay, and tables that defy the format."""

from hostile.hostile_file import HostileFile
from hostile.vhdx_builder import BAT, DATA, METADATA, MIB, PARTIAL, PRESENT, Vhdx

from importer.disk import vhdx

UNKNOWN = "11111111-2222-3333-4444-555555555555"
BLOCK = DATA | PRESENT


def lied(**fields: object) -> bytes:
    return Vhdx(**fields).build()  # type: ignore[arg-type]


def bitmap() -> bytes:
    """With blocks of 256 MiB the seventeenth entry is that of a sector bitmap."""
    return lied(size=20 << 28, block=256 * MIB, bat=(*(0,) * 16, BLOCK))


def two_headers_of_a_number() -> bytes:
    """Both headers are valid and say the same number, but name different logs."""
    one, other = lied(sequences=(2, 2)), lied(sequences=(2, 2), log=(DATA, MIB))
    return one[: vhdx.HEADERS[1]] + other[vhdx.HEADERS[1] :]


FILES: tuple[HostileFile, ...] = (
    # -- ways out of the image
    HostileFile("vhdx-has-parent", "unsafe", lambda: lied(flags=2)),
    HostileFile("vhdx-parent-locator", "unsafe", lambda: lied(items=((vhdx.PARENT_LOCATOR, 70_000, 64, 4),))),
    HostileFile("vhdx-parent-and-locator", "unsafe", lambda: lied(flags=2, items=((vhdx.PARENT_LOCATOR, 70_000, 64, 4),))),
    HostileFile("vhdx-partial-block", "unsafe", lambda: lied(bat=(DATA | PARTIAL,))),
    HostileFile("vhdx-sector-bitmap", "unsafe", bitmap),
    # -- what only a writer may open, or what is not known
    HostileFile("vhdx-dirty-log", "unsupported", lambda: lied(log_guid=b"l" * 16)),
    HostileFile("vhdx-unknown-region", "unsupported", lambda: lied(regions=((UNKNOWN, DATA, MIB, 1),))),
    HostileFile("vhdx-unknown-item", "unsupported", lambda: lied(items=((UNKNOWN, 70_000, 8, 4),))),
    HostileFile("vhdx-version", "corrupt", lambda: lied(version=2)),
    HostileFile("vhdx-4096-byte-sectors", "unsupported", lambda: lied(sector=4096)),
    # -- absurd or contradicting headers
    HostileFile("vhdx-block-size-zero", "unsafe", lambda: lied(block=0)),
    HostileFile("vhdx-block-size-small", "unsafe", lambda: lied(block=65536)),
    HostileFile("vhdx-block-size-512mib", "unsafe", lambda: lied(block=512 * MIB)),
    HostileFile("vhdx-block-size-odd", "unsafe", lambda: lied(block=3 * MIB)),
    HostileFile("vhdx-sector-size-zero", "unsupported", lambda: lied(sector=0)),
    HostileFile("vhdx-region-count", "unsafe", lambda: lied(region_count=0xFFFFFFFF)),
    HostileFile("vhdx-item-count", "unsafe", lambda: lied(item_count=0xFFFF)),
    HostileFile("vhdx-size-absurd", "too-large", lambda: lied(size=(1 << 64) - 512)),
    HostileFile("vhdx-size-64tib", "too-large", lambda: lied(size=64 << 40)),
    HostileFile("vhdx-size-zero", "corrupt", lambda: lied(size=0)),
    HostileFile("vhdx-size-not-sectors", "corrupt", lambda: lied(size=8 * MIB - 1)),
    HostileFile("vhdx-table-too-small", "corrupt", lambda: lied(size=512 << 30)),
    HostileFile("vhdx-huge-with-wrong-checksums", "corrupt", lambda: lied(size=1 << 62, wrong=(1, 1))),
    HostileFile("vhdx-region-checksum", "corrupt", lambda: lied(wrong_regions=1)),
    HostileFile("vhdx-two-headers-of-a-number", "corrupt", two_headers_of_a_number),
    HostileFile("vhdx-no-disk-size", "corrupt", lambda: lied(without=vhdx.DISK_SIZE)),
    HostileFile("vhdx-item-twice", "unsafe", lambda: lied(items=((vhdx.DISK_SIZE, 65_600, 8, 4),))),
    HostileFile("vhdx-items-past-their-region", "corrupt", lambda: lied(item_offset=0xFFFFFF00)),
    HostileFile("vhdx-items-in-their-table", "corrupt", lambda: lied(item_offset=0)),
    # -- places
    HostileFile("vhdx-regions-overlap", "unsafe", lambda: lied(bat_region=(METADATA, MIB))),
    HostileFile("vhdx-region-in-the-headers", "unsafe", lambda: lied(bat_region=(0, MIB))),
    HostileFile("vhdx-region-in-the-log", "unsafe", lambda: lied(bat_region=(MIB, MIB))),
    HostileFile("vhdx-optional-region-overlaps", "unsafe", lambda: lied(regions=((UNKNOWN, BAT, MIB, 0),))),
    HostileFile("vhdx-region-unaligned", "corrupt", lambda: lied(bat_region=(BAT + 512, MIB))),
    HostileFile("vhdx-region-empty", "corrupt", lambda: lied(bat_region=(BAT, 0))),
    HostileFile("vhdx-region-twice", "unsafe", lambda: lied(regions=((vhdx.BAT, DATA, MIB, 1),))),
    HostileFile("vhdx-region-past-the-end", "truncated", lambda: lied(bat_region=(1 << 62, MIB))),
    HostileFile("vhdx-region-of-4gib", "unsafe", lambda: lied(bat_region=(BAT, 0xFFF00000))),
    HostileFile("vhdx-region-of-32mib-for-8mib", "unsafe", lambda: lied(bat_region=(BAT, 32 * MIB))),
    HostileFile("vhdx-log-past-the-end", "truncated", lambda: lied(log=(1 << 40, MIB))),
    HostileFile("vhdx-log-in-the-headers", "corrupt", lambda: lied(log=(0, MIB))),
    HostileFile("vhdx-block-past-the-end", "truncated", lambda: lied(bat=(BLOCK, 1 << 50 | PRESENT))),
    HostileFile("vhdx-block-at-the-largest-offset", "truncated", lambda: lied(bat=(0xFFFFFFFFFFF00000 | PRESENT,))),
    HostileFile("vhdx-block-in-the-headers", "corrupt", lambda: lied(bat=(PRESENT,))),
    HostileFile("vhdx-block-of-unknown-state", "corrupt", lambda: lied(bat=(DATA | 4,))),
    HostileFile("vhdx-shared-block", "bomb", lambda: lied(bat=(BLOCK, BLOCK))),
    HostileFile("vhdx-many-shared-blocks", "bomb", lambda: lied(size=4 << 30, bat=(BLOCK,) * 4096)),
    HostileFile("vhdx-block-in-the-metadata", "bomb", lambda: lied(bat=(METADATA | PRESENT,))),
)
