"""Every format in every wrapper, made by the real tools, becomes the disk that qemu-img sees in it, no larger on disk."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import content, images, proof
from builders.images import FAMILY, KINDS, MIB, USED, Kind
from command import importing
from fakes.webserver import Nginx
from tools import tree

Get = Callable[..., Path]
EVERY = {**KINDS, **USED}
LOCAL = ("raw", "qcow2", "qcow2-zlib", "qcow2-used", "vmdk", "vmdk-stream", "vhd-fixed", "vhd-dynamic", "vhdx", "vdi-used")
_by_qemu_img: dict[str, int] = {}


def right(disk: Path, original: Path, kind: Kind, scratch: Path) -> None:
    """Fail unless the disk is identical and allocates no more than it may."""
    proof.identical(disk, original, kind)
    if original.name not in _by_qemu_img:
        _by_qemu_img[original.name] = proof.allocated_by_qemu_img(original, kind, scratch)
    limit = proof.most_allocated(_by_qemu_img[original.name])
    assert proof.allocated(disk) <= limit, f"{proof.allocated(disk)} bytes allocated, at most {limit} expected"


@pytest.mark.parametrize("wrapper", [None, "gzip", "xz", "zstd"])
@pytest.mark.parametrize("name", EVERY)
def test_an_image_over_http_becomes_its_disk(
    name: str, wrapper: str | None, nginx: Nginx, image: Get, landing: Path, tmp_path: Path
) -> None:
    original, served = image(name), image(name, wrapper)
    outcome = importing(nginx.url(served.name), landing / "disk.img").succeeded()
    right(landing / "disk.img", original, EVERY[name], tmp_path)
    assert tree(landing) == ["disk.img"]
    receipt = outcome.receipt
    assert receipt["format"] == EVERY[name].named
    assert receipt["wrapper"] == wrapper
    assert receipt["virtual_size"] == (landing / "disk.img").stat().st_size
    assert receipt["source_length"] == served.stat().st_size
    assert receipt["bytes_fetched"] <= 1.1 * served.stat().st_size + 4 * MIB


@pytest.mark.parametrize("name", LOCAL)
def test_an_image_in_a_local_file_becomes_its_disk(name: str, image: Get, landing: Path, tmp_path: Path) -> None:
    original = image(name)
    importing(os.path.realpath(original), landing / "disk.img").succeeded()
    right(landing / "disk.img", original, EVERY[name], tmp_path)


@pytest.mark.parametrize("wrapper", ["xz-one-block", "zstd-threads"])
@pytest.mark.parametrize("name", ["raw", "qcow2"])
def test_other_shapes_of_a_wrapper_are_read_too(
    name: str, wrapper: str, nginx: Nginx, image: Get, landing: Path, tmp_path: Path
) -> None:
    served = image(name, wrapper)
    outcome = importing(nginx.url(served.name), landing / "disk.img").succeeded()
    right(landing / "disk.img", image(name), EVERY[name], tmp_path)
    assert outcome.receipt["wrapper"] == FAMILY[wrapper]


@pytest.mark.parametrize("wrapper", ["gzip", "xz", "zstd"])
def test_a_wrapper_of_two_members_is_read_to_its_end(wrapper: str, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    data = content.seeded(3 * MIB) + bytes(5 * MIB) + content.seeded(MIB, 2)
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    whole.write_bytes(data)
    first.write_bytes(data[: 2 * MIB + 77])
    second.write_bytes(data[2 * MIB + 77 :])
    served = nginx.folder / f"two-members.{wrapper}"
    parts = [images.wrap(part, wrapper, part.with_suffix(".wrapped")).read_bytes() for part in (first, second)]
    served.write_bytes(b"".join(parts))
    importing(nginx.url(served.name), landing / "disk.img").succeeded()
    assert (landing / "disk.img").read_bytes() == data


@pytest.mark.parametrize("length", [512, 4096, MIB - 512, MIB, MIB + 512, 2 * MIB + 1])
def test_a_raw_disk_of_any_length_keeps_its_length(length: int, nginx: Nginx, landing: Path) -> None:
    served = nginx.folder / f"raw-{length}"
    served.write_bytes(content.seeded(length))
    importing(nginx.url(served.name), landing / "disk.img").succeeded()
    assert (landing / "disk.img").read_bytes() == served.read_bytes()


def test_a_disk_of_zeroes_takes_no_space(nginx: Nginx, landing: Path) -> None:
    served = nginx.folder / "zeroes"
    with served.open("wb") as file:
        file.truncate(32 * MIB)
    importing(nginx.url(served.name), landing / "disk.img").succeeded()
    assert (landing / "disk.img").stat().st_size == 32 * MIB
    assert proof.allocated(landing / "disk.img") <= MIB


@pytest.mark.parametrize("name", ["qcow2", "vdi"])
def test_random_cluster_order_is_fetched_about_once(name: str, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    kind = KINDS[name]
    served = images.used_in_place(kind, nginx.folder / f"{name}.shuffled", size=256 * MIB, writes=120, chunk=MIB)
    outcome = importing(nginx.url(served.name), landing / "disk.img").succeeded()
    right(landing / "disk.img", served, kind, tmp_path)
    assert tree(landing) == ["disk.img"]
    assert outcome.receipt["bytes_fetched"] <= 1.1 * served.stat().st_size
    if outcome.receipt["bytes_spilled"]:
        assert "spill" in outcome.out + outcome.err, outcome.said


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("wrapper", [None, "gzip", "xz", "zstd"])
@pytest.mark.parametrize("name", EVERY)
def test_a_larger_image_becomes_its_disk(name: str, wrapper: str | None, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    folder = nginx.folder / "large"
    folder.mkdir(exist_ok=True)
    kind, original = EVERY[name], folder / name
    if not original.exists():
        if name in USED:
            images.used_in_place(kind, original, size=1024 * MIB, writes=4000)
        else:
            raw = folder / "raw"
            if not raw.exists():
                content.file_system(raw, size=1024 * MIB, files=20 * MIB, noise=250 * MIB)
            if name != "raw":
                images.convert(raw, kind, original)
    served = original if wrapper is None else images.wrap(original, wrapper, tmp_path / "wrapped")
    if wrapper is not None:
        served = served.rename(folder / "wrapped")
    importing(nginx.url(f"large/{served.name}"), landing / "disk.img", timeout=600).succeeded()
    right(landing / "disk.img", original, kind, tmp_path)
