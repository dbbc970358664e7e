"""What a row promises, and whether it holds. Pure: promises are values, judging them is arithmetic."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from results import Entrant, Measured

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Faster:
    """The median wall of the fastest peer is at least this many times ours."""

    times: float
    than: str | None = None
    """A group of peers; None: all of the row."""

    def __str__(self) -> str:
        return f"{self.times:g} x {self.than or 'the best peer'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ties:
    """The median of paired ratios (the best peer's wall / ours, of one turn) is at least this."""

    least: float = 0.90
    pairs: int = 7

    def __str__(self) -> str:
        return f"{self.least:g} x the best peer, median of {self.pairs} pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class NearNetwork:
    """Our wall is at most this many times what a download to nowhere needs for the bytes that we fetched."""

    most: float = 1.08

    def __str__(self) -> str:
        return f"within {self.most:g} x network time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """All processes of an import together hold at most this many bytes."""

    most: int = 200 * MIB

    def __str__(self) -> str:
        return f"PSS at most {self.most // MIB} MiB"


Promise: TypeAlias = Faster | Ties | NearNetwork | Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a promise."""

    promise: str
    holds: bool | None
    """None: could not be judged, `measured` says why."""
    measured: str
    against: str = ""
    """The peer that was compared with."""

    @property
    def word(self) -> str:
        """holds, MISSES or not judged."""
        return {True: "holds", False: "MISSES", None: "not judged"}[self.holds]


def judge(promise: Promise, row: Measured) -> Verdict:
    """Return whether a promise holds; an import that failed, or made a wrong disk, holds none."""
    if any(entrant.error for entrant in row.entrants if entrant.kind == "ours"):
        return Verdict(promise=str(promise), holds=False, measured="failed")
    if row.ours is None:
        return Verdict(promise=str(promise), holds=None, measured="not run")
    if row.ours.identical is False:
        return Verdict(promise=str(promise), holds=False, measured="the disk differs")
    match promise:
        case Faster():
            return _faster(promise, row, row.ours)
        case Ties():
            return _ties(promise, row, row.ours)
        case NearNetwork():
            return _near_network(promise, row, row.ours)
        case Memory():
            measured = f"{row.ours.pss / MIB:.0f} MiB"
            return Verdict(promise=str(promise), holds=row.ours.pss <= promise.most, measured=measured)


def pairs(ours: Entrant, peer: Entrant) -> list[float]:
    """Return the peer's wall / ours for every turn that both ran."""
    return [theirs.wall / mine.wall for mine, theirs in zip(ours.runs, peer.runs, strict=False)]


def _faster(promise: Faster, row: Measured, ours: Entrant) -> Verdict:
    peer = row.best(promise.than)
    if peer is None:
        return Verdict(promise=str(promise), holds=None, measured="no such peer ran")
    ratio, turns = peer.wall / ours.wall, pairs(ours, peer)
    measured = f"{ratio:.2f} ({min(turns):.2f}–{max(turns):.2f})"
    return Verdict(promise=str(promise), holds=ratio >= promise.times, measured=measured, against=peer.label)


def _ties(promise: Ties, row: Measured, ours: Entrant) -> Verdict:
    peer = row.best()
    if peer is None:
        return Verdict(promise=str(promise), holds=None, measured="no such peer ran")
    turns = pairs(ours, peer)
    middle = statistics.median(turns)
    measured = f"{middle:.2f} ({min(turns):.2f}–{max(turns):.2f})"
    if len(turns) < promise.pairs:
        measured += f", {len(turns)} pairs only"
    holds = middle >= promise.least if len(turns) >= promise.pairs else None
    return Verdict(promise=str(promise), holds=holds, measured=measured, against=peer.label)


def _near_network(promise: NearNetwork, row: Measured, ours: Entrant) -> Verdict:
    plain = next(iter(row.of("network")), None)
    if plain is None or ours.fetched is None:
        return Verdict(promise=str(promise), holds=None, measured="no download to nowhere to compare with")
    network_time = ours.fetched / (row.length / plain.wall)
    ratio = ours.wall / network_time
    return Verdict(promise=str(promise), holds=ratio <= promise.most, measured=f"{ratio:.3f}", against=plain.label)


def turns_of(promises: Iterable[Promise]) -> int:
    """Return how often the competitors of a row take turns."""
    return max((promise.pairs for promise in promises if isinstance(promise, Ties)), default=3)


CONTENDS = 1.15
THREE = 3


def goes_on(entrant: Entrant, row: Measured, promises: Iterable[Promise]) -> bool:
    """Return whether a competitor takes part in the next turn. Sparing hopeless runs is what keeps the whole in half an hour.

    The fastest peer always stays. Until the third turn those stay too that are within 1.15 times of it, or of the fastest of a
    group that a promise names; where no promise compares with peers, nobody else does. Asides run once.
    """
    if entrant.kind in ("ours", "network") or not entrant.runs:
        return not entrant.error
    if entrant.kind == "aside" or entrant.error:
        return False
    best, compared = row.best(), [promise for promise in promises if isinstance(promise, (Faster, Ties))]
    if entrant is best:
        return True
    if best is None or not compared or len(entrant.runs) >= THREE:
        return False
    named = {promise.than for promise in compared if isinstance(promise, Faster) and promise.than}
    rivals = [best, *(rival for rival in (row.best(entrant.group),) if rival is not None and entrant.group in named)]
    return any(entrant.wall <= CONTENDS * rival.wall for rival in rivals)
