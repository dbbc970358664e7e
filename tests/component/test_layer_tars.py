"""The disk in layers that real tar programs wrote."""

import subprocess
from pathlib import Path

import pytest
from tools import needs

from importer.api.failure import Failure
from importer.disk.tar import LayerScan
from machinery.values.tar import Member


def disk_in(data: bytes) -> Member | None:
    scan = LayerScan()
    for at in range(0, len(data), 1000):
        scan.feed(memoryview(data)[at : at + 1000])
    scan.end()
    return scan.disk


TOOLS = {
    "gnu": ["tar", "--format=gnu"], "posix": ["tar", "--format=posix"], "ustar": ["tar", "--format=ustar"],
    "oldgnu": ["tar", "--format=oldgnu"], "v7": ["tar", "--format=v7"], "owners": ["tar", "--owner=root", "--numeric-owner"],
    "bsdtar-pax": ["bsdtar", "--format=pax"], "bsdtar-gnu": ["bsdtar", "--format=gnutar"],
}  # fmt: skip


@pytest.mark.parametrize("variant", TOOLS)
def test_the_tars_of_real_tools(variant: str, tmp_path: Path):
    program = TOOLS[variant]
    needs(program[0])
    folder = tmp_path / "root"
    (folder / "disk").mkdir(parents=True)
    long = "" if variant in ("v7", "ustar") else "l" * 180
    (folder / "disk" / f"{long}a.img").write_bytes(b"D" * 5000)
    (folder / f"etc{long}").write_bytes(b"x")
    subprocess.run([*program, "-cf", tmp_path / "layer.tar", "-C", folder, "."], check=True, timeout=20)
    data = (tmp_path / "layer.tar").read_bytes()
    found = disk_in(data)
    assert found is not None
    assert found.name == f"disk/{long}a.img"
    assert data[found.offset : found.offset + found.size] == b"D" * 5000


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "gnu"])
def test_a_sparse_disk_is_refused_by_name(version: str, tmp_path: Path):
    needs("tar")
    (tmp_path / "disk").mkdir()
    with (tmp_path / "disk/a.img").open("wb") as file:
        for place in range(40):
            file.seek(place << 16)
            file.write(b"data")
        file.truncate(4 << 20)
    words = ["--format=gnu"] if version == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    subprocess.run(["tar", "-S", *words, "-cf", tmp_path / "layer.tar", "-C", tmp_path, "disk"], check=True, timeout=20)
    with pytest.raises(Failure, match="sparse member"):
        disk_in((tmp_path / "layer.tar").read_bytes())
    subprocess.run(
        ["tar", "-S", *words, "-cf", tmp_path / "other.tar", "--transform", "s,disk/,etc/,", "-C", tmp_path, "disk"],
        check=True, timeout=20,
    )  # fmt: skip
    assert disk_in((tmp_path / "other.tar").read_bytes()) is None  # a sparse file elsewhere is nobody's business
