"""Grains as large as are allowed: what they cost."""

from pathlib import Path

import pytest
from builders import content, images
from command import importing
from fakes.webserver import Nginx
from hostile.vmdk_builder import CHECKED, COMPRESSED, DATA, MARKERS, SECTOR, Vmdk, descriptor, packed_grain

from importer.disk.vmdk import MAX_GRAIN

MIB = 1 << 20


def large_grains(count: int) -> tuple[bytes, bytes]:
    """Return a streamOptimized image of `count` grains of the largest size, and its disk."""
    bodies = [content.seeded(MAX_GRAIN * SECTOR // 2, index) + bytes(MAX_GRAIN * SECTOR // 2) for index in range(count)]
    pieces = [packed_grain(MAX_GRAIN * index, body) for index, body in enumerate(bodies)]
    table = [DATA + sum(len(piece) for piece in pieces[:index]) // SECTOR for index in range(count)]
    text = descriptor("streamOptimized", f'RDONLY {MAX_GRAIN * count} SPARSE "large.vmdk"')
    image = Vmdk(
        version=3, flags=CHECKED | COMPRESSED | MARKERS, compression=1, capacity=MAX_GRAIN * count, grain=MAX_GRAIN,
        text=text, table=table, data=b"".join(pieces),
    )  # fmt: skip
    return image.build(), b"".join(bodies)


@pytest.mark.parametrize("wrapper", [None, "gzip"], ids=["bare", "from a spill"])
def test_grains_of_a_mebibyte_are_read_in_bounded_memory(wrapper: str | None, nginx: Nginx, landing: Path) -> None:
    image, disk = large_grains(48)
    served = nginx.folder / "large-grains.vmdk"
    served.write_bytes(image)
    if wrapper:
        served = images.wrap(served, wrapper, nginx.folder / "large-grains.vmdk.gz")
    outcome = importing(nginx.url(served.name), landing / "disk.img").succeeded()
    assert (landing / "disk.img").read_bytes() == disk
    assert outcome.receipt["bytes_fetched"] <= 1.1 * served.stat().st_size
    assert outcome.high_water <= 160 * MIB
