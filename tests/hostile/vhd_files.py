"""VHD images that must be refused: parents, and tables that defy the format."""

import struct

from hostile.hostile_file import HostileFile
from hostile.vhd_builder import Vhd, summed

PARENT = "\\\\169.254.169.254\\share\\parent.vhd"


def locator() -> bytes:
    """An entry that places a path of the host's, in Windows' words."""
    return struct.pack(">4sII4xQ", b"W2ku", 512, 64, 2048)


def fixed_in_front() -> bytes:
    """A fixed disk's footer in front, which QEMU takes for a dynamic disk's, and none for this length at the end."""
    return Vhd(kind=2).build()


def signed_by_another() -> bytes:
    """The footer at the end tells of another disk than its copy."""
    return Vhd(end=Vhd(size=4 << 20).footer()).build()


def lied(**fields: object) -> bytes:
    return Vhd(**fields).build()  # type: ignore[arg-type]


def huge_with_wrong_sum() -> bytes:
    return Vhd(size=1 << 39, entries=1 << 18, wrong_footer=1).build()


FILES: tuple[HostileFile, ...] = (
    # -- ways out of the image
    HostileFile("vhd-differencing", "unsafe", lambda: lied(kind=4, parent_name=PARENT.encode("utf-16-be"))),
    HostileFile("vhd-differencing-without-name", "unsafe", lambda: lied(kind=4)),
    HostileFile("vhd-parent-id", "unsafe", lambda: lied(parent_id=b"p" * 16)),
    HostileFile("vhd-parent-name", "unsafe", lambda: lied(parent_name=PARENT.encode("utf-16-be"))),
    HostileFile("vhd-parent-locator", "unsafe", lambda: lied(locators=locator())),
    # -- absurd or contradicting headers
    HostileFile("vhd-block-size-zero", "unsafe", lambda: lied(block=0)),
    HostileFile("vhd-block-size-of-a-sector", "unsafe", lambda: lied(block=512, entries=1 << 14)),
    HostileFile("vhd-block-size-2gib", "unsafe", lambda: lied(block=1 << 31)),
    HostileFile("vhd-block-size-odd", "unsafe", lambda: lied(block=3 << 20)),
    HostileFile("vhd-table-of-16gib", "unsafe", lambda: lied(entries=0xFFFFFFFF)),
    HostileFile("vhd-table-of-32mib-for-8mib", "unsafe", lambda: lied(entries=8 << 20)),
    HostileFile("vhd-size-absurd", "too-large", lambda: lied(size=(1 << 64) - 512, entries=0xFFFFFFFF)),
    HostileFile("vhd-size-2tib", "too-large", lambda: lied(size=2 << 40, entries=1 << 20)),
    HostileFile("vhd-size-not-sectors", "corrupt", lambda: lied(size=(8 << 20) - 1)),
    HostileFile("vhd-table-too-small", "corrupt", lambda: lied(size=1 << 30)),
    HostileFile("vhd-huge-with-wrong-checksum", "corrupt", huge_with_wrong_sum),
    HostileFile("vhd-header-checksum", "corrupt", lambda: lied(wrong_header=1)),
    HostileFile("vhd-header-magic", "corrupt", lambda: lied(magic=b"conectix")),
    HostileFile("vhd-header-version", "unsupported", lambda: lied(version=0x20000)),
    HostileFile("vhd-unknown-disk-type", "unsupported", lambda: lied(kind=6)),
    HostileFile("vhd-fixed-footer-in-front", "corrupt", fixed_in_front),
    HostileFile("vhd-footers-disagree", "corrupt", signed_by_another),
    HostileFile("vhd-no-footer-at-the-end", "truncated", lambda: lied(end=b"")),
    HostileFile("vhd-wrong-footer-at-the-end", "truncated", lambda: lied(end=summed(Vhd().footer(), 64, 1))),
    # -- places
    HostileFile("vhd-header-in-the-footer", "corrupt", lambda: lied(data_offset=0)),
    HostileFile("vhd-header-far-away", "truncated", lambda: lied(data_offset=1 << 63)),
    HostileFile("vhd-table-in-the-header", "corrupt", lambda: lied(table_offset=1024)),
    HostileFile("vhd-table-unaligned", "corrupt", lambda: lied(table_offset=1537)),
    HostileFile("vhd-table-past-the-end", "truncated", lambda: lied(table_offset=(1 << 64) - 512)),
    HostileFile("vhd-block-past-the-end", "truncated", lambda: lied(bat=[4, 0x7FFFFFFF])),
    HostileFile("vhd-block-cut", "truncated", lambda: lied(bat=[4, Vhd.sector(1) + 2])),
    HostileFile("vhd-unused-entry-past-the-end", "truncated", lambda: lied(entries=5, bat=[4, *[0xFFFFFFFF] * 3, 0x7FFFFFFF])),
    HostileFile("vhd-shared-block", "bomb", lambda: lied(bat=[4, 4])),
    HostileFile("vhd-overlapping-blocks", "bomb", lambda: lied(bat=[4, 5])),
    HostileFile("vhd-many-shared-blocks", "bomb", lambda: lied(size=256 << 20, entries=128, bat=[4] * 128)),
    HostileFile("vhd-block-in-the-header", "bomb", lambda: lied(bat=[1])),
    HostileFile("vhd-block-over-the-footer", "bomb", lambda: lied(bat=[4, Vhd.sector(1) + 1])),
)
