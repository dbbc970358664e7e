"""LocalSource on real files."""

import os
import socket
from pathlib import Path

import pytest

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources.local import LocalSource
from importer.sources.protocol import Source
from importer.sources.schemes import open_source

DATA = bytes(range(256)) * (10 << 10) + b"tail"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a #1?%41 disk.img"
    path.write_bytes(DATA)
    return path


async def collect(source: Source, start: int, end: int | None) -> bytes:
    return b"".join([piece async for piece in source.fetch(start, end)])


async def code_of(source: str) -> str:
    with pytest.raises(Failure) as caught:
        await open_source(source, Access())
    return caught.value.code


@pytest.mark.parametrize("spelling", ["{}", "file://{}", "file://localhost{}", "file:{}"])
async def test_a_file_is_read_by_path_and_by_url(image: Path, spelling: str) -> None:
    path = str(image) if spelling == "{}" else str(image).replace("%", "%25")
    source = await open_source(spelling.format(path), Access())
    assert source.facts.length == len(DATA)
    assert source.facts.ranges
    assert source.facts.name == image.name
    assert set(source.facts.validators) == {"inode", "mtime", "size"}
    assert source.head == DATA[: 1 << 20]
    assert await collect(source, 0, None) == DATA
    assert await collect(source, 1000, 2_000_000) == DATA[1000:2_000_000]
    assert await collect(source, 7, 7) == b""
    await source.settle()
    await source.close()
    await source.close()


async def test_a_relative_path_with_a_colon_is_a_path(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(image.parent)
    image.rename("disk:1.img")
    source = await open_source("disk:1.img", Access())
    assert source.facts.length == len(DATA)
    await source.close()


async def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.close()
    for name in ("pipe", "socket", "."):
        assert await code_of(str(tmp_path / name)) == "not-a-disk"
    assert await code_of("/dev/null") == "not-a-disk"
    for missing in ("missing", "pipe/x", "x" * 300):
        assert await code_of(str(tmp_path / missing)) == "not-found"
    assert await code_of(str(tmp_path / "a\0b")) == "usage"
    assert await code_of("file://elsewhere/disk.img") == "usage"


async def test_a_file_that_may_not_be_read_is_a_matter_of_permission(image: Path) -> None:
    image.chmod(0)
    me = os.geteuid()
    if me == 0:  # root may read everything
        os.seteuid(65534)
    try:
        code = await code_of(str(image))
    finally:
        os.seteuid(me)
    assert code == "permission"


async def test_writing_meanwhile_is_noticed_even_with_the_time_set_back(image: Path) -> None:
    for change in ("write", "grow", "hidden"):
        image.write_bytes(DATA)
        source = await LocalSource.open(str(image))
        before = image.stat()
        with image.open("r+b") as file:
            file.seek(0, os.SEEK_END if change == "grow" else os.SEEK_SET)
            file.write(b"X")
        if change == "hidden":
            os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            os.utime(image)
        with pytest.raises(Failure) as caught:
            await source.settle()
        assert caught.value.code == "source-changed"
        await source.close()


async def test_replacing_the_path_meanwhile_does_no_harm(image: Path) -> None:
    source = await LocalSource.open(str(image))
    other = image.with_name("other")
    other.write_bytes(b"other")
    other.rename(image)
    assert await collect(source, 0, None) == DATA
    await source.settle()
    await source.close()


async def test_a_file_cut_meanwhile_ends_the_read(image: Path) -> None:
    source = await LocalSource.open(str(image))
    os.truncate(image, 100)
    with pytest.raises(Failure) as caught:
        await collect(source, 0, None)
    assert caught.value.code == "source-changed"
    await source.close()


class Memory:
    """A basin of one place."""

    def __init__(self, length: int) -> None:
        self.data = bytearray(length)
        self.got = 0

    def place(self, at: int) -> memoryview:
        return memoryview(self.data)[at:]

    def filled(self, at: int, count: int) -> None:
        assert at == self.got
        self.got = at + count


async def test_pouring_reads_straight_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(DATA)
    source = await LocalSource.open(str(path))
    basin = Memory(len(DATA))
    await source.pour(0, len(DATA) - 7, basin)
    assert basin.got == len(DATA) - 7
    assert basin.data == DATA[:-7] + bytes(7)
    os.truncate(path, 100)
    with pytest.raises(Failure) as caught:
        await source.pour(basin.got, len(DATA), basin)
    assert caught.value.code == "source-changed"
    await source.close()
