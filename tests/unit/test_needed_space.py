"""How much space an image's tables prove that its disk needs."""

import pytest

from importer.disk import vhd, vhdx
from importer.disk.extents import Extents
from importer.disk.image import Format, Image
from importer.pipeline.run import needed_at_least

MIB = 1 << 20


def image(block: int | None) -> Image:
    layout = vhdx.Layout(bat_offset=MIB, block=block, ratio=1, reserved=()) if block else None
    return Image(format=Format.VHDX, virtual_size=10 << 30, layout=layout)


def extents(data: int) -> Extents:
    found = Extents(length=1 << 40, unit=MIB)
    found.data_bytes = data
    return found


@pytest.mark.parametrize(("block", "needed"), [(None, 8 << 30), (MIB, 8 << 30), (2 * MIB, 4 << 30), (16 * MIB, 512 * MIB)])
def test_large_blocks_prove_no_more_than_a_mebibyte_each(block: int | None, needed: int) -> None:
    assert needed_at_least(extents(8 << 30), 10 << 30, image(block)) == needed


def test_vhd_and_vhdx_tell_their_block_by_the_same_name() -> None:
    assert all("block" in layout.__slots__ for layout in (vhd.Layout, vhdx.Layout))


def test_tables_that_map_all_of_the_disk_prove_nothing() -> None:
    assert needed_at_least(extents(10 << 30), 10 << 30, image(None)) == 0
    assert needed_at_least(None, 10 << 30, None) == 0
