"""Imports that are killed at random instants, and servers that hang up: the same command ends with the same disk."""

import filecmp
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from builders.images import MIB
from command import Running
from fakes.badhttp import BadServer
from fakes.paced import Paced
from tools import tool, tree

Image = Callable[..., Path]
KINDS = ["raw", "qcow2", "qcow2-zlib", "qcow2-zstd", "vmdk-stream", "vhdx", "raw.gz", "raw.xz", "raw.zst", "raw.frames"]
SECONDS = 2.4
"""How long an import takes: long enough for checkpoints, one a second."""
STARTS = 0.35
"""Seconds before which nothing of interest happens."""


@dataclass
class Ordeal:
    """One target, and a command that is killed and run again until it ends."""

    words: list[str | Path]
    target: Path
    reference: Path
    kills: int = 0
    ends: list[dict[str, object]] = field(default_factory=list)
    """Receipts."""

    def ends_when(self, stop: Callable[[Running], None]) -> None:
        """Run once; `stop` returns when it is to be killed, or when it ended."""
        receipt = self.target.parent.parent / "receipt.json"
        receipt.unlink(missing_ok=True)
        there = self.target.exists()
        with Running("import", *self.words, self.target, "--receipt", receipt) as running:
            stop(running)
            if running.process.poll() is None:
                running.process.send_signal(signal.SIGKILL if self.kills % 4 else signal.SIGTERM)
                self.kills += 1
            outcome = running.finish()
        if self.target.exists():
            assert filecmp.cmp(self.target, self.reference, shallow=False), outcome.said
        if outcome.exit == 0 or (there and outcome.exit == 73):  # 73: it was killed when nothing was left to do but to say so
            assert tree(self.target.parent) == [self.target.name], outcome.said
            if outcome.exit == 0:
                self.ends.append(json.loads(receipt.read_text()))
            self.target.unlink()
        else:
            assert outcome.exit in (-signal.SIGKILL, -signal.SIGTERM, 143, 75), outcome.said

    def finish(self) -> dict[str, object]:
        """Run it to its end."""
        if self.target.exists() and tree(self.target.parent) == [self.target.name]:
            self.target.unlink()
        self.ends_when(lambda running: running.process.wait(60) and None)
        if not self.ends or tree(self.target.parent):
            self.ends_when(lambda running: running.process.wait(60) and None)
        assert tree(self.target.parent) == []
        return self.ends[-1]


def after(chance: random.Random) -> Callable[[Running], None]:
    def stop(running: Running) -> None:
        try:
            running.process.wait(STARTS + chance.uniform(0, SECONDS))
        except subprocess.TimeoutExpired:
            return

    return stop


def when(there: Callable[[], bool]) -> Callable[[Running], None]:
    """Stop at the very moment when something is there."""

    def stop(running: Running) -> None:
        end = time.monotonic() + 30
        while running.process.poll() is None and not there():
            assert time.monotonic() < end, "it never came"

    return stop


def served(image: Image, kind: str, disk: Path) -> bytes:
    if not kind.startswith("raw"):
        return image(kind).read_bytes()
    match kind:
        case "raw":
            return disk.read_bytes()
        case "raw.frames":
            return frames(disk)
        case _:
            return image("raw", {"raw.gz": "gzip", "raw.xz": "xz", "raw.zst": "zstd"}[kind]).read_bytes()


def frames(disk: Path, size: int = 4 * MIB) -> bytes:
    """Compress each 4 MiB by themselves, as pzstd does."""
    data = disk.read_bytes()
    words = [tool("zstd"), "-1", "-q", "-c"]
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(subprocess.run(words, input=part, capture_output=True, check=True, timeout=60).stdout for part in parts)


@pytest.fixture
def ordeal(landing: Path, disk: Path) -> Iterator[Callable[..., Ordeal]]:
    def make(server: BadServer, *options: str) -> Ordeal:
        return Ordeal(words=[server.url(), *options], target=landing / "disk.img", reference=disk)

    return make


def survive(kind: str, kills: int, options: tuple[str, ...], image: Image, disk: Path, ordeal: Callable[..., Ordeal]) -> Ordeal:
    data, chance = served(image, kind, disk), random.Random(f"{kind} {kills} {options}")
    with BadServer(Paced(data, rate=int(len(data) / SECONDS))) as server:
        one = ordeal(server, *options)
        while one.kills < kills:
            one.ends_when(after(chance))
        one.finish()
    return one


SHORT = [("raw", ()), ("qcow2-zstd", ("--digest", "sha256")), ("raw.xz", ()), ("raw.frames", ())]


@pytest.mark.parametrize(("kind", "options"), SHORT, ids=[kind for kind, _ in SHORT])
def test_killed_a_few_times(kind: str, options: tuple[str, ...], image: Image, disk: Path, ordeal: Callable[..., Ordeal]) -> None:
    survive(kind, 3, options, image, disk, ordeal)


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--digest", "sha256")], ids=["plain", "digest"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_fifty_instants(
    kind: str, options: tuple[str, ...], image: Image, disk: Path, ordeal: Callable[..., Ordeal]
) -> None:
    one = survive(kind, 25, options, image, disk, ordeal)
    if kind in ("raw", "qcow2", "vhdx"):  # the others are few pieces, which all arrive together
        assert any(receipt["bytes_resumed"] for receipt in one.ends)
