"""Which images our own reader takes, and how their compressed clusters are decoded; qemu-img takes all others."""

from dataclasses import dataclass
from typing import Protocol

from importer.disk.chart import Chart, Course
from importer.disk.image import Image


class Inflate(Protocol):
    """Decodes one cluster."""

    def __call__(self, data: memoryview | bytearray, out: memoryview, /) -> int:
        """Decode what begins at `data` (other bytes may follow it) into `out`, and return how many bytes it held.

        Raises Failure("corrupt").
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How compressed clusters of an image are held."""

    holds: int
    """Bytes of the disk in one of them."""
    inflate: Inflate
    clipped: bool = False
    """True if only the cluster itself tells its length."""


def obstacle(image: Image) -> str:
    """Return why the native reader does not take this image, in words for the receipt; "" if it does."""
    if image.layout is None:
        return f"{image.format} is left to it"
    from importer.disk import qcow2_tables, vdi, vhdx, vmdk_tables  # here, not above: a raw disk needs none of them

    match image.layout:
        case qcow2_tables.Layout(extended=True):
            return "its L2 entries are extended"
        case qcow2_tables.Layout() | vmdk_tables.Layout() | vhdx.Layout() | vdi.Layout():
            return ""
    return f"{image.format} is left to it"


def packing(image: Image) -> Packing | None:
    """Return how the image's compressed clusters are decoded, None for a format that has none."""
    from importer.disk import inflate, qcow2_tables, vmdk_tables  # only images with tables pay for the libraries

    match image.layout:
        case qcow2_tables.Layout() as layout:
            return Packing(holds=layout.cluster, inflate=inflate.Zstd() if layout.zstd else inflate.deflated)
        case vmdk_tables.Layout(compressed=True) as layout:
            return Packing(holds=layout.grain, inflate=inflate.grain, clipped=True)
    return None


def course(image: Image, chart: Chart) -> Course | None:
    """Return the course through an image whose tables were walked, None if they had more runs than the chart kept.

    Raises Failure("corrupt") for runs that overlap.
    """
    if chart.overflowed:
        return None
    held = packing(image)
    return chart.course(clipped=held is not None and held.clipped)
