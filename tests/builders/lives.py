"""Images with a past: made by qemu-img in any of its ways, then written, zeroed, discarded, compressed, grown and remembered.

Everything follows from a seed, so that the number of a failing image is enough to make it again.
"""

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from builders.images import KIB, MIB, Kind, run
from tools import tool

LARGEST = 24 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One image and what is known about it."""

    path: Path
    kind: Kind
    native: bool
    """True if the native reader is to take it."""
    story: tuple[str, ...]
    """Every command, for the message of a test that fails."""


class _Past:
    """Runs commands on one image and remembers them."""

    def __init__(self, folder: Path, seed: int, driver: str) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        self.driver = driver
        self.path = folder / f"{driver}-{seed}.image"
        self.size = 0
        self.story: list[str] = []
        self.patterns = self._make_patterns()

    def _make_patterns(self) -> list[Path]:
        """Write what clusters are filled with: one that packs well, one that does not, one of both with a hole."""
        noise = self.dice.randbytes(180 * KIB + 77)
        text = b"".join(b"%07d the quick brown fox\n" % number for number in range(9000))
        made = []
        for name, content in (("text", text), ("noise", noise), ("mixed", text[:50_000] + bytes(70_000) + noise[:90_000])):
            made.append(self.folder / name)
            made[-1].write_bytes(content)
        return made

    def qemu_img(self, *words: str | Path, refusable: bool = False) -> None:
        line = [tool("qemu-img"), *map(str, words)]
        self.story.append(" ".join(line))
        if refusable:
            subprocess.run(line, capture_output=True, timeout=120, check=False)
        else:
            run(line)

    def qemu_io(self, commands: list[str]) -> None:
        """Let a guest do these; qemu may refuse some, such as to compress over what is compressed, and goes on."""
        self.story.append("qemu-io: " + "; ".join(commands))
        done = subprocess.run(
            [tool("qemu-io"), "-f", self.driver, "-d", "unmap", "-t", "unsafe", self.path],
            input="\n".join([*commands, "flush", "quit"]),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode in (0, 1), done.stderr  # 1: something was refused

    def raw(self, size: int) -> Path:
        """Write a raw disk of stretches of data and holes, which ends anywhere."""
        path = self.folder / "raw"
        with path.open("wb") as file:
            for _ in range(self.dice.randrange(12)):
                file.seek(self.dice.randrange(max(1, size // 512)) * 512)
                content = self.dice.choice(self.patterns).read_bytes()
                file.write((content * 12)[: self.dice.randrange(1, 2 * MIB)])
            file.truncate(size)
        return path

    def place(self, unit: int = 512) -> tuple[int, int]:
        """Return offset and size of a request, seldom aligned to anything."""
        unit = min(unit, self.size)
        at = self.dice.randrange(self.size // unit) * unit
        size = self.dice.choice([512, 4096, 20_480, 65_536, 300_032, MIB, 2 * MIB + 512])
        return at, max(512, min(size, self.size - at) // 512 * 512)

    def write(self) -> str:
        at, size = self.place()
        return f"write -q -s {self.dice.choice(self.patterns)} {at} {size}"

    def zero(self) -> str:
        at, size = self.place()
        return f"write -q -z {self.dice.choice(['', '-u '])}{at} {size}"

    def discard(self) -> str:
        at, size = self.place()
        return f"discard -q {at} {size}"

    def compress(self, cluster: int) -> str:
        at, _ = self.place(cluster)
        return f"write -q -c -s {self.dice.choice(self.patterns)} {at} {min(cluster, self.size - at)}"

    def odd_size(self, most: int = LARGEST) -> int:
        """Return a size: seldom round."""
        size = self.dice.choice([512, 70_144, MIB, 5_000_192, self.dice.randrange(1, most // 512) * 512, most])
        return min(size, most)


def qcow2(folder: Path, seed: int) -> Life:
    """Return any qcow2 image that qemu-img can make."""
    past = _Past(folder, seed, "qcow2")
    dice = past.dice
    bits = dice.randint(9, 21)
    cluster, old = 1 << bits, dice.random() < 0.15
    extended = not old and bits >= 14 and dice.random() < 0.1
    options = [f"cluster_size={cluster}", f"compat={'0.10' if old else '1.1'}"]
    if not old:
        options += [f"compression_type={dice.choice(['zlib', 'zstd'])}", f"refcount_bits={dice.choice([1, 16, 16, 64])}"]
        options += ["extended_l2=on"] * extended
        options += ["lazy_refcounts=on"] * (dice.random() < 0.2)
    past.size = past.odd_size(4 * MIB if bits < 11 else LARGEST)
    if dice.random() < 0.5:
        packed = ["-c"] * (dice.random() < 0.6)
        disorder = ["-W", "-m", "16"] * (dice.random() < 0.4)
        made = ["convert", "-f", "raw", "-O", "qcow2", *packed, *disorder, "-o", ",".join(options)]
        past.qemu_img(*made, past.raw(past.size), past.path)
    else:
        options.append(f"preallocation={dice.choice(['off', 'off', 'metadata', 'falloc', 'full'])}")
        past.qemu_img("create", "-q", "-f", "qcow2", "-o", ",".join(options), past.path, str(past.size))
    acts = [past.write, past.write, past.write, past.zero, past.discard, lambda: past.compress(cluster)]
    for turn in range(dice.randrange(4)):
        past.qemu_io([dice.choice(acts)() for _ in range(dice.randint(1, 12))])
        _remember(past, turn)
    return Life(path=past.path, kind=Kind(driver="qcow2"), native=not extended, story=tuple(past.story))


def _remember(past: _Past, turn: int) -> None:
    """Take or leave a snapshot, or change the size of the disk."""
    match past.dice.randrange(6):
        case 0 | 1:
            past.qemu_img("snapshot", "-c", f"turn-{turn}", past.path, refusable=True)  # refcounts of 1 bit cannot
        case 2:
            past.qemu_img("snapshot", "-a", f"turn-{turn - 1}", past.path, refusable=True)
        case 3:
            past.qemu_img("snapshot", "-d", f"turn-{turn - 1}", past.path, refusable=True)
        case 4:
            size = past.size + past.dice.randrange(1, 9000) * 512
            past.qemu_img("resize", "-q", "-f", "qcow2", past.path, str(size), refusable=True)  # version 2 with snapshots cannot
        case 5:
            size = max(512, past.size - past.dice.randrange(1, 5000) * 512)
            past.qemu_img("resize", "-q", "-f", "qcow2", "--shrink", past.path, str(size), refusable=True)
    past.size = int(run([tool("qemu-img"), "info", "-f", "qcow2", past.path]).partition("(")[2].partition(" bytes")[0])


def foreign(folder: Path, seed: int) -> Life:
    """Return a VMDK, VHDX or VDI image."""
    dice = random.Random(-1 - seed)
    driver, options, lived = dice.choice(
        [
            ("vmdk", f"subformat=monolithicSparse,zeroed_grain={dice.choice(['on', 'off'])}", True),
            ("vmdk", "subformat=streamOptimized", False),
            ("vhdx", f"subformat=dynamic,block_size={1 << dice.randint(20, 24)}", True),
            ("vhdx", f"subformat=fixed,block_size={1 << dice.randint(20, 24)}", dice.random() < 0.5),
            ("vdi", "static=off", True),
            ("vdi", "static=on", dice.random() < 0.5),
        ]
    )
    past = _Past(folder, seed, driver)
    past.size = past.odd_size()
    made = ["convert", "-f", "raw", "-O", driver, *["-W"] * (lived and dice.random() < 0.3), "-o", options]
    past.qemu_img(*made, past.raw(past.size), past.path)
    past.size = int(run([tool("qemu-img"), "info", "-f", driver, past.path]).partition("(")[2].partition(" bytes")[0])
    acts = [past.write, past.write, past.zero, past.discard]
    for _ in range(dice.randrange(3) if lived else 0):
        past.qemu_io([dice.choice(acts)() for _ in range(dice.randint(1, 12))])
    return Life(path=past.path, kind=Kind(driver=driver), native=True, story=tuple(past.story))
