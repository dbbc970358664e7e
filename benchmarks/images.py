"""The images that are imported: real file-system content in every format, built once and kept under build/bench."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from used_in_place import write_in_random_order

MIB = 1 << 20
BLOCK = 4096
NEEDED = ("mkfs.ext4", "qemu-img", "qemu-nbd", "gzip", "xz", "zstd")

# Levels are the tools' defaults: that is what published images are made with.
RECIPES: dict[str, str] = {
    "disk.qcow2": "qemu-img convert -f raw -O qcow2 {raw} {out}",
    "disk-zlib.qcow2": "qemu-img convert -m 4 -W -f raw -O qcow2 -c {raw} {out}",
    "disk-zstd.qcow2": "qemu-img convert -m 4 -W -f raw -O qcow2 -c -o compression_type=zstd {raw} {out}",
    "disk.raw.gz": "gzip -c {raw} > {out}",
    "disk.raw.zst": "zstd -q -T0 -c {raw} > {out}",
    "disk.raw.xz": "xz -T2 -c {raw} > {out}",
    "disk.vmdk": "qemu-img convert -f raw -O vmdk {raw} {out}",
    "disk-stream.vmdk": "qemu-img convert -f raw -O vmdk -o subformat=streamOptimized {raw} {out}",
    "disk.vhdx": "qemu-img convert -f raw -O vhdx {raw} {out}",
    "disk.vdi": "qemu-img convert -f raw -O vdi {raw} {out}",
    "disk.vhd": "qemu-img convert -f raw -O vpc -o force_size=on {raw} {out}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the disk is, in MiB: the guest's disk, the file-system data in it, and the disk of random bytes."""

    virtual: int
    data: int
    random: int


SIZES = {
    "full": Size(virtual=4096, data=1434, random=1024),
    "medium": Size(virtual=1024, data=450, random=1024),
    "small": Size(virtual=1024, data=256, random=256),
}


class Images:
    """The images of one size; each is built when it is first asked for."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder = folder
        self.size = size
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Return the path of an image of RECIPES, of disk.raw, random.raw or disk-used.qcow2, built if need be."""
        final = self.folder / name
        if final.exists():
            return final
        print(f"building {name} …", flush=True)
        part = self.folder / f".{name}.part"
        if name == "disk.raw":
            for stale in self.folder.glob("disk*"):
                stale.unlink()  # made from another file system
            self._file_system(part)
        elif name == "random.raw":
            self._random(part)
        elif name == "disk-used.qcow2":
            write_in_random_order(self.path("disk.raw"), part)
        else:
            _shell(RECIPES[name].format(raw=self.path("disk.raw"), out=part))
        part.rename(final)
        return final

    def _random(self, part: Path) -> None:
        """Write bytes that no compression and no zero detection makes less of."""
        with part.open("wb") as file:
            for _ in range(self.size.random):
                file.write(os.urandom(MIB))

    def _file_system(self, part: Path) -> None:
        """Make an ext4 file system that holds a deterministic part of this machine's /usr; nothing is mounted."""
        stage = self.folder / ".stage"
        shutil.rmtree(stage, ignore_errors=True)
        for index, (source, relative) in enumerate(_sample(self.size.data * MIB)):
            copy = stage / f"{index % 16:x}" / relative
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        _shell(f"truncate -s {self.size.virtual}M {part}")
        _shell(f"mkfs.ext4 -q -F -b {BLOCK} -d {stage} {part} {self.size.virtual}M")
        shutil.rmtree(stage)


def _sample(total: int) -> Iterator[tuple[Path, Path]]:
    """Yield files of /usr in an order that mixes kinds, again from the start if there are too few, until `total` bytes."""
    root = Path("/usr")
    found = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
    files = sorted((path for path in found if path.is_file() and not path.is_symlink()), key=_mixed)
    taken = turn = 0
    while True:
        for path in files:
            size = -(-path.stat().st_size // BLOCK) * BLOCK
            if size > total // 8:
                continue
            taken += size
            if taken > total:
                return
            yield path, Path(str(turn)) / path.relative_to(root)
        turn += 1


def _mixed(path: Path) -> bytes:
    return hashlib.sha256(os.fsencode(path)).digest()


def _shell(script: str) -> None:
    subprocess.run(["bash", "-o", "pipefail", "-ec", script], check=True)
