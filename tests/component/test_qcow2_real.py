"""qcow2 images as qemu-img and qemu-io really leave them: all pass, and those cut short are found out."""

import random
import subprocess
from pathlib import Path

import pytest
from hostile.qcow2_builder import COPIED, Qcow2
from hostile.qcow2_files import shared_clusters
from tools import needs

from importer.api.failure import Failure
from importer.disk import qcow2
from importer.disk.extents import Extents
from importer.disk.image import Image, Limits
from importer.disk.reads import over


@pytest.fixture(autouse=True)
def _tools() -> None:
    needs("qemu-img", "qemu-io")


OPTIONS = [
    "cluster_size=512",
    "cluster_size=4096,compat=0.10",
    "cluster_size=65536",
    "cluster_size=65536,lazy_refcounts=on",
    "cluster_size=65536,compression_type=zstd",
    "cluster_size=65536,extended_l2=on",
    "cluster_size=65536,preallocation=metadata",
    "cluster_size=65536,preallocation=metadata,extended_l2=on",
    "cluster_size=2097152",
    "cluster_size=2097152,extended_l2=on,compression_type=zstd",
    "cluster_size=2097152,preallocation=falloc",
]
ODD_SIZE = 5_000_192
CONTENT = random.Random(5).randbytes(1 << 20)


def run(*argv: object) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True, timeout=60)


def judge(data: bytes) -> tuple[Image, Extents]:
    image = over(data, qcow2.examine(len(data), Limits()))
    extents = Extents(length=len(data), unit=qcow2.unit(image))
    over(data, qcow2.walk(image, len(data), extents))
    return image, extents


def decoded(path: Path) -> bytes:
    out = path.with_suffix(".out")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, out)
    return out.read_bytes()


def lived_in(path: Path, options: str, seed: int, size: int = ODD_SIZE) -> Path:
    """Create an image and write, discard, compress and snapshot at random, as a guest and its owner would."""
    dice = random.Random(seed)
    run("qemu-img", "create", "-f", "qcow2", "-o", options, path, size)
    cluster = int(options.split(",")[0].split("=")[1])
    aligned = dice.randrange(size // cluster) * cluster
    steps = [f"write -c -P 3 {aligned} {cluster}", f"write -P 5 {size - 1536} 1536"]
    for _ in range(6):
        verb = dice.choice(["write -P 7", "write -z", "discard", "write -z -u"])
        steps.append(f"{verb} {dice.randrange(size - 70_000)} {dice.choice([1, 511, 512, 4096, 40_000, 70_000])}")
    for part in (steps[:4], steps[4:]):
        subprocess.run(
            ["qemu-io", "-d", "unmap", "-f", "qcow2", *[word for step in part for word in ("-c", step)], str(path)],
            capture_output=True,
            timeout=60,
            check=False,  # a compressed write over data that was compressed before fails, and that is fine
        )
        run("qemu-img", "snapshot", "-c", f"after-{len(part)}", path)
    return path


@pytest.mark.parametrize("options", OPTIONS)
def test_images_that_were_lived_in_pass(tmp_path: Path, options: str) -> None:
    image, extents = judge(lived_in(tmp_path / "disk.qcow2", options, seed=len(options)).read_bytes())
    assert image.virtual_size == ODD_SIZE
    assert image.notes["snapshots"] == "2"
    assert extents.in_order


@pytest.mark.parametrize("options", OPTIONS)
def test_cut_images_are_truncated_unless_only_unused_bytes_were_cut(tmp_path: Path, options: str) -> None:
    path = lived_in(tmp_path / "disk.qcow2", options, seed=len(options) + 1)
    data, whole = path.read_bytes(), decoded(path)
    dice, cut_path = random.Random(options), tmp_path / "cut.qcow2"
    lengths = [dice.randrange(len(data)) for _ in range(12)] + [len(data) - dice.randrange(1, 70_000) for _ in range(4)]
    for length in lengths:
        try:
            judge(data[:length])
        except Failure as failure:
            code = failure.code
        else:
            code = "passed"
            cut_path.write_bytes(data[:length])
            assert decoded(cut_path) == whole, f"a cut at {length} of {len(data)} went unseen"
        assert code in {"truncated", "passed"}


@pytest.mark.parametrize("size", [0, 512, 70_144, 1 << 20])
@pytest.mark.parametrize("flags", [(), ("-c",)], ids=["plain", "compressed"])
@pytest.mark.parametrize("options", [option for option in OPTIONS if "preallocation" not in option])
def test_converted_images_pass_and_no_cut_of_their_data_does(
    tmp_path: Path, size: int, flags: tuple[str, ...], options: str
) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(CONTENT[:size])
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, *flags, raw, path)
    data = path.read_bytes()
    image, extents = judge(data)
    assert image.virtual_size == size
    assert extents.data_bytes >= size
    assert extents.in_order
    with pytest.raises(Failure) as caught:
        judge(data[: len(data) // 2])
    assert caught.value.code == "truncated"


def test_compressed_clusters_of_real_images_are_counted(tmp_path: Path) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(b"text that packs well. " * 200_000)
    for kind in ("zlib", "zstd"):
        for cluster in (512, 65536, 2 << 20):
            options = f"cluster_size={cluster},compression_type={kind}"
            run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
            image, extents = judge(path.read_bytes())
            assert extents.compressed_clusters > 0
            assert image.notes["compression type"] == kind


def test_the_densest_clusters_that_qemu_makes_are_no_bomb(tmp_path: Path) -> None:
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(b"\x55" * (64 << 20))
    for kind in ("zlib", "zstd"):
        for cluster in (65536, 2 << 20):
            run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", f"cluster_size={cluster},compression_type={kind}", raw, path)
            _, extents = judge(path.read_bytes())
            assert extents.compressed_clusters == (64 << 20) // cluster


def test_a_grown_image_passes(tmp_path: Path) -> None:
    for preallocation in ("off", "metadata", "falloc"):
        path = tmp_path / "disk.qcow2"
        run("qemu-img", "create", "-f", "qcow2", path, ODD_SIZE)
        run("qemu-img", "resize", "-f", "qcow2", f"--preallocation={preallocation}", path, "20M")
        assert judge(path.read_bytes())[0].virtual_size == 20 << 20


def test_an_image_written_in_random_order_is_told_from_one_in_order(tmp_path: Path) -> None:
    path, size = tmp_path / "disk.qcow2", 96 << 20
    run("qemu-img", "create", "-f", "qcow2", path, size)
    places = list(range(0, size, 65536))
    random.Random(1).shuffle(places)
    run("qemu-io", "-f", "qcow2", *[word for place in places for word in ("-c", f"write -P 7 {place} 65536")], path)
    assert not judge(path.read_bytes())[1].in_order


@pytest.mark.parametrize(
    "options",
    [
        "backing_file=base.raw,backing_fmt=raw",
        "data_file=out.raw",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ],
    ids=["backing", "data-file", "luks"],
)
def test_what_qemu_itself_makes_with_outside_parts_is_unsafe(tmp_path: Path, options: str) -> None:
    base, path = tmp_path / "base.raw", tmp_path / "disk.qcow2"
    base.write_bytes(bytes(1 << 20))
    options = options.replace("base.raw", str(base)).replace("out.raw", str(tmp_path / "out.raw"))
    for last in (False, False, False, False, True):  # on a busy machine qemu-img cannot time its key derivation, and says so
        try:
            run("qemu-img", "create", "-f", "qcow2", "--object", "secret,id=s,data=nothing", "-o", options, path, "1M")
            break
        except subprocess.CalledProcessError:
            if last:
                raise
    with pytest.raises(Failure) as caught:
        judge(path.read_bytes())
    assert caught.value.code == "unsafe"


def test_the_builder_of_hostile_images_builds_what_qemu_reads(tmp_path: Path) -> None:
    path, image = tmp_path / "disk.qcow2", Qcow2()
    image.l2 = [0, image.host(0) | COPIED]
    image.data = CONTENT[:65536]
    path.write_bytes(image.build())
    assert decoded(path) == (bytes(65536) + CONTENT[:65536]).ljust(image.size, b"\0")


def test_the_bomb_would_go_off_in_qemu_without_us(tmp_path: Path) -> None:
    path = tmp_path / "bomb.qcow2"
    path.write_bytes(shared_clusters())
    assert path.stat().st_size == 384 << 10
    run("qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", path, tmp_path / "out.qcow2")
    assert (tmp_path / "out.qcow2").stat().st_size > 512 << 20
