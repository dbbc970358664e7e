"""The native readers against qemu-img: any image that it makes becomes the same disk, over HTTP and from a file."""

import asyncio
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import images, lives, proof
from builders.lives import Life
from fakes.webserver import Nginx
from tools import needs, tree

from importer.api.report import Progress, Receipt
from importer.api.request import Access, ImportRequest
from importer.pipeline.run import run

QUICK, LONG = 18, 400
BASE = int(os.environ.get("SLIPSTREAM_TEST_SEED", "0"))
MAKERS = {"qcow2": lives.qcow2, "foreign": lives.foreign}


class Silent:
    def progress(self, moment: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def imported(source: str | Path, target: Path, *, connections: int = 4, digest: str | None = None) -> Receipt:
    """Import in this process, which spares its start: hundreds of small images are to be read."""
    request = ImportRequest(source=str(source), target=str(target), digest=digest, access=Access(connections=connections))
    return asyncio.run(asyncio.wait_for(run(request, Silent()), 60))


def right(life: Life, nginx: Nginx, landing: Path, seed: int) -> None:
    """Fail unless every way makes the disk that qemu-img sees, natively, and no larger on disk."""
    dice = random.Random(seed)
    served, way = nginx.folder / life.path.name, "native" if life.native else "convert"
    served.symlink_to(life.path)
    disk, limit = landing / "disk.img", proof.most_allocated(proof.allocated_by_qemu_img(life.path, life.kind, landing))
    sources: list[tuple[str | Path, Path, str]] = [(nginx.url(served.name), life.path, way), (life.path, life.path, way)]
    if seed % 3 == 0:
        wrapper = dice.choice(sorted(images.WRAPPERS))
        wrapped = images.wrap(life.path, wrapper, life.path.with_suffix(f".{wrapper}"))
        sources.append((wrapped, wrapped, "spill"))
    try:
        for source, path, expected in sources:
            digest = dice.choice([None, "sha256"])
            receipt = imported(source, disk, connections=dice.choice([1, 2, 4, 9]), digest=digest)
            proof.identical(disk, life.path, life.kind)
            assert receipt.route.startswith(expected), receipt.route
            assert proof.allocated(disk) <= limit
            assert receipt.bytes_spilled == (life.path.stat().st_size if expected == "spill" else 0)
            assert receipt.bytes_fetched <= 1.02 * path.stat().st_size + (4 << 20)
            if digest:
                assert receipt.digests["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            disk.unlink()
            assert tree(landing) == []
    except BaseException as error:
        error.add_note("\n".join(life.story))
        raise
    finally:
        served.unlink()


def lived(maker: Callable[[Path, int], Life], seed: int, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    needs("qemu-img", "qemu-io")
    folder = tmp_path / "making"
    folder.mkdir()
    right(maker(folder, seed), nginx, landing, seed)


@pytest.mark.parametrize("seed", range(BASE, BASE + QUICK))
@pytest.mark.parametrize("maker", MAKERS)
def test_an_image_with_a_past_becomes_its_disk(maker: str, seed: int, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    lived(MAKERS[maker], seed, nginx, landing, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(BASE + QUICK, BASE + LONG))
@pytest.mark.parametrize("maker", MAKERS)
def test_many_images_with_a_past_become_their_disks(maker: str, seed: int, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    lived(MAKERS[maker], seed, nginx, landing, tmp_path)
