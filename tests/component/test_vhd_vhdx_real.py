"""VHD and VHDX images as qemu-img and qemu-io really leave them: all pass, and those cut short are found out."""

import json
import random
import subprocess
from pathlib import Path

import pytest
from tools import needs

from importer.api.failure import Failure
from importer.disk.examine import examine, unit, walk
from importer.disk.extents import Extents
from importer.disk.image import Format, Image, Limits
from importer.disk.reads import Reads, T

MIB = 1 << 20
ODD_SIZE = 5_000_192
VHD = ["subformat=fixed", "subformat=fixed,force_size=on", "subformat=dynamic", "subformat=dynamic,force_size=on"]
VHDX = ["block_size=1M", "block_size=1M,subformat=fixed", "block_size=8M", "block_size=8M,subformat=fixed,log_size=4M"]
KINDS = [("vpc", options) for options in VHD] + [("vhdx", options) for options in VHDX]
FORMATS = {"vpc": Format.VHD, "vhdx": Format.VHDX}


@pytest.fixture(autouse=True)
def tools() -> None:
    """All tests here run QEMU's tools."""
    needs("qemu-img", "qemu-io")


def run(*argv: object) -> bytes:
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, timeout=60).stdout


def opened(driver: str, path: Path) -> str:
    """Return the image options with which an import reads such an image."""
    return f"driver={driver}," + "force_size_calc=current_size," * (driver == "vpc") + f"file.filename={path}"


def virtual_size(driver: str, path: Path) -> int:
    return int(json.loads(run("qemu-img", "info", "--output=json", "--image-opts", opened(driver, path)))["virtual-size"])


def read(path: Path, reads: Reads[T]) -> T:
    """Run `reads` over a file that may be larger than memory."""
    length = path.stat().st_size
    with path.open("rb") as file:
        try:
            wanted = next(reads)
            while True:
                answers = []
                assert len(wanted) <= 32
                assert sum(span.size for span in wanted) <= 4 * MIB
                for span in wanted:
                    assert 0 <= span.start <= span.end <= length
                    file.seek(span.start)
                    answers.append(file.read(span.size))
                wanted = reads.send(tuple(answers))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def judge(driver: str, path: Path) -> tuple[Image, Extents]:
    length = path.stat().st_size
    image = read(path, examine(FORMATS[driver], length, Limits()))
    extents = Extents(length=length, unit=unit(image))
    read(path, walk(image, length, extents))
    return image, extents


def decoded(driver: str, path: Path) -> bytes:
    out = path.with_suffix(".out")
    run("qemu-img", "convert", "--image-opts", opened(driver, path), "-O", "raw", out)
    return out.read_bytes()


def lived_in(driver: str, options: str, path: Path, size: int = ODD_SIZE) -> Path:
    """Create an image and write to it in random order, as a guest would."""
    dice = random.Random(driver + options)
    run("qemu-img", "create", "-f", driver, "-o", options, path, size)
    steps = [f"write -P 5 {size - 1536} 1536"]
    for _ in range(8):
        verb = dice.choice(["write -P 7", "write -P 8", "write -z"])
        steps.append(f"{verb} {dice.randrange((size - 70_000) // 512) * 512} {dice.choice([512, 4096, 40_448, 69_632])}")
    run("qemu-io", *[word for step in steps for word in ("-c", step)], "--image-opts", opened(driver, path))
    return path


@pytest.mark.parametrize(("driver", "options"), KINDS)
def test_images_that_a_guest_wrote_to_pass(tmp_path: Path, driver: str, options: str) -> None:
    path = lived_in(driver, options, tmp_path / "disk.img")
    image, extents = judge(driver, path)
    assert image.virtual_size == virtual_size(driver, path)
    assert image.subformat == ("fixed" if "fixed" in options else "dynamic")
    assert extents.data_bytes >= 1536
    assert extents.in_order


@pytest.mark.parametrize(("driver", "options"), KINDS)
def test_cut_copies_are_refused_unless_only_unused_bytes_were_cut(tmp_path: Path, driver: str, options: str) -> None:
    path, cut = lived_in(driver, options, tmp_path / "disk.img"), tmp_path / "cut.img"
    data, whole, dice = path.read_bytes(), decoded(driver, path), random.Random(options)
    lengths = [dice.randrange(len(data)) for _ in range(14)] + [len(data) - dice.randrange(1, 70_000) for _ in range(5)]
    for length in [*lengths, len(data) - 1]:
        cut.write_bytes(data[:length])
        try:
            judge(driver, cut)
        except Failure as failure:
            code = failure.code
        else:
            code = "passed"
            assert decoded(driver, cut) == whole, f"a cut at {length} of {len(data)} went unseen"
        # A fixed VHD has nothing in front that says what it was.
        assert code in ({"corrupt", "truncated"} if options.startswith("subformat=fixed") else {"truncated", "passed"})


@pytest.mark.parametrize("size", [512, MIB + 512, 3 * MIB, 33 * MIB + 1024])
@pytest.mark.parametrize(("driver", "options"), KINDS)
def test_converted_images_of_odd_sizes_pass(tmp_path: Path, driver: str, options: str, size: int) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.img"
    raw.write_bytes(random.Random(size).randbytes(size))
    run("qemu-img", "convert", "-f", "raw", "-O", driver, "-o", options, raw, path)
    image, extents = judge(driver, path)
    assert image.virtual_size == virtual_size(driver, path)
    assert extents.data_bytes >= size
    assert extents.in_order
    if image.raw_span:
        assert path.read_bytes()[slice(*image.raw_span)].startswith(raw.read_bytes())


@pytest.mark.parametrize(("driver", "options"), [*KINDS, ("vhdx", "block_size=256M"), ("vhdx", "block_size=64M")])
def test_sparse_images_of_three_gibibytes_pass(tmp_path: Path, driver: str, options: str) -> None:
    path = tmp_path / "disk.img"
    run("qemu-img", "create", "-f", driver, "-o", options, path, "3G")
    run("qemu-io", "-c", "write -P 9 2900M 64K", "-c", "write -P 9 1G 64K", "--image-opts", opened(driver, path))
    image, extents = judge(driver, path)
    assert image.virtual_size == virtual_size(driver, path)
    assert extents.in_order


def test_many_blocks_of_a_vhdx_pass_over_its_bitmap_entries(tmp_path: Path) -> None:
    path = tmp_path / "disk.vhdx"
    run("qemu-img", "create", "-f", "vhdx", "-o", "block_size=1M", path, "9G")
    writes = [word for at in (0, 4095, 4096, 4097, 8191, 8192, 9215) for word in ("-c", f"write -P 9 {at}M 1M")]
    run("qemu-io", *writes, "--image-opts", opened("vhdx", path))
    _, extents = judge("vhdx", path)
    assert extents.data_bytes == 7 * MIB


@pytest.mark.parametrize("driver", ["vpc", "vhdx"])
def test_an_empty_image_passes(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "disk.img"
    run("qemu-img", "create", "-f", driver, path, "8M")
    image, extents = judge(driver, path)
    assert image.virtual_size == virtual_size(driver, path)
    assert extents.data_bytes == 0
