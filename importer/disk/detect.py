"""What a file is, by its content and never by its name. Pure.

Recognition looks at an object once, and once more at what its single wrapper holds; the decoded guest
disk is never looked at (a guest could write any header there). A disk format is recognised by its magic.
Everything else is a raw disk, unless it is a known thing that is none: those are refused by name, because
importing an HTML page or a ZIP archive as a disk helps nobody.
"""

import struct
from typing import NoReturn

from importer.api.failure import Failure
from importer.disk.image import SECTOR, Format, Wrapper
from importer.disk.texts import text_label

RAW_HINT = "if these bytes really are the disk, import them as they are with --format raw"
ARCHIVE_HINT = "extract it into a directory with --content archive; if these bytes are the disk itself, say --format raw"

FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"MSCF\0\0\0\0", "a cabinet archive"),
    (b"MSWIM\0\0\0", "a Windows imaging (WIM) archive"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"\x02\x21\x4c\x18", "an LZ4 file"),
    (b"\x89LZO\0\r\n\x1a\n", "an LZO file"),
    (b"LZIP\x01", "an lzip file"),
    (b"070701", "a cpio archive"),
    (b"070702", "a cpio archive"),
    (b"!<arch>\n", "an ar archive or Debian package"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"%PDF-", "a PDF document"),
)
"""Magic at offset 0, and what the file is: no disk."""

UNREAD: tuple[tuple[bytes, str], ...] = (
    (b"QED\0", "a QED image"),
    (b"COWD", "an ESX sparse VMDK (COWD)"),
    (b"WithoutFreeSpace", "a Parallels image"),
    (b"WithouFreSpacExt", "a Parallels image"),
    (b"Bochs Virtual HD Image", "a Bochs image"),
    (b"EVF\x09\x0d\x0a\xff\0", "an EnCase image"),
    (b"\x3a\xff\x26\xed", "an Android sparse image"),
    (b"LUKS\xba\xbe", "an encrypted LUKS volume"),
)
"""Magic at offset 0, and which disk format it is that is not read here."""


def wrapper_of(head: bytes) -> Wrapper | None:
    """Return the compression that an object starting with `head` is wrapped in, None if it is bare.

    A skippable frame counts as zstd: pzstd and the seekable format begin with one.
    """
    if head.startswith(b"\x1f\x8b\x08"):
        return Wrapper.GZIP
    if head.startswith(b"\xfd7zXZ\0"):
        return Wrapper.XZ
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return Wrapper.ZSTD
    return None


def recognise(head: bytes, tail: bytes, length: int | None) -> Format:
    """Return the format of an object, or of what its wrapper holds, from its first and last bytes.

    `head` should be 64 KiB or the whole object, `tail` its last 512 bytes (empty if they cannot be had), `length`
    bytes (None if unknown). Raises Failure: "empty", "not-a-disk", or "unsupported" for disks that are not read here.
    The caller unwraps first: a wrapper found here is one too many.
    """
    if length == 0 or not head:
        raise Failure("empty", "the source holds no bytes")
    found = _disk_format(head)
    if found:
        return found
    if is_fixed_vhd_footer(tail, length):
        return Format.VHD
    for magic, label in UNREAD:
        if head.startswith(magic):
            _unread(label, head)
    if tail[-SECTOR:].startswith(b"koly\0\0\0\4\0\0\2\0"):
        _unread("an Apple disk image (DMG)", head)
    if foreign := _foreign(head, length):
        hint = ARCHIVE_HINT if is_tar(head) else None
        raise Failure("not-a-disk", f"this is {foreign}", hint=hint, what=foreign, first_bytes=head[:16].hex(" "))
    return Format.RAW


def is_fixed_vhd_footer(tail: bytes, length: int | None) -> bool:
    """True if the last 512 bytes of `tail` end an object of `length` bytes as a fixed VHD: the disk is all before them."""
    footer = tail[-SECTOR:]
    if length is None or len(footer) < SECTOR or not footer.startswith(b"conectix"):
        return False
    size, kind, checksum = struct.unpack_from(">Q4xII", footer, 48)
    valid = checksum == ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF
    return bool(valid and kind == 2 and size == length - SECTOR)


def _disk_format(head: bytes) -> Format | None:
    if head.startswith(b"QFI\xfb"):
        version = int.from_bytes(head[4:8], "big")
        if version not in (2, 3):
            raise Failure("unsupported", f"this is a qcow image of version {version}", field="version", value=version)
        return Format.QCOW2
    if head.startswith(b"KDMV"):
        return Format.VMDK
    if head.startswith(b"vhdxfile"):
        return Format.VHDX
    if head.startswith(b"conectix"):
        return Format.VHD
    if head[0x40:0x44] == b"\x7f\x10\xda\xbe":
        return Format.VDI
    return None


def _unread(label: str, head: bytes) -> NoReturn:
    hint = RAW_HINT if head.startswith(b"LUKS") else None
    raise Failure("unsupported", f"this is {label}", hint=hint, what=label, first_bytes=head[:16].hex(" "))


def _foreign(head: bytes, length: int | None) -> str | None:
    if wrapper_of(head):
        return "a wrapper in a wrapper"
    for magic, label in FOREIGN:
        if head.startswith(magic):
            return label
    # The longer magics: "BZh9" or three bytes of LZMA alone could begin a boot sector.
    if head[:3] == b"BZh" and head[4:10] in (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90"):
        return "a bzip2 file"
    if head[:3] == b"\x5d\0\0" and head[5:13] == b"\xff" * 8:
        return "an LZMA file"
    if is_tar(head):
        return "a tar archive"
    return text_label(head, length)


def is_tar(head: bytes) -> bool:
    """True if what starts with `head`, of 512 bytes at least, is a tar."""
    return head[257:262] == b"ustar" or _is_tar_header(head[:SECTOR])


def _is_tar_header(block: bytes) -> bool:
    """True if a block's sum stands where tar writes it: finds the archives older than the word ustar."""
    stated = block[148:156].strip(b" \0")
    if len(block) < SECTOR or not stated or not all(0x30 <= digit <= 0x37 for digit in stated):
        return False
    return int(stated, 8) == sum(block) - sum(block[148:156]) + 8 * 0x20
