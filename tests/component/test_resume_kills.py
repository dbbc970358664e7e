"""Imports that are killed at random instants, and servers that hang up: the same command ends with the same disk."""

import filecmp
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from builders import content
from builders.images import MIB
from command import Running, environment, importing
from fakes.badhttp import BadServer
from fakes.paced import STEP, Paced
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
    survive(kind, 2, options, image, disk, ordeal)


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--digest", "sha256")], ids=["plain", "digest"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_fifty_instants(
    kind: str, options: tuple[str, ...], image: Image, disk: Path, ordeal: Callable[..., Ordeal]
) -> None:
    one = survive(kind, 25, options, image, disk, ordeal)
    if kind in ("raw", "qcow2", "vhdx"):  # the others are few pieces, which all arrive together
        assert any(receipt["bytes_resumed"] for receipt in one.ends)


MOMENTS = ["the journal begins", "a record is added", "the disk is said to be whole", "the disk has its name"]


def moment(name: str, landing: Path) -> Callable[[], bool]:
    """Return what tells that an import is at one of the moments, by looking into its directory."""
    journal = landing / ".disk.img.slipstream-partial.journal"
    seen: set[int] = set()

    def grown() -> bool:
        with suppress(FileNotFoundError):
            seen.add(journal.stat().st_size)
        return len(seen) > 1

    def said() -> bool:
        try:
            return b'"finished"' in journal.read_bytes()
        except FileNotFoundError:
            return False

    return {
        MOMENTS[0]: lambda: Path(f"{journal}.new").exists(),
        MOMENTS[1]: grown,
        MOMENTS[2]: said,
        MOMENTS[3]: (landing / "disk.img").exists,
    }[name]


def aimed(kind: str, name: str, times: int, image: Image, disk: Path, ordeal: Callable[..., Ordeal]) -> Ordeal:
    data = served(image, kind, disk)
    with BadServer(Paced(data, rate=int(len(data) / (1.6 if name == MOMENTS[1] else 0.1)))) as server:
        one = ordeal(server)
        for _ in range(times):
            one.ends_when(when(moment(name, one.target.parent)))
        one.finish()
    return one


@pytest.mark.parametrize("name", MOMENTS)
def test_killed_at_a_moment(name: str, image: Image, disk: Path, ordeal: Callable[..., Ordeal]) -> None:
    aimed("qcow2-zstd", name, 3, image, disk, ordeal)


@pytest.mark.long
@pytest.mark.parametrize("name", MOMENTS)
@pytest.mark.parametrize("kind", ["raw", "qcow2", "raw.gz", "raw.xz"])
def test_killed_at_a_moment_again_and_again(
    kind: str, name: str, image: Image, disk: Path, ordeal: Callable[..., Ordeal]
) -> None:
    one = aimed(kind, name, 12, image, disk, ordeal)
    print(f"{kind}: {one.kills} of 12 kills when {name}")


PLACES = {
    "before the disk has its name": "target.Target._link",
    "before the hidden name is gone": "target.Target._remove",
    "before the journal is gone": "journal_file.JournalFile.remove",
}
KILLER = """
import os, signal, sys
from importer.disk import journal_file, target
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
publish = target.Target.publish
def published(self):
    {place} = die
    if "{place}".startswith("journal"):
        publish(self)
        die()
    publish(self)
target.Target.publish = published
from slipstream.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["qcow2-zstd", "raw.gz"])
def test_killed_while_publishing_the_same_command_ends_well(
    kind: str, place: str, image: Image, disk: Path, landing: Path
) -> None:
    target = landing / "disk.img"
    with BadServer(Paced(served(image, kind, disk), rate=1 << 30)) as server:
        words = [sys.executable, "-c", KILLER.format(place=PLACES[place]), "import", server.url(), str(target)]
        killed = subprocess.run(words, env=environment({}), capture_output=True, text=True, timeout=60)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(tree(landing)) > 1, "nothing was left to tidy up"
        whole = target.exists()
        assert whole == (place != next(iter(PLACES)))
        before = len(server.requests)
        outcome = importing(server.url(), target).succeeded()
        assert (len(server.requests) == before) == whole
    assert tree(landing) == ["disk.img"]
    assert any("was complete" in note for note in outcome.receipt["notes"]) == whole
    assert filecmp.cmp(target, disk, shallow=False)


def test_a_disk_that_was_used_since_is_no_import_of_ours(image: Image, landing: Path) -> None:
    target = landing / "disk.img"
    with BadServer(Paced(image("qcow2-zstd").read_bytes(), rate=1 << 30)) as server:
        words = [
            sys.executable,
            "-c",
            KILLER.format(place=PLACES["before the journal is gone"]),
            "import",
            server.url(),
            str(target),
        ]
        subprocess.run(words, env=environment({}), capture_output=True, timeout=60, check=False)
        assert len(tree(landing)) == 2
        with target.open("r+b") as used:
            used.write(b"a virtual machine was here")
        importing(server.url(), target).failed(73, "target-exists")
    assert tree(landing) == ["disk.img"]
    assert target.read_bytes().startswith(b"a virtual machine was here")


@pytest.mark.parametrize("kind", ["raw", "qcow2-zlib", "raw.frames"])
def test_connections_are_cut(kind: str, image: Image, disk: Path, landing: Path) -> None:
    cut_often(kind, 5, image, disk, landing)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_connections_are_cut_fifty_times(kind: str, image: Image, disk: Path, landing: Path) -> None:
    cut_often(kind, 50, image, disk, landing)


def cut_often(kind: str, times: int, image: Image, disk: Path, landing: Path) -> None:
    data = served(image, kind, disk)
    steps = len(data) / STEP
    paced = Paced(data, rate=int(len(data) / 0.5), cuts=min(0.5, 2 * times / steps), seed=times)
    target = landing / "disk.img"
    with BadServer(paced) as server:
        for _ in range(40):
            outcome = importing(server.url(), target)
            if outcome.exit == 0:
                assert filecmp.cmp(target, disk, shallow=False)
                assert tree(landing) == ["disk.img"]
                target.unlink()
            else:
                outcome.failed(75, "stalled", "overloaded", "unreachable", "reset")
            if outcome.exit == 0 and paced.cut >= times:
                break
    assert paced.cut >= times
    assert tree(landing) == []


@pytest.mark.parametrize(("size", "kills"), [(256, 3), pytest.param(1024, 12, marks=pytest.mark.long)])
def test_of_a_raw_disk_little_is_fetched_twice(size: int, kills: int, tmp_path: Path, landing: Path) -> None:
    """At most 1.05 times the image and 64 MiB a kill; half of the image a kill would come without a journal."""
    reference = content.sparse_disk(tmp_path / "large", size=size * MIB, data=size * MIB)
    chance, paced = random.Random(size), Paced(reference.read_bytes(), rate=size * MIB // 3)
    receipts: list[dict[str, object]] = []
    with BadServer(paced) as server:
        one = Ordeal(words=[server.url()], target=landing / "disk.img", reference=reference)
        while one.kills < kills:
            one.ends_when(lambda running: _timeout(running, STARTS + chance.uniform(0.8, 3)))
        one.finish()
        receipts = one.ends
    most = len(receipts) * size * MIB * 1.05 + one.kills * 64 * MIB
    print(f"{one.kills} kills, {len(receipts)} imports of {size} MiB: {paced.sent >> 20} MiB sent, at most {int(most) >> 20}")
    assert paced.sent <= most
    assert any(receipt["bytes_resumed"] for receipt in receipts)


def _timeout(running: Running, seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        running.process.wait(seconds)
