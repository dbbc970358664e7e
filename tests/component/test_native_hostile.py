"""What can be wrong with the bytes that a native reader decodes, and what it must still read though it looks wrong."""

import asyncio
import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from builders import images, proof
from builders.images import KIB, KINDS, MIB, Kind
from command import importing
from fakes.webserver import Nginx
from hostile.qcow2_builder import Qcow2
from hostile.qcow2_builder import packed as entry
from hostile.vmdk_builder import DATA, GRAIN_BYTES, SECTOR, TABLES, Vmdk, footed, packed, packed_grain
from tools import needs, tool, tree

from importer.api.failure import Failure
from importer.api.report import Progress, Receipt
from importer.api.request import Access, ImportRequest
from importer.disk import chart
from importer.pipeline import run


class Silent:
    def progress(self, moment: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def imported(source: str | Path, target: Path, *, digest: str | None = None) -> Receipt:
    request = ImportRequest(source=str(source), target=str(target), digest=digest, access=Access(connections=3))
    return asyncio.run(asyncio.wait_for(run.run(request, Silent()), 60))


def text_like(size: int, seed: int = 1) -> bytes:
    """Return noise with more zero bits than ones: what compresses, but not much, and whose codes are of many lengths."""
    dice = random.Random(seed)
    return (int.from_bytes(dice.randbytes(size)) & int.from_bytes(dice.randbytes(size))).to_bytes(size)


def decoded_by_qemu(path: Path, driver: str, out: Path) -> bytes | None:
    """Return the disk as qemu-img sees it, None if it finds an error."""
    words = [tool("qemu-img"), "convert", "-f", driver, "-O", "raw", path, out]
    done = subprocess.run(words, capture_output=True, timeout=60)
    return out.read_bytes() if done.returncode == 0 else None


def clusters_that_differ(ours: bytes, theirs: bytes) -> list[int]:
    assert len(ours) == len(theirs)
    return [at for at in range(0, len(ours), 64 * KIB) if ours[at : at + 64 * KIB] != theirs[at : at + 64 * KIB]]


SPOILED = {
    "zlib": Kind(driver="qcow2", compress=True),
    "zstd": Kind(driver="qcow2", options=("compression_type=zstd",), compress=True),
    "vmdk": Kind(driver="vmdk", options=("subformat=streamOptimized",)),
}


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_bytes_end_as_in_qemu_or_are_refused_where_they_lie(name: str, landing: Path, tmp_path: Path) -> None:
    """Deflate has no checksum: some make other bytes, for qemu-img and for us the same ones."""
    needs("qemu-img")
    kind, dice = SPOILED[name], random.Random(name)
    raw, path = tmp_path / "raw", tmp_path / "image"
    # Words, not noise alone: libzstd takes any bits for Huffman codes, and only what refers back can be wrong.
    raw.write_bytes(
        Path(subprocess.__file__).read_bytes() * 2 + text_like(200_000) + bytes(300_000) + Path(random.__file__).read_bytes()
    )
    whole = images.convert(raw, kind, path).read_bytes()
    refused = 0
    for turn in range(24):
        spoiled = bytearray(whole)
        at = dice.randrange(128 * KIB if name == "vmdk" else 320 * KIB, len(whole) - 2048)
        spoil = bytes([spoiled[at] ^ 1 << dice.randrange(8)]) if turn % 2 else dice.randbytes(dice.randrange(1, 60))
        spoiled[at : at + len(spoil)] = spoil
        path.write_bytes(spoiled)
        theirs = decoded_by_qemu(path, kind.driver, tmp_path / "theirs")
        if theirs is None:
            with pytest.raises(Failure) as caught:
                imported(path, landing / "disk.img")
            assert caught.value.code == "corrupt"
            assert 0 <= int(caught.value.evidence["offset"]) <= at + len(spoil)
            refused += 1
        else:
            imported(path, landing / "disk.img")
            differing = clusters_that_differ((landing / "disk.img").read_bytes(), theirs)
            # What a broken Huffman stream ends with is not the same in all versions of libzstd.
            assert len(differing) <= (2 if name == "zstd" else 0), differing
            (landing / "disk.img").unlink()
        assert tree(landing) == []
    assert refused, "nothing was found out"


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_clusters_of_2_mib_lie_across_pieces(compression: str, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    raw, served = tmp_path / "raw", nginx.folder / f"wide-{compression}.qcow2"
    raw.write_bytes(text_like(11 * MIB + 70_144) + bytes(3 * MIB) + text_like(2 * MIB, 2))
    kind = Kind(driver="qcow2", options=("cluster_size=2M", f"compression_type={compression}"), compress=True)
    images.convert(raw, kind, served)
    assert served.stat().st_size > 9 * MIB
    for source in (nginx.url(served.name), served):
        receipt = imported(source, landing / "disk.img", digest="sha256")
        assert receipt.route.startswith("native")
        assert (landing / "disk.img").read_bytes() == raw.read_bytes()
        (landing / "disk.img").unlink()


def short_last_grain(last: int) -> tuple[bytes, bytes]:
    """Return the disk and its image, whose last grain holds only what the disk still has, as VMware writes it."""
    grains = [text_like(GRAIN_BYTES, seed) for seed in range(5)]
    grains[2] = bytes(GRAIN_BYTES)
    disk = b"".join(grains)[: 4 * GRAIN_BYTES + last]
    image = packed(1, capacity=len(disk) // SECTOR)
    image.table, image.data = [], b""
    for index in range(5):
        content = disk[index * GRAIN_BYTES : (index + 1) * GRAIN_BYTES]
        if not any(content):
            image.table.append(0)
            continue
        image.table.append(DATA + len(image.data) // SECTOR)
        image.data += packed_grain(index * GRAIN_BYTES // SECTOR, content)
    return disk, footed(image, directory_offset=Vmdk.directory_offset)


@pytest.mark.parametrize("last", [SECTOR, 7 * SECTOR, GRAIN_BYTES - SECTOR, GRAIN_BYTES])
def test_a_last_grain_that_ends_with_the_disk_is_read(last: int, nginx: Nginx, landing: Path) -> None:
    disk, image = short_last_grain(last)
    served = nginx.folder / "short-last-grain.vmdk"
    served.write_bytes(image)
    receipt = imported(nginx.url(served.name), landing / "disk.img")
    assert receipt.route.startswith("native")
    assert (landing / "disk.img").read_bytes() == disk


def test_grains_with_metadata_among_them_are_read(landing: Path, tmp_path: Path) -> None:
    """VMware writes tables between the grains, each with a marker, and may leave room anywhere."""
    grains = [text_like(GRAIN_BYTES, seed) for seed in range(4)]
    image = packed(1, capacity=4 * GRAIN_BYTES // SECTOR)
    image.table, image.data = [], b""
    for index, grain in enumerate(grains):
        image.table.append(DATA + len(image.data) // SECTOR)
        image.data += packed_grain(index * GRAIN_BYTES // SECTOR, grain)
        image.data += struct.pack("<QII496x", 4, 0, 1) + struct.pack("<512I", *range(512))
    path = tmp_path / "image"
    path.write_bytes(footed(image, directory_offset=TABLES - 1))
    imported(path, landing / "disk.img")
    assert (landing / "disk.img").read_bytes() == b"".join(grains)


@pytest.mark.parametrize(("name", "way"), [("qcow2-zlib", "convert"), ("qcow2-used", "spill"), ("vmdk-stream", "convert")])
def test_more_runs_than_a_chart_holds_are_left_to_qemu_img(
    name: str, way: str, image, nginx: Nginx, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chart.Chart.__init__, "__defaults__", (9,))
    original: Path = image(name)
    kind = {**KINDS, **images.USED}[name]
    if way == "spill":  # long enough for a window to thrash
        original = images.used_in_place(kind, nginx.folder / "used-much.qcow2", size=256 * MIB, writes=120, chunk=MIB)
    for source, ways in ((nginx.url(original.name), (way,)), (original, ("convert",))):
        receipt = imported(source, landing / "disk.img")
        assert receipt.route.startswith(ways), receipt.route
        assert way == "spill" or "too many runs" in receipt.route
        proof.identical(landing / "disk.img", original, kind)
        (landing / "disk.img").unlink()
        assert tree(landing) == []


def test_a_disk_without_data_needs_no_pieces(nginx: Nginx, landing: Path) -> None:
    served = nginx.folder / "without-data.qcow2"
    images.run([tool("qemu-img"), "create", "-q", "-f", "qcow2", served, "5000192"])
    for digest in (None, "sha256"):
        receipt = imported(nginx.url(served.name), landing / "disk.img", digest=digest)
        assert receipt.route.startswith("native")
        assert (landing / "disk.img").stat().st_size == 5_000_192
        assert proof.allocated(landing / "disk.img") == 0
        (landing / "disk.img").unlink()


@pytest.mark.parametrize("name", ["qcow2", "qcow2-zlib", "qcow2-extended"])
def test_a_disk_that_ends_within_a_sector_ends_where_it_ends_for_qemu(name: str, landing: Path, tmp_path: Path) -> None:
    raw, path = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(text_like(400_384))
    images.convert(raw, KINDS[name], path)
    with path.open("r+b") as file:
        file.seek(24)
        file.write((400_000).to_bytes(8))
    theirs = decoded_by_qemu(path, "qcow2", tmp_path / "theirs")
    imported(path, landing / "disk.img")
    assert (landing / "disk.img").read_bytes() == theirs
    assert theirs == raw.read_bytes()[:399_872]


def scattered(count: int) -> bytes:
    """Return a qcow2 image of `count` compressed clusters of 512 bytes in random order, 8 bytes each: as dense as they come."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -12)
    stream = squeeze.compress(b"U" * 512) + squeeze.flush()
    cluster, tables = 512, count // 64
    image = Qcow2(cluster_bits=9, size=count * cluster, l1=[0] * tables, l1_offset=4 * cluster)
    first_table = (4 + tables * 8 // cluster) * cluster
    places = [first_table + tables * cluster + index * len(stream) for index in range(count)]
    random.Random(1).shuffle(places)
    entries = [entry(place, (place + len(stream) - 1) // 512 - place // 512, 9) for place in places]
    l1 = [first_table + index * cluster for index in range(tables)]
    head = image.build()[: 4 * cluster]
    return head + struct.pack(f">{tables}Q", *l1) + struct.pack(f">{count}Q", *entries) + stream * count


@pytest.mark.long
@pytest.mark.timeout(600)
def test_as_many_runs_as_a_chart_holds_are_read_in_bounded_memory(nginx: Nginx, landing: Path) -> None:
    served = nginx.folder / "scattered.qcow2"
    served.write_bytes(scattered(chart.MOST_RUNS))
    outcome = importing(nginx.url(served.name), landing / "disk.img", timeout=500).succeeded()
    served.unlink()
    assert outcome.receipt["route"].startswith("native")
    assert outcome.high_water <= 160 * MIB
    with (landing / "disk.img").open("rb") as disk:
        while stretch := disk.read(MIB):
            assert stretch == b"U" * len(stretch)
    assert (landing / "disk.img").stat().st_size == chart.MOST_RUNS * 512
