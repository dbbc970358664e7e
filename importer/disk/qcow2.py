"""qcow2, versions 2 and 3: what the header may ask for. Pure.

The limits are those of QEMU's own driver, or stricter: what passes here opens in qemu-img without
reaching for anything outside the object. The mapping tables are judged in qcow2_tables.
"""

import struct
from dataclasses import dataclass
from typing import NoReturn

from importer.api.failure import Failure
from importer.disk.image import SECTOR, Format, Image, Limits
from importer.disk.qcow2_tables import Layout, walk
from importer.disk.reads import Reads, Span

__all__ = ["examine", "unit", "walk"]

HEAD = 65536
"""Bytes of the first read: with very few exceptions all header extensions are in it."""
HEADER_V2 = 72
HEADER_V3 = 104
MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21
MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_TABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
SNAPSHOT_ENTRY = 40
"""Fewest bytes of an entry in the snapshot table."""

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
RAW_DATA_FILE = 1 << 1
"""An autoclear bit: it only makes sense with a data file."""

END = 0
OUTWARD = {0xE2792ACA: "the format of a backing file", 0x44415441: "a data file", 0x0537BE77: "an encryption header"}
"""Header extensions that an image complete in itself never carries."""

FIELDS = (
    "backing_offset", "backing_size", "cluster_bits", "size", "crypt_method", "l1_entries", "l1_offset",
    "refcount_offset", "refcount_clusters", "snapshots", "snapshots_offset",
)  # fmt: skip
"""Of a header, in the order in which they follow the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fields of a header, as they stand; version 2 gets the values that it implies."""

    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_length: int = HEADER_V2
    compression: int = 0

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def extended(self) -> bool:
        """True if L2 entries are 16 bytes long and map subclusters."""
        return bool(self.incompatible & EXTENDED_L2)


def examine(length: int, limits: Limits) -> Reads[Image]:
    """Judge the header and its extensions; one read.

    Raises Failure: "unsafe", "unsupported", "corrupt", "truncated" or "too-large", with field and value.
    """
    (head,) = yield (Span(0, min(length, HEAD)),)
    header = _parse(head, length)
    _refuse_features(header)
    _refuse_references(header)
    extensions = _extensions(header, head)
    if extensions is None and len(head) < min(length, header.cluster):
        (rest,) = yield (Span(len(head), min(length, header.cluster)),)
        extensions = _extensions(header, head + rest)
    _refuse_extensions(extensions, length)
    _refuse_geometry(header, limits)
    _refuse_tables(header, length)
    return Image(
        format=Format.QCOW2,
        virtual_size=header.size // SECTOR * SECTOR,  # as in QEMU
        notes=_notes(header),
        layout=Layout(
            version=header.version,
            cluster=header.cluster,
            l1_offset=header.l1_offset,
            reserved=_reserved(header),
            extended=header.extended,
            zstd=header.compression == 1,
            table_bytes=limits.table_bytes,
        ),
    )


def unit(image: Image) -> int:
    """Bytes of a cluster."""
    assert isinstance(image.layout, Layout)
    return image.layout.cluster


def _parse(head: bytes, length: int) -> Header:
    if length < HEADER_V2:
        raise Failure("truncated", "the qcow2 header is cut", needed_length=HEADER_V2, length=length)
    version, *fields = struct.unpack_from(">IQIIQIIQQIIQ", head, 4)
    values: dict[str, int] = dict(zip(FIELDS, fields, strict=True))
    if head[:4] != b"QFI\xfb":
        raise Failure("corrupt", "there is no qcow2 header", first_bytes=head[:16].hex(" "))
    if version not in (2, 3):
        raise Failure("unsupported", "not a qcow2 image of version 2 or 3", field="version", value=version)
    if not MIN_CLUSTER_BITS <= values["cluster_bits"] <= MAX_CLUSTER_BITS:
        _unsafe("absurd cluster size", "cluster_bits", values["cluster_bits"])
    if version == 2:
        return Header(version=2, **values)
    if length < HEADER_V3:
        raise Failure("truncated", "the qcow2 header is cut", needed_length=HEADER_V3, length=length)
    incompatible, _, autoclear, order, header_length = struct.unpack_from(">QQQII", head, HEADER_V2)
    if header_length < HEADER_V3 or header_length % 8 or header_length > 1 << values["cluster_bits"]:
        _unsafe("absurd header length", "header_length", header_length)
    compression = head[HEADER_V3] if header_length > HEADER_V3 and len(head) > HEADER_V3 else 0
    return Header(
        version=3,
        **values,
        incompatible=incompatible,
        autoclear=autoclear,
        refcount_order=order,
        header_length=header_length,
        compression=compression,
    )


def _unsafe(cause: str, field: str, value: object) -> NoReturn:
    raise Failure("unsafe", f"qcow2: {cause}", field=field, value=value)


def _refuse_features(header: Header) -> None:
    bits = header.incompatible
    if bits & DATA_FILE:
        _unsafe("the data lies in another file", "incompatible_features", f"{bits:#x}")
    if header.autoclear & RAW_DATA_FILE:
        _unsafe("the data lies in another file", "autoclear_features", f"{header.autoclear:#x}")
    if bits & CORRUPT:
        raise Failure("corrupt", "the image is marked corrupt", field="incompatible_features", value=f"{bits:#x}")
    if bits & ~(DIRTY | COMPRESSION | EXTENDED_L2):
        raise Failure("unsupported", "the image needs an unknown feature", field="incompatible_features", value=f"{bits:#x}")
    if header.compression > 1:
        raise Failure("unsupported", "unknown compression type", field="compression_type", value=header.compression)
    if bool(bits & COMPRESSION) != bool(header.compression):
        raise Failure("corrupt", "feature bit and compression type disagree", field="compression_type", value=header.compression)
    if header.extended and header.cluster_bits < 14:
        _unsafe("clusters too small for extended L2 entries", "cluster_bits", header.cluster_bits)


def _refuse_references(header: Header) -> None:
    if header.backing_offset or header.backing_size:
        _unsafe("the image names a backing file", "backing_file_offset", f"{header.backing_offset:#x}+{header.backing_size}")
    if header.crypt_method:
        _unsafe("the image is encrypted", "crypt_method", header.crypt_method)


def _extensions(header: Header, head: bytes) -> list[int] | None:
    """Return the types of all extensions up to the last or the end of the first cluster, None if `head` is too short."""
    kinds: list[int] = []
    at, end = header.header_length, header.cluster
    while at + 8 <= end:
        if at + 8 > len(head):
            return None
        kind, size = struct.unpack_from(">II", head, at)
        if kind == END:
            break
        if size > end - at - 8:
            _unsafe("a header extension runs past the first cluster", "header_extension", f"{kind:#x} of {size} bytes")
        kinds.append(kind)
        at += 8 + (size + 7 & ~7)
    return kinds


def _refuse_extensions(kinds: list[int] | None, length: int) -> None:
    if kinds is None:
        raise Failure("truncated", "the header extensions are cut", length=length)
    for kind in kinds:
        if kind in OUTWARD:
            _unsafe(f"a header extension names {OUTWARD[kind]}", "header_extension", f"{kind:#x}")


def _refuse_geometry(header: Header, limits: Limits) -> None:
    if header.size > limits.max_size:
        raise Failure(
            "too-large", "the disk is larger than the limit", virtual_size=header.size, max_size=limits.max_size, field="size"
        )
    if header.refcount_order > 6:
        _unsafe("absurd refcount width", "refcount_order", header.refcount_order)
    if header.l1_entries * 8 > MAX_L1_BYTES:
        _unsafe("absurd L1 table", "l1_size", header.l1_entries)
    entry = 16 if header.extended else 8
    covered = header.l1_entries * (header.cluster // entry) * header.cluster
    if covered < header.size:
        raise Failure("corrupt", "the L1 table does not cover the disk", field="l1_size", value=header.l1_entries)
    if header.refcount_clusters * header.cluster > MAX_REFCOUNT_TABLE_BYTES:
        _unsafe("absurd refcount table", "refcount_table_clusters", header.refcount_clusters)
    if header.refcount_clusters == 0:
        raise Failure("corrupt", "the image has no refcount table", field="refcount_table_clusters", value=0)
    if header.snapshots > MAX_SNAPSHOTS:
        _unsafe("absurd number of snapshots", "nb_snapshots", header.snapshots)


def _refuse_tables(header: Header, length: int) -> None:
    """Refuse tables that are not aligned, lie in the header or past the end."""
    tables = [
        ("l1_table_offset", header.l1_offset, header.l1_entries * 8),
        ("refcount_table_offset", header.refcount_offset, header.refcount_clusters * header.cluster),
        ("snapshots_offset", header.snapshots_offset, header.snapshots * SNAPSHOT_ENTRY),
    ]
    for field, offset, size in tables:
        if not size:
            continue
        if offset % header.cluster:
            raise Failure("corrupt", "a table is not aligned to clusters", field=field, value=offset)
        if offset == 0:
            raise Failure("corrupt", "a table lies in the header", field=field, value=offset)
        if offset + size > length:
            raise Failure(
                "truncated", "a table lies past the end", field=field, value=offset, needed_length=offset + size, length=length
            )


def _reserved(header: Header) -> tuple[tuple[int, int], ...]:
    """Return offset and size of what no L2 table and no data may lie in: header, L1 and refcount table."""
    l1_bytes = header.l1_entries * 8
    spans = [(0, header.cluster), (header.refcount_offset, header.refcount_clusters * header.cluster)]
    return tuple(spans + [(header.l1_offset, l1_bytes)] * bool(l1_bytes))


def _notes(header: Header) -> dict[str, str]:
    notes = {
        "version": str(header.version),
        "cluster size": str(header.cluster),
        "compression type": "zstd" if header.compression else "zlib",
        "extended L2": "yes" if header.extended else "no",
        "snapshots": str(header.snapshots),
    }
    if header.incompatible & DIRTY:
        notes["dirty"] = "not closed cleanly; its refcounts are not used here"
    return notes
