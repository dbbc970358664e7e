"""VMDK images that lead outside themselves, contradict themselves or were cut."""

import struct

from hostile.hostile_file import HostileFile
from hostile.vmdk_builder import (
    AT_END,
    CHECKED,
    COMPRESSED,
    DATA,
    DIRECTORY,
    GRAIN,
    GRAIN_BYTES,
    MARKERS,
    REDUNDANT,
    SECTOR,
    TABLES,
    Vmdk,
    descriptor,
    footed,
    packed,
    packed_grain,
    plain,
)

PASSWD = 'RW 2048 FLAT "/etc/passwd" 0'
HINT = 'parentFileNameHint="/etc/passwd"\n'
OURS = 'RW 2048 SPARSE "disk.vmdk"'


def text(**fields: str) -> bytes:
    return plain(text=descriptor(**fields)).build()


def hint_at_0x200() -> bytes:
    """The header's descriptor is honest and lies elsewhere; the one that qemu reads names a parent."""
    image = plain(descriptor_offset=DATA + 4 * GRAIN, text=descriptor(more=HINT))
    return image.build() + descriptor().ljust(20 * SECTOR, b"\0")


def elsewhere() -> bytes:
    return plain(descriptor_offset=DATA + 4 * GRAIN).build() + descriptor().ljust(20 * SECTOR, b"\0")


def hint_behind_a_nul() -> bytes:
    return plain(text=descriptor() + b"\0\n" + HINT.encode()).build()


def shared_tables() -> bytes:
    """16 entries of the directory lead to one table: 128 MiB from 64 KiB."""
    image = plain(grains=4, capacity=16 * 512 * GRAIN, directory=[TABLES] * 16)
    return image.build()


def shared_grains() -> bytes:
    return plain(capacity=512 * GRAIN).build()[: TABLES * SECTOR] + _repeated(DATA) + b"d" * GRAIN_BYTES


def _repeated(sector: int) -> bytes:
    table = struct.pack("<512I", *[sector] * 512)
    return table.ljust((DATA - TABLES) * SECTOR, b"\0")


def overlapping_grains() -> bytes:
    return plain(2).build().replace(struct.pack("<2I", DATA, DATA + GRAIN), struct.pack("<2I", DATA, DATA + 1))


def shared_compressed_grains() -> bytes:
    image = packed(1, capacity=512 * GRAIN)
    image.table = [DATA] * 512
    return image.build()


def grain_in_the_table() -> bytes:
    image = plain()
    image.table[1] = TABLES
    return image.build()


def grain_in_the_header() -> bytes:
    image = plain()
    image.table[1] = 1
    return image.build()


def long_last_grain() -> bytes:
    image = packed(1)
    image.data = packed_grain(0, b"d" * GRAIN_BYTES, size=1 << 31)
    return image.build()


def cut_last_grain() -> bytes:
    image = packed(1)
    image.data = packed_grain(0, b"d" * GRAIN_BYTES, size=2000)
    return image.build()


FILES: tuple[HostileFile, ...] = (
    HostileFile(
        "vmdk-capacity-0-names-passwd",
        "unsafe",
        lambda: plain(capacity=0, text=descriptor(kind="monolithicFlat", extents=PASSWD)).build(),
    ),
    HostileFile("vmdk-capacity-0-without-descriptor", "unsafe", lambda: plain(capacity=0, descriptor_offset=0).build()),
    HostileFile("vmdk-two-extents", "unsafe", lambda: text(extents=OURS + "\n" + OURS)),
    HostileFile("vmdk-no-extent", "unsafe", lambda: text(extents="")),
    HostileFile("vmdk-flat-extent", "unsafe", lambda: text(extents=PASSWD)),
    HostileFile("vmdk-flat-extent-after-sparse", "unsafe", lambda: text(extents=OURS + "\n" + PASSWD)),
    HostileFile("vmdk-vmfs-extent", "unsafe", lambda: text(extents='RW 2048 VMFS "/etc/passwd"')),
    HostileFile("vmdk-zero-extent", "unsafe", lambda: text(extents="RW 2048 ZERO")),
    HostileFile("vmdk-noaccess-extent", "unsafe", lambda: text(extents='NOACCESS 2048 SPARSE "disk.vmdk"')),
    HostileFile("vmdk-parent-hint", "unsafe", lambda: text(more=HINT)),
    HostileFile("vmdk-parent-hint-in-capitals", "unsafe", lambda: text(more=HINT.upper())),
    HostileFile("vmdk-parent-hint-at-0x200", "unsafe", hint_at_0x200),
    HostileFile("vmdk-parent-hint-behind-a-nul", "unsafe", hint_behind_a_nul),
    HostileFile("vmdk-descriptor-elsewhere", "unsafe", elsewhere),
    HostileFile("vmdk-parent-cid", "unsafe", lambda: plain(text=descriptor().replace(b"=ffffffff", b"=22d72a1e")).build()),
    HostileFile("vmdk-second-parent-cid", "unsafe", lambda: text(more="parentCID=22d72a1e\n")),
    HostileFile("vmdk-no-parent-cid", "corrupt", lambda: plain(text=descriptor().replace(b"parentCID", b"parent")).build()),
    HostileFile("vmdk-part-of-a-split-disk", "unsupported", lambda: plain(descriptor_offset=0, descriptor_size=0).build()),
    HostileFile("vmdk-split-create-type", "unsupported", lambda: text(kind="twoGbMaxExtentSparse")),
    HostileFile("vmdk-huge-descriptor", "unsafe", lambda: plain(descriptor_size=1 << 40).build()),
    HostileFile("vmdk-grain-of-1", "unsafe", lambda: plain(grain=1).build()),
    HostileFile("vmdk-grain-of-a-gibibyte", "unsafe", lambda: plain(grain=1 << 21).build()),
    HostileFile("vmdk-grain-of-2-mib", "unsafe", lambda: packed(grain=4096, capacity=1 << 20).build()),
    HostileFile("vmdk-grain-of-32-mib", "unsafe", lambda: packed(grain=65536, capacity=1 << 20).build()),
    HostileFile("vmdk-grain-no-power-of-two", "unsafe", lambda: plain(grain=24).build()),
    HostileFile("vmdk-grain-that-overflows", "unsafe", lambda: plain(grain=1 << 55).build()),
    HostileFile("vmdk-tables-of-0", "unsafe", lambda: plain(table_entries=0).build()),
    HostileFile("vmdk-tables-of-4-gi", "unsafe", lambda: plain(table_entries=0xFFFFFFFF).build()),
    HostileFile("vmdk-8-exbibytes", "too-large", lambda: plain(capacity=(1 << 54) - 1).build()),
    HostileFile("vmdk-version-4", "unsupported", lambda: plain(version=4).build()),
    HostileFile("vmdk-unknown-compression", "unsupported", lambda: packed(compression=2).build()),
    HostileFile("vmdk-compression-without-flag", "corrupt", lambda: packed(flags=CHECKED | MARKERS).build()),
    HostileFile("vmdk-compression-without-markers", "unsupported", lambda: packed(flags=CHECKED | COMPRESSED).build()),
    HostileFile("vmdk-compressed-but-monolithic", "corrupt", lambda: packed(text=descriptor()).build()),
    HostileFile("vmdk-sent-as-text", "corrupt", lambda: plain(line_ends=b"\n \n\n").build()),
    HostileFile("vmdk-directory-in-the-header", "corrupt", lambda: plain(directory_offset=2).build()),
    HostileFile("vmdk-directory-at-0", "corrupt", lambda: plain(directory_offset=0).build()),
    HostileFile("vmdk-directory-past-the-end", "truncated", lambda: plain(directory_offset=1 << 40).build()),
    HostileFile(
        "vmdk-redundant-directory-past-the-end", "truncated", lambda: plain(flags=REDUNDANT, redundant_offset=1 << 40).build()
    ),
    HostileFile("vmdk-table-past-the-end", "truncated", lambda: plain(directory=[0xFFFFFFFF]).build()),
    HostileFile("vmdk-table-in-the-descriptor", "corrupt", lambda: plain(directory=[5]).build()),
    HostileFile("vmdk-table-in-the-directory", "bomb", lambda: plain(directory=[DIRECTORY]).build()),
    HostileFile("vmdk-shared-tables", "bomb", shared_tables),
    HostileFile("vmdk-shared-grains", "bomb", shared_grains),
    HostileFile("vmdk-overlapping-grains", "bomb", overlapping_grains),
    HostileFile("vmdk-shared-compressed-grains", "bomb", shared_compressed_grains),
    HostileFile("vmdk-grain-in-the-table", "bomb", grain_in_the_table),
    HostileFile("vmdk-grain-in-the-header", "corrupt", grain_in_the_header),
    HostileFile("vmdk-cut", "truncated", lambda: plain().build()[:-1]),
    HostileFile("vmdk-compressed-cut", "truncated", lambda: packed(64, bytes(range(256)) * 32).build()[:-SECTOR]),
    HostileFile("vmdk-compressed-grain-past-the-end", "truncated", cut_last_grain),
    HostileFile("vmdk-compressed-grain-of-2-gib", "corrupt", long_last_grain),
    HostileFile("vmdk-no-footer", "truncated", lambda: packed(directory_offset=AT_END).build()),
    HostileFile("vmdk-footer-cut", "truncated", lambda: footed(packed())[:-SECTOR]),
    HostileFile("vmdk-footer-cut-within-a-sector", "truncated", lambda: footed(packed())[:-1]),
    HostileFile("vmdk-footer-of-another-kind", "truncated", lambda: footed(packed(), footer_marker=2)),
    HostileFile("vmdk-footer-without-capacity", "unsafe", lambda: footed(packed(), capacity=0)),
    HostileFile("vmdk-footer-of-another-size", "unsafe", lambda: footed(packed(), capacity=4096)),
    HostileFile("vmdk-footer-not-compressed", "unsafe", lambda: footed(packed(), compression=0, flags=CHECKED)),
    HostileFile("vmdk-footer-of-another-grain", "unsafe", lambda: footed(packed(), grain=1 << 30)),
    HostileFile("vmdk-footer-that-tells-no-directory", "corrupt", lambda: footed(packed(), directory_offset=AT_END)),
    HostileFile("vmdk-header-alone", "truncated", lambda: Vmdk().build()[:SECTOR]),
)
