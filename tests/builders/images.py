"""Disk images as the real tools make them, and wrappers around them."""

import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools import tool

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One way to store a disk: the driver's name in qemu, and how qemu-img is told to make it."""

    driver: str
    options: tuple[str, ...] = ()
    compress: bool = False
    format: str = ""
    """What Slipstream calls it; the driver's name unless said otherwise."""

    @property
    def named(self) -> str:
        """The format in a receipt."""
        return self.format or {"vpc": "vhd"}.get(self.driver, self.driver)


KINDS: Mapping[str, Kind] = {
    "raw": Kind(driver="raw"),
    "qcow2": Kind(driver="qcow2"),
    "qcow2-v2": Kind(driver="qcow2", options=("compat=0.10",)),
    "qcow2-zlib": Kind(driver="qcow2", compress=True),
    "qcow2-zstd": Kind(driver="qcow2", options=("compression_type=zstd",), compress=True),
    "qcow2-extended": Kind(driver="qcow2", options=("extended_l2=on", "cluster_size=128k")),
    "qcow2-4k": Kind(driver="qcow2", options=("cluster_size=4k",)),
    "qcow2-2m": Kind(driver="qcow2", options=("cluster_size=2M",)),
    "vmdk": Kind(driver="vmdk", options=("subformat=monolithicSparse",)),
    "vmdk-stream": Kind(driver="vmdk", options=("subformat=streamOptimized",)),
    "vhd-fixed": Kind(driver="vpc", options=("subformat=fixed",)),
    "vhd-fixed-exact": Kind(driver="vpc", options=("subformat=fixed", "force_size=on")),
    "vhd-dynamic": Kind(driver="vpc", options=("subformat=dynamic",)),
    "vhdx": Kind(driver="vhdx"),
    "vhdx-fixed": Kind(driver="vhdx", options=("subformat=fixed",)),
    "vdi": Kind(driver="vdi"),
    "vdi-static": Kind(driver="vdi", options=("static=on",)),
}
USED: Mapping[str, Kind] = {
    "qcow2-used": Kind(driver="qcow2"),
    "vmdk-used": Kind(driver="vmdk", options=("subformat=monolithicSparse",)),
    "vhdx-used": Kind(driver="vhdx"),
    "vdi-used": Kind(driver="vdi"),
}
WRAPPERS: Mapping[str, tuple[str, ...]] = {
    "gzip": ("gzip", "-1", "-c"),
    "xz": ("xz", "-0", "-T2", "--block-size=1MiB", "-c"),
    "xz-one-block": ("xz", "-0", "-T1", "-c"),
    "zstd": ("zstd", "-1", "-q", "-c"),
    "zstd-threads": ("zstd", "-3", "-T2", "-q", "-c"),
}
FAMILY: Mapping[str, str] = {"gzip": "gzip", "xz": "xz", "xz-one-block": "xz", "zstd": "zstd", "zstd-threads": "zstd"}


def convert(raw: Path, kind: Kind, target: Path) -> Path:
    """Make an image of a raw disk with qemu-img."""
    if kind.driver == "raw":
        target.symlink_to(raw)
        return target
    options = ["-o", ",".join(kind.options)] if kind.options else []
    words = [tool("qemu-img"), "convert", "-f", "raw", "-O", kind.driver, *(["-c"] if kind.compress else []), *options]
    run([*words, raw, target])
    return target


def used_in_place(
    kind: Kind, target: Path, *, size: int = 64 * MIB, writes: int = 160, chunk: int = 64 * KIB, seed: int = 5
) -> Path:
    """Make an image as a virtual machine leaves it: written in random order, partly overwritten, zeroed and discarded."""
    chance = random.Random(seed)
    options = ["-o", ",".join(kind.options)] if kind.options else []
    run([tool("qemu-img"), "create", "-q", "-f", kind.driver, *options, target, str(size)])
    places = list(range(0, size - 2 * chunk, chunk))
    chance.shuffle(places)
    places = places[:writes]
    commands = [f"write -q -P {chance.randrange(1, 256)} {place} {chunk}" for place in places]
    for place in chance.sample(places, writes // 10):
        commands.append(f"write -q -P {chance.randrange(1, 256)} {place + 4096} {chance.choice((512, 4096, 20480, chunk))}")
    commands += [f"write -q -z {place} {chunk}" for place in places[: writes // 20]]
    commands += [f"discard -q {place} {chunk}" for place in places[writes // 20 : writes // 10]]
    _io(kind, target, commands)
    return target


def _io(kind: Kind, target: Path, commands: list[str]) -> None:
    # One process: each opening of a VHDX replays and rewrites its log.
    script = "\n".join([*commands, "flush", "quit"])
    done = subprocess.run(
        [tool("qemu-io"), "-f", kind.driver, "-d", "unmap", "-t", "writeback", target],
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stdout + done.stderr, done.stdout[-500:]


def wrap(image: Path, wrapper: str, target: Path) -> Path:
    """Compress a file with the real tool."""
    program, *options = WRAPPERS[wrapper]
    with image.open("rb") as source, target.open("wb") as sink:
        subprocess.run([tool(program), *options], stdin=source, stdout=sink, check=True, timeout=300)
    return target


def run(words: list[str | Path]) -> str:
    """Run a tool and return what it printed; its complaints are the test's failure."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout
