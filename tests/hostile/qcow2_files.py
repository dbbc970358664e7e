"""qcow2 images that must be refused: every known way out of the image, and every way to defy the format."""

import struct
import zlib

from hostile.hostile_file import HostileFile
from hostile.qcow2_builder import COMPRESSED, COPIED, Qcow2, extension, packed

CLUSTER = 65536
DATA_FILE, BACKING_FORMAT, ENCRYPTION, BITMAPS = 0x44415441, 0xE2792ACA, 0x0537BE77, 0x23852875
END = struct.pack(">II", 0, 0)


def backed_by(name: str, *, version: int = 3, exts: bytes = b"") -> bytes:
    head = (104 if version == 3 else 72) + len(exts) + 8
    names = END + name.encode()
    return Qcow2(version=version, backing_offset=head, backing_size=len(name), extensions=exts, names=names).build()


def data_file(name: str, *, bit: bool) -> bytes:
    return Qcow2(incompatible=4 if bit else 0, extensions=extension(DATA_FILE, name.encode()) + END).build()


def shared_clusters() -> bytes:
    """384 KiB that write 512 MiB: all entries name one cluster."""
    image = Qcow2(size=512 << 20)
    image.l2 = [image.host(0) | COPIED] * 8192
    image.data = b"x" * CLUSTER
    return image.build()


def shared_tables() -> bytes:
    """Sixty-four L1 entries share one L2 table."""
    image = Qcow2(size=32 << 30, l1=[4 * CLUSTER | COPIED] * 64)
    image.l2 = [image.host(index) | COPIED for index in range(4)]
    image.data = b"x" * (4 * CLUSTER)
    return image.build()


def shared_compressed(step: int, count: int = 8192) -> bytes:
    """Compressed entries that name the same bytes, or bytes so close that they cannot all be clusters."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -12)
    body = squeeze.compress(bytes(CLUSTER)) + squeeze.flush()
    image = Qcow2(size=512 << 20)
    image.l2 = [packed(image.host(0) + step * index, 0) for index in range(count)]
    image.data = body.ljust(CLUSTER, b"\0")
    return image.build()


def one_entry(entry: int, *, data: int = CLUSTER, **fields: int) -> bytes:
    image = Qcow2(**fields)  # type: ignore[arg-type]
    image.l2 = [entry]
    image.data = b"x" * data
    return image.build()


def extended(entry: int, bitmap: int) -> bytes:
    image = Qcow2(incompatible=16)
    image.l2 = [entry, bitmap]
    image.data = b"x" * CLUSTER
    return image.build()


def lied(**fields: object) -> bytes:
    return Qcow2(**fields).build()  # type: ignore[arg-type]


HOST = 5 * CLUSTER | COPIED
QEMU_TREE = 'json:{"driver":"qcow2","file":{"driver":"file","filename":"/etc/shadow"}}'

FILES: tuple[HostileFile, ...] = (
    # -- ways out of the image
    HostileFile("qcow2-backing-absolute-path", "unsafe", lambda: backed_by("/etc/passwd")),
    HostileFile("qcow2-backing-v2", "unsafe", lambda: backed_by("/etc/passwd", version=2)),
    HostileFile("qcow2-backing-json", "unsafe", lambda: backed_by(QEMU_TREE)),
    HostileFile("qcow2-backing-nbd", "unsafe", lambda: backed_by("nbd://169.254.169.254:80/x")),
    HostileFile("qcow2-backing-http", "unsafe", lambda: backed_by("http://169.254.169.254/latest/meta-data/")),
    HostileFile("qcow2-backing-relative", "unsafe", lambda: backed_by("../../../../dev/sda")),
    HostileFile("qcow2-backing-fd", "unsafe", lambda: backed_by("fd:3")),
    HostileFile("qcow2-backing-with-raw-format", "unsafe", lambda: backed_by("/dev/sda", exts=extension(BACKING_FORMAT, b"raw"))),
    HostileFile("qcow2-backing-size-without-offset", "unsafe", lambda: lied(backing_size=11)),
    HostileFile("qcow2-backing-offset-without-size", "unsafe", lambda: lied(backing_offset=112)),
    HostileFile("qcow2-backing-offset-huge", "unsafe", lambda: lied(backing_offset=(1 << 64) - 1, backing_size=1023)),
    HostileFile("qcow2-backing-format-alone", "unsafe", lambda: lied(extensions=extension(BACKING_FORMAT, b"vmdk") + END)),
    HostileFile("qcow2-data-file", "unsafe", lambda: data_file("/etc/shadow", bit=True)),
    HostileFile("qcow2-data-file-json", "unsafe", lambda: data_file(QEMU_TREE, bit=True)),
    HostileFile("qcow2-data-file-name-without-bit", "unsafe", lambda: data_file("/etc/shadow", bit=False)),
    HostileFile("qcow2-data-file-bit-without-name", "unsafe", lambda: lied(incompatible=4)),
    HostileFile("qcow2-raw-data-file-autoclear", "unsafe", lambda: lied(autoclear=2)),
    HostileFile(
        "qcow2-data-file-behind-many-extensions",
        "unsafe",
        lambda: lied(extensions=extension(0x12345678, b"y") * 500 + extension(DATA_FILE, b"/etc/shadow") + END),
    ),
    HostileFile(
        "qcow2-data-file-behind-the-first-64k",
        "unsafe",
        lambda: lied(
            cluster_bits=21, extensions=extension(0x12345678, b"y" * 100_000) + extension(DATA_FILE, b"/etc/shadow") + END
        ),
    ),
    HostileFile(
        "qcow2-v2-with-data-file-extension", "unsafe", lambda: lied(version=2, extensions=extension(DATA_FILE, b"/etc/x") + END)
    ),
    HostileFile("qcow2-aes", "unsafe", lambda: lied(crypt=1)),
    HostileFile("qcow2-luks", "unsafe", lambda: lied(crypt=2, extensions=extension(ENCRYPTION, bytes(16)) + END)),
    HostileFile("qcow2-luks-header-alone", "unsafe", lambda: lied(extensions=extension(ENCRYPTION, bytes(16)) + END)),
    # -- features
    HostileFile("qcow2-corrupt-bit", "corrupt", lambda: lied(incompatible=2)),
    HostileFile("qcow2-unknown-feature", "unsupported", lambda: lied(incompatible=1 << 5)),
    HostileFile("qcow2-unknown-feature-63", "unsupported", lambda: lied(incompatible=1 << 63)),
    HostileFile("qcow2-version-1", "unsupported", lambda: lied(version=1)),
    HostileFile("qcow2-version-4", "unsupported", lambda: lied(version=4)),
    HostileFile("qcow2-compression-type-7", "unsupported", lambda: lied(incompatible=8, header_length=112, compression=b"\7")),
    HostileFile("qcow2-compression-bit-alone", "corrupt", lambda: lied(incompatible=8)),
    HostileFile("qcow2-compression-type-without-bit", "corrupt", lambda: lied(header_length=112, compression=b"\1")),
    HostileFile("qcow2-extended-l2-in-small-clusters", "unsafe", lambda: lied(incompatible=16, cluster_bits=12, size=1 << 20)),
    # -- absurd geometry
    HostileFile("qcow2-cluster-bits-0", "unsafe", lambda: lied(cluster_bits=0)),
    HostileFile("qcow2-cluster-bits-8", "unsafe", lambda: lied(cluster_bits=8)),
    HostileFile("qcow2-cluster-bits-22", "unsafe", lambda: lied(cluster_bits=22)),
    HostileFile("qcow2-cluster-bits-max", "unsafe", lambda: lied(cluster_bits=0xFFFFFFFF)),
    HostileFile("qcow2-header-length-8", "unsafe", lambda: lied(header_length=8)),
    HostileFile("qcow2-header-length-odd", "unsafe", lambda: lied(header_length=105)),
    HostileFile("qcow2-header-length-beyond-cluster", "unsafe", lambda: lied(header_length=1 << 20)),
    HostileFile("qcow2-refcount-order-7", "unsafe", lambda: lied(refcount_order=7)),
    HostileFile("qcow2-l1-absurd", "unsafe", lambda: lied(l1_entries=0xFFFFFFFF)),
    HostileFile("qcow2-l1-32-mib-and-one", "unsafe", lambda: lied(l1_entries=(4 << 20) + 1)),
    HostileFile("qcow2-l1-too-small", "corrupt", lambda: lied(size=1 << 39)),
    HostileFile("qcow2-l1-empty", "corrupt", lambda: lied(l1_entries=0)),
    HostileFile("qcow2-l1-unaligned", "corrupt", lambda: lied(l1_offset=3 * CLUSTER + 8)),
    HostileFile("qcow2-l1-in-the-header", "corrupt", lambda: lied(l1_offset=0)),
    HostileFile("qcow2-l1-past-the-end", "truncated", lambda: lied(l1_offset=1 << 40)),
    HostileFile("qcow2-l1-is-the-refcount-table", "corrupt", lambda: lied(l1_offset=CLUSTER)),
    HostileFile("qcow2-refcount-table-absurd", "unsafe", lambda: lied(refcount_clusters=0xFFFFFFFF)),
    HostileFile("qcow2-refcount-table-none", "corrupt", lambda: lied(refcount_clusters=0)),
    HostileFile("qcow2-refcount-table-unaligned", "corrupt", lambda: lied(refcount_offset=CLUSTER + 1)),
    HostileFile("qcow2-refcount-table-past-the-end", "truncated", lambda: lied(refcount_offset=1 << 50)),
    HostileFile("qcow2-snapshots-absurd", "unsafe", lambda: lied(snapshots=0xFFFFFFFF, snapshots_offset=CLUSTER)),
    HostileFile("qcow2-snapshots-past-the-end", "truncated", lambda: lied(snapshots=3, snapshots_offset=1 << 40)),
    HostileFile("qcow2-snapshots-unaligned", "corrupt", lambda: lied(snapshots=1, snapshots_offset=CLUSTER + 40)),
    HostileFile("qcow2-size-beyond-limit", "too-large", lambda: lied(size=(1 << 40) + 512)),
    HostileFile("qcow2-size-max", "too-large", lambda: lied(size=(1 << 64) - 1)),
    HostileFile("qcow2-extension-off-the-end", "unsafe", lambda: lied(extensions=extension(BITMAPS, b"", size=0xFFFFFFFF))),
    HostileFile("qcow2-extension-just-off-the-end", "unsafe", lambda: lied(extensions=extension(0x1, b"", size=CLUSTER - 111))),
    HostileFile("qcow2-header-cut", "truncated", lambda: lied()[:40]),
    HostileFile("qcow2-v3-header-cut", "truncated", lambda: lied()[:90]),
    HostileFile("qcow2-extensions-cut", "truncated", lambda: lied(extensions=extension(0x1, b"z" * 64))[:120]),
    # -- tables
    HostileFile("qcow2-bomb-shared-cluster", "bomb", shared_clusters),
    HostileFile("qcow2-bomb-shared-table", "bomb", shared_tables),
    HostileFile("qcow2-bomb-shared-compressed", "bomb", lambda: shared_compressed(0)),
    HostileFile("qcow2-bomb-compressed-one-byte-apart", "bomb", lambda: shared_compressed(1)),
    HostileFile("qcow2-l1-loops-to-itself", "corrupt", lambda: lied(l1=[3 * CLUSTER])),
    HostileFile("qcow2-l2-in-the-header", "corrupt", lambda: lied(l1=[512])),
    HostileFile("qcow2-l2-is-the-refcount-table", "corrupt", lambda: lied(l1=[CLUSTER])),
    HostileFile("qcow2-l2-unaligned", "corrupt", lambda: lied(l1=[4 * CLUSTER + 512])),
    HostileFile("qcow2-l2-past-the-end", "truncated", lambda: lied(l1=[1 << 50])),
    HostileFile("qcow2-data-in-the-tables", "bomb", lambda: one_entry(4 * CLUSTER)),
    HostileFile("qcow2-data-unaligned", "corrupt", lambda: one_entry(HOST + 512)),
    HostileFile("qcow2-data-past-the-end", "truncated", lambda: one_entry(1 << 50)),
    HostileFile("qcow2-data-cut", "truncated", lambda: one_entry(HOST, data=CLUSTER - 1)),
    HostileFile("qcow2-compressed-past-the-end", "truncated", lambda: one_entry(packed(1 << 40, 3))),
    HostileFile("qcow2-compressed-cut", "truncated", lambda: one_entry(packed(5 * CLUSTER, 3), data=1500)),
    HostileFile("qcow2-compressed-everything-set", "truncated", lambda: one_entry(COMPRESSED | (COMPRESSED - 1))),
    HostileFile("qcow2-zero-cluster-in-v2", "corrupt", lambda: one_entry(1, version=2)),
    HostileFile("qcow2-subcluster-zero-and-allocated", "corrupt", lambda: extended(HOST, 1 << 32 | 1)),
    HostileFile("qcow2-subcluster-allocated-nowhere", "corrupt", lambda: extended(0, 1)),
)
