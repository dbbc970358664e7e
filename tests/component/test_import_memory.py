"""Memory is bounded by design: at most 160 MiB for the importer's process, whatever the image."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import content, images, proof
from builders.images import KINDS, MIB
from command import Outcome, importing
from fakes.webserver import Nginx
from tools import tool, tree

LIMIT = 160 * MIB
GIB = 1024 * MIB


def lean(outcome: Outcome, landing: Path) -> None:
    """Fail unless the import stayed within its memory and left nothing but the disk."""
    outcome.succeeded()
    assert outcome.high_water <= LIMIT, f"{outcome.high_water / MIB:.0f} MiB resident"
    assert outcome.receipt["peak_rss"] <= LIMIT, f"the receipt says {outcome.receipt['peak_rss'] / MIB:.0f} MiB"
    assert abs(outcome.receipt["peak_rss"] - outcome.high_water) < 16 * MIB, "the receipt does not tell the importer's own memory"
    assert tree(landing) == ["disk.img"]


@pytest.fixture(scope="module")
def large(nginx: Nginx) -> Iterator[Path]:
    """A disk of 2 GiB with 512 MiB of data."""
    path = content.sparse_disk(nginx.folder / "large.raw", size=2 * GIB, data=512 * MIB)
    yield path
    path.unlink()


@pytest.mark.timeout(180)
def test_a_raw_disk(large: Path, nginx: Nginx, landing: Path) -> None:
    lean(importing(nginx.url(large.name), landing, timeout=120), landing)
    proof.identical(landing / "disk.img", large, KINDS["raw"])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["qcow2", "qcow2-zstd"])
def test_a_qcow2_image(name: str, large: Path, nginx: Nginx, landing: Path) -> None:
    served = images.convert(large, KINDS[name], nginx.folder / f"large.{name}")
    lean(importing(nginx.url(served.name), landing, timeout=120), landing)
    proof.identical(landing / "disk.img", large, KINDS["raw"])
    served.unlink()


@pytest.mark.timeout(180)
def test_a_zstd_stream(large: Path, nginx: Nginx, landing: Path) -> None:
    served = images.wrap(large, "zstd", nginx.folder / "large.zst")
    lean(importing(nginx.url(served.name), landing, timeout=120), landing)
    proof.identical(landing / "disk.img", large, KINDS["raw"])
    served.unlink()


WIDE = {
    "xz-24MiB-blocks": ("xz", "-0", "-T2", "--block-size=24MiB", "--lzma2=preset=0,dict=8MiB", "-c"),
    "zstd-8MiB-window": ("zstd", "-1", "--zstd=wlog=23", "-q", "-c"),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", WIDE)
def test_the_widest_window_that_is_promised(name: str, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    raw = content.sparse_disk(tmp_path / "raw", size=256 * MIB, data=96 * MIB, noise_each=8)
    served = nginx.folder / name
    program, *options = WIDE[name]
    with raw.open("rb") as source, served.open("wb") as sink:
        subprocess.run([tool(program), *options], stdin=source, stdout=sink, check=True, timeout=120)
    lean(importing(nginx.url(served.name), landing, timeout=120), landing)
    proof.identical(landing / "disk.img", raw, KINDS["raw"])
    served.unlink()


PROGRAMS = {
    "gzip": ("gzip", "-1", "-c"),
    "xz": ("xz", "-0", "-T2", "--block-size=24MiB", "-c"),
    "zstd": ("zstd", "-1", "-q", "-c"),
}

# Behind a wrapper every format takes the same way, the spill: a few stand for all.
LARGEST = [*((name, None) for name in KINDS), *itertools.product(("raw", "qcow2", "vmdk-stream"), PROGRAMS)]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "wrapper"), LARGEST)
def test_ten_gibibytes(name: str, wrapper: str | None, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    raw = content.sparse_disk(tmp_path / "raw", size=10 * GIB, data=2 * GIB)
    original = images.convert(raw, KINDS[name], tmp_path / "original")
    if original.resolve() != raw:
        raw.unlink()  # else these tests take 10 GiB of the machine's disk
    served = nginx.folder / "huge.served"
    if wrapper is None:
        os.link(original.resolve(), served)
    else:
        with original.open("rb") as source, served.open("wb") as sink:
            subprocess.run(
                [tool(PROGRAMS[wrapper][0]), *PROGRAMS[wrapper][1:]], stdin=source, stdout=sink, check=True, timeout=900
            )
    try:
        lean(importing(nginx.url(served.name), landing, timeout=900), landing)
        proof.identical(landing / "disk.img", original, KINDS[name])
    finally:
        served.unlink()
