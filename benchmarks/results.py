"""What was measured, as values. Pure."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from measure import Run


@dataclass(kw_only=True)
class Entrant:
    """One competitor on one row: its runs, and what became of the last disk it wrote."""

    label: str
    kind: str
    """ours, peer, aside, or network (a download to nowhere)."""
    group: str = ""
    """What a promise calls it and its like."""
    runs: list[Run] = field(default_factory=list)
    allocated: int = 0
    identical: bool | None = None
    error: str = ""
    receipt: Mapping[str, object] = field(default_factory=dict)

    @property
    def wall(self) -> float:
        """Median seconds."""
        return statistics.median(run.wall for run in self.runs)

    @property
    def pss(self) -> int:
        """Most memory of any run, in bytes."""
        return max(run.pss for run in self.runs)

    @property
    def fetched(self) -> int | None:
        """Bytes, if a receipt tells."""
        found = self.receipt.get("bytes_fetched")
        return found if isinstance(found, int) else None

    def as_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return asdict(self) | {"median": round(self.wall, 3) if self.runs else None}


@dataclass(kw_only=True)
class Measured:
    """The competitors of one row, who ran in turns. Without entrants: it was skipped."""

    length: int = 0
    """Bytes of the image."""
    entrants: list[Entrant] = field(default_factory=list)
    skipped: str = ""
    """Why the row was not run."""

    def of(self, kind: str) -> list[Entrant]:
        """Return the entrants of a kind that ran at least once."""
        return [entrant for entrant in self.entrants if entrant.kind == kind and entrant.runs]

    @property
    def ours(self) -> Entrant | None:
        """Slipstream, if it ran."""
        return next(iter(self.of("ours")), None)

    def best(self, group: str | None = None) -> Entrant | None:
        """Return the fastest peer, of a group or of all."""
        peers = [peer for peer in self.of("peer") if group in (None, peer.group)]
        return min(peers, key=lambda peer: peer.wall, default=None)
