"""The power fails at every step of a recorded import and takes any part of what was not flushed: the disk is right in the end.

SIGKILL cannot show this, as it leaves the page cache alone. The whole pipeline runs, with small pieces, over a source in
memory and a disk that forgets (fakes.crashing_disk).
"""

import asyncio
import dataclasses
import hashlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from builders import images
from fakes.crashing_disk import DISK, JOURNAL, CrashingDisk, State, kept, left_after, loose
from fakes.memory_source import MemorySource
from tools import tool

from importer.api.failure import Failure
from importer.api.report import Progress, Receipt
from importer.api.request import Access, Checksum, ImportRequest
from importer.disk import journal, landing
from importer.pipeline import checkpoint, movers, opening, run, shelf, unpack, ways
from importer.pipeline.patience import Policy

SMALL = 16 << 10
KINDS = ["raw", "qcow2", "qcow2-zlib", "vmdk-stream", "gzip", "members", "frames", "xz"]
QUICK = Policy(first_delay=0.0001, longest_delay=0.001)


class Notes:
    """A reporter."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def progress(self, moment: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pieces, buffers and checkpoints be small, so that a small image has many of each."""
    assert ways
    assert unpack
    for name, module in list(sys.modules.items()):
        if name.startswith("importer.pipeline.") and getattr(module, "PIECE", None) == shelf.PIECE and module is not shelf:
            monkeypatch.setattr(module, "PIECE", SMALL)
    monkeypatch.setattr(shelf, "PIECE", SMALL)
    monkeypatch.setattr(movers, "BUFFER", SMALL)
    monkeypatch.setattr(checkpoint, "EVERY_BYTES", 3 * SMALL)


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of 1 MiB: noise, text and holes."""
    chance = random.Random(4)
    parts = [chance.randbytes(SMALL), b"text %d " % 7 * 3000, bytes(40_000), bytes(4096)]
    data = b"".join(chance.choice(parts)[: chance.randrange(1, 30_000)] for _ in range(120))[: 1 << 20]
    path = tmp_path_factory.mktemp("power") / "disk"
    path.write_bytes(data + bytes((1 << 20) - len(data)))
    return path


def stored(kind: str, original: Path, folder: Path) -> bytes:
    """Return the object that holds the disk."""
    data = original.read_bytes()
    match kind:
        case "raw":
            return data
        case "gzip":
            return packed(["gzip", "-1", "-c"], data)
        case "members" | "frames":
            words = ["gzip", "-1", "-c"] if kind == "members" else ["zstd", "-1", "-q", "-c"]
            return b"".join(packed(words, data[at : at + 50_000]) for at in range(0, len(data), 50_000))
        case "xz":
            return packed(["xz", "-0", "--block-size=50000", "-c"], data)
        case _:
            return images.convert(original, images.KINDS[kind], folder / kind).read_bytes()


def packed(words: list[str], data: bytes) -> bytes:
    return subprocess.run([tool(words[0]), *words[1:]], input=data, capture_output=True, check=True, timeout=30).stdout


class World:
    """One object, imported again and again onto what the last power failure left."""

    def __init__(self, data: bytes, original: bytes, digest: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.original = original
        self.notes: list[str] = []
        self._data = data
        self._digest = digest
        self._monkeypatch = monkeypatch
        self.resumed = 0

    def imported(self, start: State, lies: bytes | None = None) -> CrashingDisk:
        """Import to the end; return the disk with all that was done to it. `lies`: what the source holds now."""
        disk, source, reporter = CrashingDisk(start), MemorySource(lies or self._data, chunk=SMALL), Notes()
        self.latest = disk
        source.facts = dataclasses.replace(source.facts, validators={"etag": '"1"'})

        async def opened(*_: object, **__: object) -> MemorySource:
            return source

        self._monkeypatch.setattr(landing, "open_landing", lambda path, force: disk)
        self._monkeypatch.setattr(landing, "check", lambda path, force: None)
        self._monkeypatch.setattr(opening, "open_source", opened)
        promise = Checksum(algorithm="sha256", hex=hashlib.sha256(self._data).hexdigest()) if self._digest else None
        request = ImportRequest(source="memory:", target="/fake/disk", checksum=promise, access=Access(connections=2))
        try:
            receipt = asyncio.run(asyncio.wait_for(run.run(request, reporter, QUICK), 30))
        finally:
            disk.end()

        self.notes += reporter.notes
        self._judge(disk, receipt)
        return disk

    def _judge(self, disk: CrashingDisk, receipt: Receipt) -> None:
        assert disk.now.content(DISK) == self.original, (receipt.notes, receipt.route)
        assert set(disk.now.names) == {DISK}
        if self._digest:
            assert receipt.digests == {self._digest: hashlib.new(self._digest, self._data).hexdigest()}
        self.resumed += receipt.bytes_resumed

    def fails(self, disk: CrashingDisk, at: int, keep: Callable[[int], bool]) -> State | None:
        """Return what a failure after `at` steps leaves, None if that is the whole disk."""
        state = left_after(disk.steps[:at], keep, disk.start)
        there = state.content(DISK)
        if there is None:
            return state
        assert there == self.original, "a disk that is not whole is there under its name"
        return None


def subsets(steps: list[int], chance: random.Random, most: int) -> Iterator[frozenset[int]]:
    """Yield none, all, some at random, and each single one (at most so many) of the numbers."""
    yield frozenset()
    yield frozenset(steps)
    for _ in range(2):
        yield frozenset(step for step in steps if chance.random() < 0.5)
    singles = steps if len(steps) <= most else chance.sample(steps, most)
    for step in singles:
        yield frozenset([step])
        yield frozenset(steps) - {step}


def prove(world: World, chance: random.Random, *, every: int, singles: int) -> int:
    """Let the power fail at one step in `every`, and once more in the middle of what comes then; return how often it did."""
    first, failures = world.imported(State()), 0
    for at in range(chance.randrange(every), len(first.steps) + 1, every):
        for keep in subsets(loose(first.steps[:at]), chance, singles):
            state = world.fails(first, at, kept(keep))
            failures += 1
            if state is None:
                continue
            second = world.imported(state)
            again = chance.randrange(len(second.steps) + 1)
            state = world.fails(second, again, lambda _step: chance.random() < 0.5)
            failures += 1
            if state is not None:
                world.imported(state)
    return failures


@pytest.mark.parametrize("digest", [None, "sha256"], ids=["plain", "digest"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_power_fails_now_and_then(
    kind: str, digest: str | None, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(stored(kind, original, tmp_path), original.read_bytes(), digest, monkeypatch)
    assert prove(world, random.Random(kind), every=25, singles=0) > 10


@pytest.mark.long
@pytest.mark.parametrize("digest", [None, "sha256"], ids=["plain", "digest"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_power_fails_at_every_step(
    kind: str, digest: str | None, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(stored(kind, original, tmp_path), original.read_bytes(), digest, monkeypatch)
    failures = prove(world, random.Random(kind), every=1, singles=3)
    print(f"{kind} {digest}: {failures} power failures, {world.resumed} bytes resumed")
    assert (world.resumed > 0) == (kind != "gzip" and not (digest and kind in ("members", "frames")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_cannot_show_one_thing_to_the_digest_and_another_to_the_disk(
    kind: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after an interruption bytes are others, under the same ETag: it is noticed, or the disk is right."""
    data, chance = stored(kind, original, tmp_path), random.Random(kind)
    world, ended = World(data, original.read_bytes(), "sha256", monkeypatch), 0
    for at in range(5, 400, 12):
        place = chance.randrange(64 << 10, len(data))
        with noticed():
            world.imported(State(), turned(data, place) if at % 24 == 5 else None)
        first = world.latest
        state = left_after(first.steps[: min(at, len(first.steps))], lambda _step: True, first.start)
        if DISK in state.names:
            continue
        told = state.content(JOURNAL)
        past = journal.replay(bytes(told)) if told else None
        if past is not None and past.hashed is not None and chance.random() < 0.7:  # just before where it goes on
            place = min(len(data), max(70 << 10, past.hashed.units * SMALL)) - chance.randrange(1, 3000)
        with noticed():
            world.imported(state, turned(data, place) if at % 24 != 5 else None)
            ended += 1
    assert ended or kind in ("gzip", "members", "frames"), "the lie was always seen: nothing was resumed"


def turned(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


@contextmanager
def noticed() -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        if failure.entry.exit != 65:
            raise
