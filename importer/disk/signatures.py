"""What lies on a device already, told by its first bytes. Pure.

A short list of what people keep: it protects from a wrong device name, and is no inventory of all formats there are.
"""

REACH = 128 << 10
"""So many bytes from the beginning tell all that is known here."""

_MAGIC: tuple[tuple[str, int, bytes], ...] = (
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("an LVM volume", 512, b"LABELONE"),
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("an ext file system", 1080, b"\x53\xef"),
    ("an XFS file system", 0, b"XFSB"),
    ("a btrfs file system", 65536 + 64, b"_BHRfS_M"),
    ("a bcachefs or bcache device", 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    ("an F2FS file system", 1024, b"\x10\x20\xf5\xf2"),
    ("an NTFS file system", 3, b"NTFS    "),
    ("an exFAT file system", 3, b"EXFAT   "),
    ("a squashfs file system", 0, b"hsqs"),
    ("an ISO 9660 file system", 32769, b"CD001"),
    ("a RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    ("a RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("a qcow2 image", 0, b"QFI\xfb"),
    ("a boot sector or partition table", 510, b"\x55\xaa"),
)
_ZFS = ((0x00BAB10C).to_bytes(8, "little"), (0x00BAB10C).to_bytes(8, "big"))


def found(head: bytes) -> str:
    """Return what the first REACH bytes of a device belong to, "" if they show nothing that is known here."""
    for name, offset, magic in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    return "a ZFS pool" if any(magic in head for magic in _ZFS) else ""
