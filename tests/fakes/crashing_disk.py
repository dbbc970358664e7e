"""A directory that loses any part of what was not yet flushed, as a machine does whose power fails.

These stand in for the target and its journal while a real import runs, note every operation in order; `left_after` then says
what may be left after each of them: what was flushed is there, of the rest any part at all. Bytes are lost by operation;
names (make, rename, unlink) by operation too, each by itself.
"""

import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from importer.disk import journal
from importer.disk.journal import Finished, Hashed, Mark, Past

_SERIAL = itertools.count(1)
PARTIAL, JOURNAL, DISK = ".partial", ".journal", "disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One operation. `seals`: a flush of this file ("" for the directory), which makes all before it on that file last."""

    file: str
    do: "Callable[[State], None] | None" = None
    seals: bool = False


@dataclass
class State:
    """What is on the device: contents by file, and names that lead to files."""

    files: dict[str, bytearray] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def content(self, name: str) -> bytearray | None:
        return self.files.setdefault(self.names[name], bytearray()) if name in self.names else None


def left_after(steps: list[Step], keep: Callable[[int], bool], start: State) -> State:
    """Return what is left if the power fails after `steps`: flushed ones, and those of the others that `keep` says by number."""
    sealed: set[int] = set()
    for index, step in enumerate(steps):
        if step.seals:
            sealed |= {before for before in range(index) if steps[before].file == step.file}
    state = State(files={name: bytearray(data) for name, data in start.files.items()}, names=dict(start.names))
    for index, step in enumerate(steps):
        if step.do is not None and (index in sealed or keep(index)):
            step.do(state)
    return state


def loose(steps: list[Step]) -> list[int]:
    """Return the numbers of the operations that were not flushed."""
    last: dict[str, int] = {}
    for index, step in enumerate(steps):
        if step.seals:
            last[step.file] = index
    return [index for index, step in enumerate(steps) if step.do is not None and index > last.get(step.file, -1)]


class CrashingDisk:
    """A target for pipeline.ways and its journal: the calls of disk.target.Target and disk.journal_file.JournalFile."""

    def __init__(self, state: State) -> None:
        """Begin with what is left: a partial is made if there is none."""
        self.start = state
        self.steps: list[Step] = []
        self.now = State(files={name: bytearray(data) for name, data in state.files.items()}, names=dict(state.names))
        self.discarded = False
        self.fd = os.memfd_create("crashing")  # for facts only
        if PARTIAL not in self.now.names:
            self.make(PARTIAL)
        self.file = self.now.names[PARTIAL]

    # -- operations

    def note(self, file: str, do: Callable[[State], None]) -> None:
        do(self.now)
        self.steps.append(Step(file=file, do=do))

    def seal(self, file: str) -> None:
        self.steps.append(Step(file=file, seals=True))

    def make(self, name: str) -> str:
        inode = f"{name}#{next(_SERIAL)}"
        self._name(name, inode)
        return inode

    def _name(self, name: str, inode: str) -> None:
        def do(state: State) -> None:
            state.names[name] = inode
            state.files.setdefault(inode, bytearray())

        self.note("", do)

    def unname(self, name: str) -> None:
        self.note("", lambda state: state.names.pop(name, None) and None)

    def put(self, inode: str, offset: int, data: bytes) -> None:
        def do(state: State) -> None:
            content = state.files.setdefault(inode, bytearray())
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data

        self.note(inode, do)

    def _resize(self, size: int) -> None:
        inode = self.file

        def do(state: State) -> None:
            content = state.files.setdefault(inode, bytearray())
            del content[size:]
            content.extend(bytes(size - len(content)))

        self.note(inode, do)

    # -- the target

    path, directory, capacity, reads_zero = "/fake/disk", "/fake", None, True
    identity = "1:2"
    """Always the same: file systems give the number of a file that is gone to the next one."""

    @property
    def length(self) -> int:
        return len(self.now.files[self.file])

    def is_new(self) -> bool:
        return not self.length

    def content(self) -> bytes:
        return bytes(self.now.files[self.file])

    def journal(self) -> "CrashingJournal":
        return CrashingJournal(self)

    def prepare(self, *, span: int | None) -> list[str]:
        return []

    def allocated(self) -> int:
        return 0

    def free_space(self) -> int:
        return 1 << 40

    def reserve(self, asked: int | None) -> int:
        return 0

    def read(self, offset: int, size: int) -> bytes:
        return self.content()[offset : offset + size]

    def cut(self, size: int, written: int) -> None:
        self._resize(size)

    def empty(self) -> None:
        self._resize(0)

    def size_to(self, virtual_size: int, preallocate: object = None) -> None:
        self._resize(virtual_size)

    def write(self, offset: int, data: memoryview | bytes, /) -> None:
        self.put(self.file, offset, bytes(data))

    write_direct = write

    def punch(self, offset: int, size: int) -> None:
        size = min(size, len(self.content()) - offset)
        if size > 0:
            self.put(self.file, offset, bytes(size))

    def flush(self) -> None:
        self.seal(self.file)

    sync = flush

    def leave(self) -> None:
        """Nothing is held."""

    def discard(self) -> None:
        self.discarded = True

    def publish(self) -> None:
        self.seal(self.file)
        self._name(DISK, self.file)
        self.unname(PARTIAL)
        self.seal("")

    def end(self) -> None:
        os.close(self.fd)


class CrashingJournal:
    """The journal of a crashing disk: the calls of disk.journal_file.JournalFile."""

    def __init__(self, disk: CrashingDisk) -> None:
        self._disk = disk
        self._inode = ""

    def read(self) -> Past | None:
        content = self._disk.now.content(JOURNAL)
        return None if content is None else journal.replay(bytes(content))

    def begin(self, past: Past) -> None:
        fresh = f"{JOURNAL}.new"
        if fresh in self._disk.now.names:
            self._disk.unname(fresh)
        self._inode = self._disk.make(fresh)
        self._append(journal.whole(past))
        inode = self._inode

        def rename(state: State) -> None:
            if state.names.get(fresh) == inode:
                state.names[JOURNAL] = state.names.pop(fresh)

        self._disk.note("", rename)
        self._disk.seal("")

    def add(self, done: list[int], hashed: Hashed | None, mark: Mark | None) -> None:
        self._append(journal.record(done, hashed, mark))

    def finish(self, finished: Finished) -> None:
        self._append(journal.ending(finished))

    def _append(self, line: bytes) -> None:
        at = len(self._disk.now.files[self._inode])
        for step in range(0, len(line), 48):  # a line may be torn: each part of it is an operation
            self._disk.put(self._inode, at + step, line[step : step + 48])
        self._disk.seal(self._inode)

    def remove(self) -> None:
        for name in (JOURNAL, f"{JOURNAL}.new"):
            if name in self._disk.now.names:
                self._disk.unname(name)
        self._disk.seal("")

    def close(self) -> None:
        """Nothing is held by a journal."""


def kept(chosen: Iterable[int]) -> Callable[[int], bool]:
    """Return what says yes to the chosen numbers."""
    there = frozenset(chosen)
    return there.__contains__
