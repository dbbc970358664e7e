"""Results as values, as a table for people and as JSON for later comparison."""

import os
import platform
import re
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measure import Run

MIB = 1 << 20
TOOLS = {
    "qemu-img": "qemu-img --version",
    "curl": "curl --version",
    "nginx": "nginx -v",
    "pigz": "pigz --version",
    "igzip": "igzip --version",
    "zstd": "zstd --version",
    "xz": "xz --version",
    "python": "python3 --version",
}


@dataclass(kw_only=True)
class Entrant:
    """One competitor on one row: its runs, and what became of the last disk it wrote."""

    label: str
    kind: str
    """ours, peer or aside."""
    runs: list[Run] = field(default_factory=list)
    allocated: int = 0
    identical: bool | None = None
    error: str = ""
    receipt: dict[str, object] = field(default_factory=dict)

    @property
    def wall(self) -> float:
        """Median seconds."""
        return statistics.median(run.wall for run in self.runs)

    def as_json(self) -> dict[str, object]:
        return asdict(self) | {"median": round(self.wall, 3) if self.runs else None}


@dataclass(kw_only=True)
class Result:
    """One row: ours and everyone else, run in turns."""

    name: str
    must: float | None
    length: int
    entrants: list[Entrant]

    def of(self, kind: str) -> list[Entrant]:
        return [entrant for entrant in self.entrants if entrant.kind == kind and entrant.runs]

    @property
    def best(self) -> Entrant | None:
        """The fastest peer."""
        return min(self.of("peer"), key=lambda entrant: entrant.wall, default=None)

    def ratios(self) -> tuple[float, float, float] | None:
        """Return fastest peer over ours: of the medians, and the least and most of any one turn."""
        ours, best = self.of("ours"), self.best
        if not ours or best is None:
            return None
        turns = [theirs.wall / mine.wall for mine, theirs in zip(ours[0].runs, best.runs, strict=False)]
        return best.wall / ours[0].wall, min(turns), max(turns)

    @property
    def verdict(self) -> str:
        ratios = self.ratios()
        if ratios is None:
            return "not measured"
        if self.must is None:
            return "no promise"
        return f"holds {self.must}" if ratios[0] >= self.must else f"MISSES {self.must}"

    def as_json(self) -> dict[str, object]:
        ratios = self.ratios()
        return {
            "row": self.name,
            "must": self.must,
            "length": self.length,
            "ratio": [round(ratio, 3) for ratio in ratios] if ratios else None,
            "verdict": self.verdict,
            "entrants": [entrant.as_json() for entrant in self.entrants],
        }


HEAD = (
    "row",
    "who",
    "wall s",
    "min–max",
    "cpu s",
    "peak RSS",
    "all RSS",
    "fetched",
    "allocated",
    "same disk",
    "ratio (min–max)",
    "verdict",
)


def lines(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return the table's cells, header first; MiB for sizes."""
    table: list[tuple[str, ...]] = [HEAD]
    for result in results:
        for entrant in result.entrants:
            table.append(_line(result, entrant))
    return table


def _line(result: Result, entrant: Entrant) -> tuple[str, ...]:
    who = entrant.label + (" *" if entrant is result.best else "")
    if not entrant.runs:
        return (result.name, who, "failed", *[""] * 9)
    walls = [run.wall for run in entrant.runs]
    fetched = entrant.receipt.get("bytes_fetched")
    ratio = result.ratios() if entrant.kind == "ours" else None
    return (
        result.name,
        who,
        f"{entrant.wall:.2f}",
        f"{min(walls):.2f}–{max(walls):.2f}",
        f"{statistics.median(run.cpu for run in entrant.runs):.2f}",
        _mib(max(run.rss for run in entrant.runs)),
        _mib(max(run.tree for run in entrant.runs)),
        _mib(fetched) if isinstance(fetched, int) else "",
        _mib(entrant.allocated),
        {True: "yes", False: "DIFFERS", None: ""}[entrant.identical],
        f"{ratio[0]:.2f} ({ratio[1]:.2f}–{ratio[2]:.2f})" if ratio else "",
        result.verdict if entrant.kind == "ours" else entrant.kind,
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"


def text(results: Sequence[Result]) -> str:
    """Return the table for a terminal."""
    table = lines(results)
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)


def markdown(results: Sequence[Result], about: dict[str, object]) -> str:
    """Return docs/benchmarks.md."""
    head, *rows = lines(results)
    bars = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
    machine = "\n".join(f"- {key}: {value}" for key, value in about.items())
    return (
        "# Benchmarks\n\n"
        "Written by benchmarks/run.py --write-docs; benchmarks/README.md tells the method and what not to claim.\n"
        "Sizes in MiB; * marks the peer that counts, asides do not.\n\n" + "\n".join(bars) + f"\n\n{machine}\n"
    )


def machine() -> dict[str, object]:
    """Return what a reader needs to judge the figures; no host name, no path."""
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "memory_mib": int(memory[1]) // 1024 if memory else None,
        "kernel": platform.release(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "tools": {tool: _version(command) for tool, command in TOOLS.items()},
    }


def _version(command: str) -> str:
    try:
        done = subprocess.run(command.split(), capture_output=True, text=True, timeout=10)
    except OSError:
        return "absent"
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"
