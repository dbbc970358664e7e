"""VMDK and VDI images as qemu-img and qemu-io really leave them: all pass, and those cut short are found out."""

import json
import random
import subprocess
from pathlib import Path

import pytest
from hostile.vdi_builder import Vdi
from hostile.vmdk_builder import DATA, GRAIN_BYTES, SECTOR, descriptor, footed, packed, plain
from tools import needs

from importer.api.failure import Failure
from importer.disk.examine import examine, unit, walk
from importer.disk.extents import Extents
from importer.disk.image import Format, Image, Limits
from importer.disk.reads import Reads, T

MIB = 1 << 20
ODD_SIZE = 5_000_192
SPARSE = [
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    ("vmdk", "subformat=monolithicSparse,compat6=on,adapter_type=lsilogic"),
    ("vdi", "static=off"),
    ("vdi", "static=on"),
]
STREAM = ("vmdk", "subformat=streamOptimized")
FORMATS = {"vmdk": Format.VMDK, "vdi": Format.VDI}


@pytest.fixture(autouse=True)
def tools() -> None:
    """All tests here run QEMU's tools."""
    needs("qemu-img", "qemu-io")


def run(*argv: object) -> bytes:
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, timeout=60).stdout


def virtual_size(driver: str, path: Path) -> int:
    return int(json.loads(run("qemu-img", "info", "-f", driver, "--output=json", path))["virtual-size"])


def read(path: Path, reads: Reads[T]) -> tuple[T, int]:
    """Run `reads` over a file that may be larger than memory; return its result and how often it asked."""
    length, asked = path.stat().st_size, 0
    with path.open("rb") as file:
        try:
            wanted = next(reads)
            while True:
                asked += 1
                answers = []
                assert len(wanted) <= 32
                assert sum(span.size for span in wanted) <= 4 * MIB
                for span in wanted:
                    assert 0 <= span.start <= span.end <= length
                    file.seek(span.start)
                    answers.append(file.read(span.size))
                wanted = reads.send(tuple(answers))
        except StopIteration as end:
            return end.value, asked


def judge(driver: str, path: Path) -> tuple[Image, Extents]:
    length = path.stat().st_size
    image, asked = read(path, examine(FORMATS[driver], length, Limits()))
    assert asked <= 2
    extents = Extents(length=length, unit=unit(image))
    read(path, walk(image, length, extents))
    return image, extents


def decoded(driver: str, path: Path) -> bytes:
    out = path.with_suffix(".out")
    run("qemu-img", "convert", "-f", driver, "-O", "raw", path, out)
    return out.read_bytes()


def lived_in(driver: str, options: str, path: Path, size: int = ODD_SIZE) -> Path:
    """Create an image and write to it in random order, as a guest would."""
    dice = random.Random(driver + options)
    run("qemu-img", "create", "-f", driver, "-o", options, path, size)
    steps = [f"write -P 5 {size - 1536} 1536"]
    for _ in range(8):
        verb = dice.choice(["write -P 7", "write -P 8", "write -z", "write -z -u"])
        steps.append(f"{verb} {dice.randrange((size - 70_000) // 512) * 512} {dice.choice([512, 4096, 40_448, 69_632])}")
    run("qemu-io", "-f", driver, *[word for step in steps for word in ("-c", step)], path)
    return path


def converted(driver: str, options: str, path: Path, content: bytes) -> Path:
    raw = path.with_suffix(".raw")
    raw.write_bytes(content)
    run("qemu-img", "convert", "-f", "raw", "-O", driver, "-o", options, raw, path)
    return path


def patchy(size: int, seed: int) -> bytes:
    """Return noise, text that packs well, and zeroes, in turns of 64 KiB."""
    dice = random.Random(seed)
    pieces = [
        dice.choice([dice.randbytes(65536), b"packs well. " * 5500, bytes(65536)])[:65536] for _ in range(size // 65536 + 1)
    ]
    return b"".join(piece.ljust(65536, b".") for piece in pieces)[: size - 512] + b"e" * 512


@pytest.mark.parametrize(("driver", "options"), SPARSE)
def test_images_that_a_guest_wrote_to_pass(tmp_path: Path, driver: str, options: str) -> None:
    path = lived_in(driver, options, tmp_path / "disk.img")
    image, extents = judge(driver, path)
    assert image.virtual_size == virtual_size(driver, path) == ODD_SIZE
    assert extents.data_bytes >= 1536
    assert extents.in_order


@pytest.mark.parametrize(("driver", "options"), [*SPARSE, STREAM])
def test_cut_copies_are_refused_unless_only_unused_bytes_were_cut(tmp_path: Path, driver: str, options: str) -> None:
    path, cut = tmp_path / "disk.img", tmp_path / "cut.img"
    if (driver, options) == STREAM:
        converted(driver, options, path, patchy(ODD_SIZE, 3))
    else:
        lived_in(driver, options, path)
    data, whole, dice = path.read_bytes(), decoded(driver, path), random.Random(options)
    lengths = [dice.randrange(len(data)) for _ in range(20)] + [len(data) - dice.randrange(1, 70_000) for _ in range(10)]
    for length in [*lengths, len(data) - 1]:
        cut.write_bytes(data[:length])
        try:
            judge(driver, cut)
        except Failure as failure:
            code = failure.code
        else:
            code = "passed"
            assert decoded(driver, cut) == whole, f"a cut at {length} of {len(data)} went unseen"
        assert code in {"truncated", "passed"}


@pytest.mark.parametrize("size", [512, MIB + 512, 3 * MIB, 33 * MIB + 1024])
@pytest.mark.parametrize(("driver", "options"), [*SPARSE, STREAM])
def test_converted_images_of_odd_sizes_pass_and_lose_no_half(tmp_path: Path, driver: str, options: str, size: int) -> None:
    path = converted(driver, options, tmp_path / "disk.img", patchy(size, size))
    image, extents = judge(driver, path)
    assert image.virtual_size == virtual_size(driver, path) == size
    assert extents.data_bytes >= 512
    assert bool(extents.compressed_clusters) == ("stream" in options)
    assert extents.in_order
    cut = tmp_path / "cut.img"
    if driver == "vdi" and size < MIB:
        return  # what lies behind the disk's end in its only block may be missing
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(Failure) as caught:
        judge(driver, cut)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize(("driver", "options"), [kind for kind in SPARSE if kind[1] != "static=on"])
@pytest.mark.parametrize("size", ["3G", "300G"])
def test_large_sparse_images_pass(tmp_path: Path, driver: str, options: str, size: str) -> None:
    path = tmp_path / "disk.img"
    run("qemu-img", "create", "-f", driver, "-o", options, path, size)
    run("qemu-io", "-f", driver, "-c", "write -P 9 2900M 64K", "-c", "write -P 9 1G 64K", path)
    image, extents = judge(driver, path)
    assert image.virtual_size == virtual_size(driver, path)
    assert extents.data_bytes == (2 * MIB if driver == "vdi" else 128 << 10)


def test_an_image_written_in_random_order_is_told_from_one_in_order(tmp_path: Path) -> None:
    places = list(range(0, 96 * MIB, MIB // 4))
    random.Random(1).shuffle(places)
    for driver in FORMATS:
        path = tmp_path / f"disk.{driver}"
        run("qemu-img", "create", "-f", driver, path, 96 * MIB)
        run("qemu-io", "-f", driver, *[word for place in places for word in ("-c", f"write -P 7 {place} 256k")], path)
        assert not judge(driver, path)[1].in_order


def test_the_densest_grains_that_qemu_makes_are_no_bomb(tmp_path: Path) -> None:
    path = converted(*STREAM, tmp_path / "disk.vmdk", b"\x55" * (64 * MIB))
    _, extents = judge("vmdk", path)
    assert extents.compressed_clusters == 1024


def test_the_builders_of_hostile_images_build_what_qemu_reads(tmp_path: Path) -> None:
    content = b"d" * (4 * GRAIN_BYTES) + bytes(MIB - 4 * GRAIN_BYTES)
    path = tmp_path / "disk.img"
    for data in (plain().build(), packed().build(), footed(packed())):
        path.write_bytes(data)
        assert decoded("vmdk", path) == content
    path.write_bytes(Vdi().build())
    assert decoded("vdi", path) == b"d" * MIB + bytes(2 * MIB) + b"d" * MIB


def test_what_qemu_itself_makes_with_outside_parts_is_refused(tmp_path: Path) -> None:
    base, path = tmp_path / "base.vmdk", tmp_path / "disk.vmdk"
    run("qemu-img", "create", "-f", "vmdk", base, "1M")
    run("qemu-img", "create", "-f", "vmdk", "-b", base, "-F", "vmdk", path)
    with pytest.raises(Failure) as caught:
        judge("vmdk", path)
    assert caught.value.code == "unsafe"
    for kind in ("twoGbMaxExtentSparse", "monolithicFlat", "twoGbMaxExtentFlat"):
        run("qemu-img", "create", "-f", "vmdk", "-o", f"subformat={kind}", tmp_path / f"{kind}.vmdk", "1M")
    with pytest.raises(Failure) as caught:
        judge("vmdk", tmp_path / "twoGbMaxExtentSparse-s001.vmdk")
    assert caught.value.code == "unsupported"


def test_without_a_capacity_qemu_would_really_read_another_file(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret", tmp_path / "disk.vmdk"
    secret.write_bytes(b"secret!\n" * 128)
    extent = f'RW 2 FLAT "{secret}" 0'
    path.write_bytes(plain(capacity=0, text=descriptor(kind="monolithicFlat", extents=extent)).build())
    assert decoded("vmdk", path) == secret.read_bytes()
    with pytest.raises(Failure) as caught:
        judge("vmdk", path)
    assert caught.value.code == "unsafe"


def test_qemu_really_looks_for_the_parent_at_0x200(tmp_path: Path) -> None:
    base, path = tmp_path / "base.vmdk", tmp_path / "disk.vmdk"
    run("qemu-img", "create", "-f", "vmdk", base, "1M")
    hint = f'parentFileNameHint="{base}"\n'
    honest = descriptor().ljust(20 * SECTOR, b"\0")
    image = plain(descriptor_offset=DATA + 4 * 16, text=descriptor(more=hint))
    path.write_bytes(image.build() + honest)
    assert json.loads(run("qemu-img", "info", "-f", "vmdk", "--output=json", path))["backing-filename"] == str(base)
    with pytest.raises(Failure) as caught:
        judge("vmdk", path)
    assert caught.value.code == "unsafe"
