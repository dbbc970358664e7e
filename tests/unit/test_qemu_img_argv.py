"""The command that qemu-img is run with, and what its ways to fail mean."""

import json

import pytest

from importer.disk import qemu_img
from importer.disk.image import Format
from importer.disk.tool_part import ToolPart
from machinery.process.child import Ended

FILE = '"file":{"driver":"nbd","server":{"type":"fd","str":"7"}}'
GOLDEN = {
    Format.QCOW2: '{"driver":"qcow2","backing":null,' + FILE + "}",
    Format.VMDK: '{"driver":"vmdk","backing":null,' + FILE + "}",
    Format.VHD: '{"driver":"vpc","force_size_calc":"current_size",' + FILE + "}",
    Format.VHDX: '{"driver":"vhdx",' + FILE + "}",
    Format.VDI: '{"driver":"vdi",' + FILE + "}",
}


@pytest.mark.parametrize("format", GOLDEN)
def test_the_command_is_as_reviewed(format: Format) -> None:
    argv = qemu_img.convert_argv(format=format, nbd_fd=7, part=ToolPart(fd=9), compressed=False, direct=True)
    flags = ["-n", "--target-is-zero", "-W", "-m", "16", "-t", "none", "-O", "raw"]
    assert argv == ["qemu-img", "convert", *flags, "json:" + GOLDEN[format], "/dev/fd/9"]
    json.loads(GOLDEN[format])


def test_a_part_of_a_device_is_written_at_its_own_place() -> None:
    part = ToolPart(fd=9, span=(1 << 20, 3 << 20), device=True)
    argv = qemu_img.convert_argv(format=Format.VHD, nbd_fd=7, part=part, compressed=False, direct=True)
    place = "driver=raw,offset=1048576,size=2097152,file.driver=host_device,file.filename=/dev/fd/9"
    source = f'{{"driver":"raw","offset":1048576,"size":2097152,"file":{GOLDEN[Format.VHD]}}}'
    assert argv[-3:] == ["--target-image-opts", f"json:{source}", place]


@pytest.mark.parametrize(("compressed", "direct"), [(True, True), (True, False), (False, False)])
def test_compressed_images_and_file_systems_without_direct_io_go_through_the_page_cache(compressed: bool, direct: bool) -> None:
    argv = qemu_img.convert_argv(format=Format.QCOW2, nbd_fd=7, part=ToolPart(fd=9), compressed=compressed, direct=direct)
    assert argv[argv.index("-t") + 1] == "writeback"


def test_raw_is_not_for_qemu_img() -> None:
    with pytest.raises(KeyError):
        qemu_img.convert_argv(format=Format.RAW, nbd_fd=7, part=ToolPart(fd=9), compressed=False, direct=False)


@pytest.mark.parametrize(
    ("returncode", "said", "killed", "code"),
    [
        (1, "qemu-img: Could not open: Invalid argument", False, "corrupt"),
        (1, "qemu-img: error while writing: No space left on device", False, "no-space"),
        (1, "qemu-img: Cannot allocate memory", False, "tool-limit"),
        (-5, "GLib: gmem.c: failed to allocate 65536 bytes", False, "tool-limit"),
        (-6, "", False, "tool-limit"),
        (-9, "", True, "tool-limit"),
        (-9, "", False, "tool-failed"),
        (-11, "", False, "tool-failed"),
        (127, "prlimit: failed to execute qemu-img: No such file or directory", False, "tool-missing"),
    ],
)
def test_each_way_to_fail_has_its_name(returncode: int, said: str, killed: bool, code: str) -> None:
    failure = qemu_img.verdict(Ended(returncode=returncode, output="", errors=said), out_of_memory=killed)
    assert failure.code == code
    assert failure.evidence["tool_said"] == said
