"""What a disk image turned out to be: the values that detection and the format parsers return."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

GIB = 1 << 30
SECTOR = 512


class Format(StrEnum):
    """Disk formats read here. VHD is what qemu calls vpc."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    VHDX = "vhdx"
    VDI = "vdi"


class Wrapper(StrEnum):
    """Compression around a whole image; at most one."""

    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an image may ask for before it is refused."""

    max_size: int = 1 << 40
    """Bytes of virtual disk."""
    table_bytes: int = 512 << 20
    """Bytes of mapping tables read while judging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A disk image whose headers passed the quarantine."""

    format: Format
    virtual_size: int
    """Bytes of the guest's disk."""
    subformat: str = ""
    """Such as "fixed", "dynamic", "monolithicSparse", "streamOptimized"; empty where there is but one."""
    compressed: bool | None = None
    """True if clusters may be compressed, None if only the tables tell."""
    exact_length: bool = False
    """True if the reader seeks from the end (VHD, streamOptimized VMDK): the export must then be as long as the object."""
    raw_span: tuple[int, int] | None = None
    """Where the disk's bytes lie one to one in the object (raw, fixed VHD), else None."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Facts worth showing: version, cluster size, compression type."""
    layout: object = None
    """What the format's own `walk` needs of the headers."""
