"""What lies on a device is recognised by its first bytes."""

import pytest

from importer.disk import signatures


@pytest.mark.parametrize(
    ("offset", "magic", "name"),
    [
        (0, b"XFSB", "XFS"), (512, b"LABELONE", "LVM"), (0, b"LUKS\xba\xbe", "LUKS"), (1080, b"\x53\xef", "ext"),
        (65600, b"_BHRfS_M", "btrfs"), (4086, b"SWAPSPACE2", "swap"), (32769, b"CD001", "ISO"), (510, b"\x55\xaa", "boot sector"),
        (512, b"EFI PART", "GPT"), (4096, b"\xfc\x4e\x2b\xa9", "RAID"), (126976, b"\x0c\xb1\xba\x00\x00\x00\x00\x00", "ZFS"),
    ],
)  # fmt: skip
def test_what_people_keep_is_recognised(offset: int, magic: bytes, name: str) -> None:
    head = bytearray(signatures.REACH)
    head[offset : offset + len(magic)] = magic
    assert name in signatures.found(bytes(head))


@pytest.mark.parametrize("head", [b"", bytes(512), bytes(signatures.REACH), b"\xff" * signatures.REACH])
def test_nothing_is_nothing(head: bytes) -> None:
    assert signatures.found(head) == ""
