"""What is on the disks of the tests: a real file system, and bytes made from a seed."""

import random
import shutil
import subprocess
import sysconfig
from pathlib import Path

from tools import tool

MIB = 1 << 20


def file_system(path: Path, *, size: int = 64 * MIB, files: int = 10 * MIB, noise: int = 2 * MIB) -> Path:
    """Write an ext4 file system of `size` bytes with `files` bytes of Python's own library and `noise` incompressible ones.

    The same machine makes the same file system each time, save for time stamps of inodes.
    """
    folder = path.with_suffix(".tree")
    _fill(folder, files)
    (folder / "noise").write_bytes(random.Random(7).randbytes(noise))
    with path.open("wb") as image:
        image.truncate(size)
    subprocess.run(
        [tool("mkfs.ext4"), "-q", "-F", "-U", "6b1fa7ee-30a5-4d43-b9d4-1f8ac0ffee00", "-E", "root_owner=0:0", "-d", folder, path],
        check=True,
        capture_output=True,
        timeout=60,
    )
    shutil.rmtree(folder)
    return path


def _fill(folder: Path, size: int) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    copied = 0
    for source in sorted(library.rglob("*.py")):
        if "site-packages" in source.parts or copied > size:
            continue
        target = folder / source.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        copied += source.stat().st_size


def seeded(size: int, seed: int = 1) -> bytes:
    """Return incompressible bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def sparse_disk(path: Path, *, size: int, data: int, seed: int = 3, noise_each: int = 3) -> Path:
    """Write a raw disk of `size` bytes of which about `data` are data, in stretches of 4 MiB spread evenly.

    One stretch in `noise_each` does not compress, the rest is text-like. Cheap to make: few random bytes, many copies.
    """
    stretch = 4 * MIB
    noise = random.Random(seed).randbytes(stretch)
    text = (b"%08d the quick brown fox jumps over the lazy dog\n" * 1000) % tuple(range(1000))
    text = (text * (stretch // len(text) + 1))[:stretch]
    count = data // stretch
    with path.open("wb") as image:
        for index in range(count):
            image.seek(index * (size // count) // 4096 * 4096)
            turn = (index * 4096 * 7) % stretch
            # Turned round, no two stretches are alike for a decoder's window or for a wrong offset.
            block = noise if index % noise_each == 0 else text
            image.write(index.to_bytes(8, "big"))
            image.write((block[turn:] + block[:turn])[8:])
        image.truncate(size)
    return path
