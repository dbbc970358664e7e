"""How a test knows that a disk is right: by qemu-img, never by code of ours."""

import json
import os
import subprocess
from pathlib import Path

from builders.images import MIB, Kind, run
from tools import tool


def identical(disk: Path, original: Path, kind: Kind) -> None:
    """Fail unless the guest of `disk` (raw) sees what the guest of `original` sees, and a disk of the same size."""
    words = [tool("qemu-img"), "compare", "-f", "raw", "-F", kind.driver, str(disk), str(original)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    assert disk.stat().st_size == virtual_size(original, kind), done.stdout


def virtual_size(image: Path, kind: Kind) -> int:
    """Return the guest's size in bytes, as qemu-img sees it."""
    told = json.loads(run([tool("qemu-img"), "info", "--output=json", "-f", kind.driver, image]))
    return int(told["virtual-size"])


def allocated(path: Path) -> int:
    """Return the bytes a file takes on its file system."""
    return path.stat().st_blocks * 512


def allocated_by_qemu_img(image: Path, kind: Kind, folder: Path) -> int:
    """Return what `qemu-img convert -O raw` of the same image allocates."""
    path = folder / f"{image.name}.by-qemu-img"
    run([tool("qemu-img"), "convert", "-f", kind.driver, "-O", "raw", image, path])
    with path.open("rb") as file:
        os.fsync(file.fileno())  # delayed allocation counts blocks only then
    try:
        return allocated(path)
    finally:
        path.unlink()


def most_allocated(by_qemu_img: int) -> int:
    """Return the bytes that the same disk may allocate here."""
    return int(by_qemu_img * 1.02) + MIB
