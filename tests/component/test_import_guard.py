"""What makes an import fast, counted and never timed: bytes fetched once, no scratch, a bounded shelf, ranges in flight."""

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from builders import content, images, proof
from builders.images import KINDS, MIB, USED, Kind
from fakes import behaviours as bad
from fakes.badhttp import BadServer, Behaviour, Request, Wire
from tools import tree

from importer.api.report import Progress, Receipt
from importer.api.request import Access, ImportRequest
from importer.pipeline import shelf, transfer
from importer.pipeline.run import run

SIZE, DATA = 160 * MIB, 64 * MIB
CONNECTIONS = 4
DISKS: dict[str, tuple[Kind, float]] = {
    "raw": (KINDS["raw"], 1.02),
    "qcow2": (KINDS["qcow2"], 1.02),
    "qcow2-zlib": (KINDS["qcow2-zlib"], 1.02),
    "qcow2-zstd": (KINDS["qcow2-zstd"], 1.02),
    "vmdk-stream": (KINDS["vmdk-stream"], 1.02),
    "vhdx": (KINDS["vhdx"], 1.02),
    "qcow2-used": (USED["qcow2-used"], 1.1),
}
"""What is imported, and the most bytes that may be fetched, in multiples of the object."""


@dataclass
class Counts:
    """What the server saw, while an import ran."""

    sent: int = 0
    now: int = 0
    most_in_flight: int = 0
    scratch: set[str] = field(default_factory=set)
    """Files that this process had open for writing and were no target."""


class Silent:
    def progress(self, moment: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def counting(data: memoryview, counts: Counts, landing: Path) -> Behaviour:
    """Serve ranges, count bytes and requests under way, and look for scratch files."""

    async def behave(request: Request, wire: Wire) -> None:
        start, end = bad.span_of(request, len(data)) or (0, len(data))
        counts.now += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.now)
        counts.scratch |= scratch_of(landing)
        headers = [("ETag", '"1"'), ("Content-Range", f"bytes {start}-{end - 1}/{len(data)}"), ("Content-Length", end - start)]
        try:
            await wire.head(206, headers)
            for at in range(start, end, 1 << 18):
                await wire.send(data[at : min(end, at + (1 << 18))])
                counts.sent += min(end, at + (1 << 18)) - at
                await asyncio.sleep(0)  # others have their turn, so that ranges run side by side as over a network
        finally:
            counts.now -= 1

    return behave


def scratch_of(landing: Path) -> set[str]:
    """Return files without a name that this process holds, and files beside the partial target: what a spill would be."""
    found = {name for name in tree(landing) if not name.startswith(".")}
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            place = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if place.endswith("(deleted)") and str(landing) in place:
            found.add(place)
    return found


class CountedShelf(shelf.Shelf):
    """A shelf that remembers how many buffers were ever taken, and of how many pieces at once."""

    buffers: int = 0
    fullest: int = 0

    def reserve(self, index: int) -> shelf.Piece:
        CountedShelf.buffers += not self._spare
        piece = super().reserve(index)
        CountedShelf.fullest = max(CountedShelf.fullest, len(self.pieces))
        return piece


@pytest.fixture
def counted_shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[CountedShelf]]:
    CountedShelf.buffers = CountedShelf.fullest = 0
    monkeypatch.setattr("importer.pipeline.in_order.Shelf", CountedShelf)
    monkeypatch.setattr("importer.pipeline.window.Shelf", CountedShelf)
    return CountedShelf


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make (once) and return an image of 40 MiB of data, none of it compressible to nothing."""
    folder = tmp_path_factory.mktemp("guarded")

    def make(name: str) -> Path:
        path = folder / name
        if path.exists():
            return path
        raw = folder / "raw-disk"
        if not raw.exists():
            content.sparse_disk(raw, size=SIZE, data=DATA, noise_each=1)
        if name in USED:
            return images.used_in_place(USED[name], path, size=256 * MIB, writes=100, chunk=MIB // 2)
        return images.convert(raw, KINDS[name], path)

    return make


@pytest.mark.parametrize("digest", [None, "sha256"])
@pytest.mark.parametrize("name", DISKS)
def test_an_import_keeps_its_bounds(
    name: str, digest: str | None, made: Callable[[str], Path], counted_shelf: type[CountedShelf], landing: Path
) -> None:
    kind, most = DISKS[name]
    path, counts = made(name), Counts()
    data = memoryview(path.read_bytes())
    with BadServer(counting(data, counts, landing)) as server:
        request = ImportRequest(
            source=server.url(), target=str(landing / "disk.img"), digest=digest, access=Access(connections=CONNECTIONS)
        )
        receipt: Receipt = asyncio.run(asyncio.wait_for(run(request, Silent()), 60))
    proof.identical(landing / "disk.img", path, kind)
    assert receipt.route.startswith("copy" if name == "raw" else "native"), receipt.route
    # Fetched once: as the server counts, as the receipt tells.
    assert counts.sent <= most * len(data)
    assert receipt.bytes_fetched <= most * len(data)
    # No scratch.
    assert receipt.bytes_spilled == 0
    assert counts.scratch == set()
    assert tree(landing) == ["disk.img"]
    # A bounded shelf, and nothing that grows with the object.
    assert 0 < counted_shelf.fullest <= transfer.CAPACITY < len(data) / shelf.PIECE
    assert counted_shelf.buffers <= transfer.CAPACITY
    # Ranges side by side, and no more connections than were allowed.
    assert 2 <= counts.most_in_flight <= CONNECTIONS
    assert server.connections <= CONNECTIONS + 1
