"""What a file is, by its content."""

import gzip
import lzma
import random
import struct

import pytest
from hostile import foreign_files
from hostile.hostile_file import HostileFile
from hostile.qcow2_builder import Qcow2
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk.detect import is_fixed_vhd_footer, recognise, wrapper_of
from importer.disk.examine import examine
from importer.disk.image import Format, Limits, Wrapper
from importer.disk.reads import over

BODY = random.Random(1).randbytes(1 << 16)


def what_is(data: bytes) -> Format:
    return recognise(data[: 1 << 16], data[-512:], len(data))


def footer(disk_size: int, kind: int = 2) -> bytes:
    raw = bytearray(
        struct.pack(">8sIIQ4x4sI4sQQIII", b"conectix", 2, 0x10000, (1 << 64) - 1, b"test", 1, b"Wi2k", 0, disk_size, 0, kind, 0)
    )
    raw += bytes(512 - len(raw))
    raw[64:68] = struct.pack(">I", ~sum(raw) & 0xFFFFFFFF)
    return bytes(raw)


@pytest.mark.parametrize(
    ("head", "fmt"),
    [
        (Qcow2().build(), Format.QCOW2),
        (Qcow2(version=2).build(), Format.QCOW2),
        (b"KDMV" + BODY, Format.VMDK),
        (b"vhdxfile" + BODY, Format.VHDX),
        (b"conectix" + BODY, Format.VHD),
        (b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + b"\x7f\x10\xda\xbe" + BODY, Format.VDI),
    ],
    ids=["qcow2", "qcow2-v2", "vmdk", "vhdx", "vhd", "vdi"],
)
def test_formats_are_recognised_by_their_magic(head: bytes, fmt: Format) -> None:
    assert what_is(head) is fmt


@pytest.mark.parametrize(
    "disk",
    [
        bytes(4096),
        bytes(100),
        BODY,
        b"\xeb\x63\x90" + BODY[:507] + b"\x55\xaa" + BODY,
        b"\xfa\xb8\0\0" + bytes(506) + b"\x55\xaa" + bytes(512) + b"EFI PART" + bytes(9000),
        bytes(0x8001) + b"CD001\1\0" + bytes(9000),
        b"\x7fELF\2\1\1" + BODY,
        b"hsqs" + BODY,
        b"BZh9" + BODY,
        b"\x5d\0\0" + BODY,
        b"{\0" + BODY,
        b"<html\0" + BODY,
    ],
    ids=[
        "zeroes", "short", "noise", "mbr", "gpt", "iso", "elf", "squashfs",
        "boot-code-like-bzip2", "boot-code-like-lzma", "a-brace-and-noise", "html-and-noise",
    ],
)  # fmt: skip
def test_everything_unknown_is_a_raw_disk(disk: bytes) -> None:
    assert what_is(disk) is Format.RAW


@pytest.mark.parametrize("file", foreign_files.FILES, ids=lambda file: file.name)
def test_known_things_that_are_no_disk_are_refused_by_name(file: HostileFile) -> None:
    data = file.build()
    wrapper = wrapper_of(data)
    if wrapper is Wrapper.GZIP:
        data = gzip.decompress(data)
    elif wrapper is Wrapper.XZ:
        data = lzma.decompress(data)
    with pytest.raises(Failure) as caught:
        over(data, examine(what_is(data), len(data), Limits()))
    assert caught.value.code == file.code
    if file.code == "not-a-disk":
        assert caught.value.evidence["what"] in caught.value.cause
        assert caught.value.evidence["first_bytes"] == data[:16].hex(" ")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("zip", "a ZIP archive"),
        ("html-behind-comments", "an HTML page"),
        ("s3-error", "an error message of an object store"),
        ("lfs-pointer", "a git LFS pointer"),
        ("vmdk-descriptor-disguised", "a bare VMDK descriptor (its data is in other files)"),
        ("gzip-in-gzip", "a wrapper in a wrapper"),
        ("tar-v7", "a tar archive"),
        ("json-array", "a JSON document"),
    ],
)
def test_the_label_says_what_it_is(name: str, label: str) -> None:
    data = next(file for file in foreign_files.FILES if file.name == name).build()
    if wrapper_of(data):
        data = gzip.decompress(data)
    with pytest.raises(Failure) as caught:
        what_is(data)
    assert caught.value.evidence["what"] == label


def test_a_luks_volume_says_how_to_import_it_all_the_same() -> None:
    with pytest.raises(Failure) as caught:
        what_is(b"LUKS\xba\xbe\0\1" + BODY)
    assert "--format raw" in caught.value.hint


@pytest.mark.parametrize(
    ("head", "wrapper"),
    [
        (b"\x1f\x8b\x08\0", Wrapper.GZIP),
        (b"\xfd7zXZ\0\0\4", Wrapper.XZ),
        (b"\x28\xb5\x2f\xfd\4", Wrapper.ZSTD),
        (b"\x50\x2a\x4d\x18\4\0\0\0", Wrapper.ZSTD),
        (b"\x5f\x2a\x4d\x18\4\0\0\0", Wrapper.ZSTD),
        (b"\x60\x2a\x4d\x18\4\0\0\0", None),
        (b"\x1f\x8b\x09", None),
        (b"\x1f", None),
        (b"", None),
        (b"QFI\xfb", None),
    ],
)
def test_wrappers_are_recognised_by_their_magic(head: bytes, wrapper: Wrapper | None) -> None:
    assert wrapper_of(head) is wrapper


def test_a_valid_footer_at_the_end_makes_a_fixed_vhd() -> None:
    assert what_is(BODY + footer(len(BODY))) is Format.VHD
    assert is_fixed_vhd_footer(BODY[-100:] + footer(4096), 4096 + 512), "a longer tail is welcome"


@pytest.mark.parametrize(
    "tail",
    [
        footer(len(BODY) - 512),
        footer(len(BODY), kind=3),
        footer(len(BODY))[:-1] + b"\1",
        b"\0" * 8 + footer(len(BODY))[8:],
    ],
    ids=["another-size", "another-type", "a-bad-checksum", "no-cookie"],
)
def test_a_footer_that_does_not_hold_leaves_a_raw_disk(tail: bytes) -> None:
    assert what_is(BODY + tail) is Format.RAW


def test_without_a_length_no_footer_is_believed() -> None:
    assert not is_fixed_vhd_footer(footer(4096), None)
    assert recognise(BODY, b"", None) is Format.RAW


@given(st.binary(min_size=1, max_size=600))
def test_no_head_makes_recognition_stumble(head: bytes) -> None:
    code = ""
    try:
        recognise(head, head[-512:], len(head))
    except Failure as failure:
        code = failure.code
    assert code in {"", "not-a-disk", "unsupported"}


def test_raw_disks_are_examined_for_their_size_alone() -> None:
    image = over(BODY, examine(Format.RAW, len(BODY), Limits()))
    assert image.virtual_size == len(BODY)
    assert image.raw_span == (0, len(BODY))
    with pytest.raises(Failure, match="larger than the limit"):
        over(BODY, examine(Format.RAW, len(BODY), Limits(max_size=512)))


def test_an_iso_is_a_raw_disk_with_a_note() -> None:
    iso = bytes(0x8001) + b"CD001\1\0" + bytes(9000)
    assert over(iso, examine(Format.RAW, len(iso), Limits())).notes["content"] == "ISO 9660"
