"""Builds small qcow2 images byte by byte, so that each field can lie."""

import struct
from dataclasses import dataclass, field

COPIED = 1 << 63
COMPRESSED = 1 << 62


@dataclass
class Qcow2:
    """An honest image of 64 KiB clusters with one L2 table, unless a field says otherwise.

    Clusters of the file: 0 header, 1 refcount table, 2 refcount block, 3 L1, 4 L2, 5 and up data.
    """

    version: int = 3
    cluster_bits: int = 16
    size: int = 8 << 20
    backing_offset: int = 0
    backing_size: int = 0
    crypt: int = 0
    l1_entries: int | None = None
    l1_offset: int | None = None
    refcount_offset: int | None = None
    refcount_clusters: int = 1
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_length: int = 104
    compression: bytes = b""
    extensions: bytes = b""
    names: bytes = b""
    """What follows the extensions: names of other files."""
    l1: list[int] | None = None
    l2: list[int] = field(default_factory=list)
    data: bytes = b""

    @property
    def cluster(self) -> int:
        return 1 << min(self.cluster_bits, 21)

    def host(self, index: int) -> int:
        """Return the offset of data cluster `index`."""
        return (5 + index) * self.cluster

    def header(self) -> bytes:
        cluster = self.cluster
        fixed = struct.pack(
            ">4sIQIIQIIQQIIQ",
            b"QFI\xfb",
            self.version,
            self.backing_offset,
            self.backing_size,
            self.cluster_bits,
            self.size,
            self.crypt,
            len(self.l1 or [0]) if self.l1_entries is None else self.l1_entries,
            3 * cluster if self.l1_offset is None else self.l1_offset,
            cluster if self.refcount_offset is None else self.refcount_offset,
            self.refcount_clusters,
            self.snapshots,
            self.snapshots_offset,
        )
        if self.version == 2:
            return fixed
        return (
            fixed
            + struct.pack(">QQQII", self.incompatible, 0, self.autoclear, self.refcount_order, self.header_length)
            + self.compression.ljust(max(0, min(self.header_length, 4096) - 104), b"\0")
        )

    def build(self) -> bytes:
        """Return the image."""
        cluster = self.cluster
        l1 = [4 * cluster | COPIED] if self.l1 is None else self.l1
        blocks = struct.pack(">Q", 2 * cluster), struct.pack(">H", 1) * 16
        l2 = struct.pack(f">{len(self.l2)}Q", *self.l2)
        first = self.header() + self.extensions + self.names
        parts = [first, *blocks, struct.pack(f">{len(l1)}Q", *l1), l2]
        return b"".join(part.ljust(cluster, b"\0") for part in parts) + self.data


def extension(kind: int, content: bytes, *, size: int | None = None) -> bytes:
    """Return one header extension, padded; `size` lies about its length."""
    return struct.pack(">II", kind, len(content) if size is None else size) + content + b"\0" * (-len(content) % 8)


def packed(host: int, sectors: int, cluster_bits: int = 16) -> int:
    """Return the L2 entry of a compressed cluster at `host` over `sectors` further sectors."""
    return COMPRESSED | sectors << (62 - (cluster_bits - 8)) | host
