"""Counts bytes and seconds while an import runs; makes Progress and Stage values of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from importer.api.report import Progress, Reporter, Stage

BEAT_SECONDS = 0.5


@dataclass(slots=True)
class Clock:
    """Seconds of one stage. Threads of a stage add to it without a lock: a lost tick does no harm."""

    busy: float = 0.0
    waiting: float = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time inside as work."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.busy += time.monotonic() - began

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Count the time inside as waiting."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.waiting += time.monotonic() - began


@dataclass(slots=True, kw_only=True)
class Meter:
    """The running figures of one import."""

    reporter: Reporter
    phase: str = "probing"
    fetched: int = 0
    resumed: int = 0
    """Bytes of the object that an earlier import brought."""
    fetch_total: int | None = None
    decoded: int = 0
    written: int = 0
    zeroes: int = 0
    spilled: int = 0
    retries: int = 0
    connections: int = 0
    most_connections: int = 0
    connections_reason: str = ""
    notes: list[str] = field(default_factory=list)
    clocks: dict[str, Clock] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _told: float = 0.0

    @property
    def seconds(self) -> float:
        """Since the import began."""
        return time.monotonic() - self.began

    def clock(self, name: str) -> Clock:
        """Return the clock of stage `name`."""
        return self.clocks.setdefault(name, Clock())

    def enter(self, phase: str) -> None:
        """Begin a phase and tell."""
        self.phase = phase
        self._tell()

    def tick(self) -> None:
        """Tell the reporter, at most five times a second. Called from the event loop."""
        if time.monotonic() - self._told >= 0.2:
            self._tell()

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Tick all the while: where nothing arrives a person needs to be told most."""
        beat = asyncio.create_task(self._beat(), name="beat")
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.wait([beat])

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.tick()

    def note(self, text: str) -> None:
        """Keep a sentence for the receipt and tell it at once; the same one only once."""
        if text not in self.notes:
            self.notes.append(text)
            self.reporter.note(text)

    def _tell(self) -> None:
        self._told = time.monotonic()
        self.reporter.progress(
            Progress(
                phase=self.phase,
                fetched=self.fetched,
                resumed=self.resumed,
                fetch_total=self.fetch_total,
                decoded=self.decoded,
                written=self.written,
                zeroes=self.zeroes,
                seconds=self.seconds,
                connections=self.connections,
                retries=self.retries,
            )
        )

    def stages(self) -> tuple[Stage, ...]:
        """Return what each stage cost, in the order in which they began."""
        return tuple(
            Stage(name=name, busy_seconds=round(clock.busy, 3), waiting_seconds=round(clock.waiting, 3))
            for name, clock in self.clocks.items()
        )

    def limiting(self) -> str:
        """Return the name of the stage that was least idle: the one to speed up first."""
        lanes = {"fetch": max(1, self.most_connections)}
        return max(self.clocks, key=lambda name: self.clocks[name].busy / lanes.get(name, 1), default="")


class Silent:
    """A reporter for what nobody listens to: a part of an import, an inspection."""

    def progress(self, moment: Progress) -> None:
        """Keep quiet."""

    def note(self, text: str) -> None:
        """Keep quiet."""
