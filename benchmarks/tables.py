"""Results as tables for people, and as JSON for later comparison. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from promises import MIB, Verdict, judge
from results import Entrant, Measured
from rows import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A row and what was measured on it."""

    row: Row
    measured: Measured

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One for every promise."""
        return tuple(judge(promise, self.measured) for promise in self.row.all_promises)

    def as_json(self) -> dict[str, object]:
        """Return a JSON object."""
        return {
            "row": self.row.key,
            "file": self.row.file,
            "length": self.measured.length,
            "skipped": self.measured.skipped,
            "promises": [asdict(verdict) for verdict in self.verdicts],
            "entrants": [entrant.as_json() for entrant in self.measured.entrants],
        }


Table = list[tuple[str, ...]]
PROMISES = ("row", "promise", "verdict", "measured (min–max)", "against")
ENTRANTS = ("row", "who", "wall s", "min–max", "runs", "cpu s", "PSS", "fetched", "allocated", "same disk")


def promise_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a line for every promise, header first."""
    return [PROMISES, *(_verdict(outcome, verdict) for outcome in outcomes for verdict in outcome.verdicts)]


def _verdict(outcome: Outcome, verdict: Verdict) -> tuple[str, ...]:
    measured = verdict.measured if outcome.measured.entrants else outcome.measured.skipped
    return (outcome.row.key, verdict.promise, verdict.word, measured, verdict.against)


def entrant_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a line for every competitor, header first; MiB for sizes. * marks the fastest peer."""
    table: Table = [ENTRANTS]
    for outcome in outcomes:
        if not outcome.measured.entrants:
            table.append((outcome.row.key, f"skipped: {outcome.measured.skipped}", *[""] * (len(ENTRANTS) - 2)))
        for entrant in outcome.measured.entrants:
            table.append(_entrant(outcome, entrant))
    return table


def _entrant(outcome: Outcome, entrant: Entrant) -> tuple[str, ...]:
    mark = " *" if entrant is outcome.measured.best() else " (aside)" if entrant.kind == "aside" else ""
    if not entrant.runs:
        reason = entrant.error.splitlines()[0] if entrant.error else "not run"
        return (outcome.row.key, entrant.label, reason, *[""] * (len(ENTRANTS) - 3))
    walls = [run.wall for run in entrant.runs]
    return (
        outcome.row.key,
        entrant.label + mark,
        f"{entrant.wall:.2f}",
        f"{min(walls):.2f}–{max(walls):.2f}",
        str(len(walls)),
        f"{statistics.median(run.cpu for run in entrant.runs):.2f}",
        _mib(entrant.pss),
        "" if entrant.fetched is None else _mib(entrant.fetched),
        "" if entrant.kind == "network" else _mib(entrant.allocated),
        "FAILED later" if entrant.error else {True: "yes", False: "DIFFERS", None: ""}[entrant.identical],
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"


def text(table: Table) -> str:
    """Return a table for a terminal."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table)


def _bars(table: Table) -> str:
    head, *lines = table
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (head, ("---",) * len(head), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


PAGE = """# Benchmarks

Written by `benchmarks/run.py --write-docs`; [the method, and what not to claim](../benchmarks/README.md). Rows that lose are
shown like the others. Walls are medians in seconds and end with the fsync of the disk; sizes are MiB; PSS is the peak of all
processes together; `*` marks the fastest peer. Who cannot become the fastest of a row runs once.

![Walls beside those of the fastest peer]({plot})

## Promises

{promises}

## Everybody

{entrants}

## The machine

{machine}
"""


def page(outcomes: Sequence[Outcome], about: Mapping[str, object], plot: str) -> str:
    """Return docs/benchmarks.md; `plot` is the path from there."""
    machine = "\n".join(f"- {key}: {value}" for key, value in about.items())
    tables = {"promises": _bars(promise_table(outcomes)), "entrants": _bars(entrant_table(outcomes))}
    return PAGE.format(plot=plot, machine=machine, **tables)
