"""Measure `slipstream import` against what a person would use instead, side by side: see README.md beside this file.

make bench      or      .venv/bin/python benchmarks/run.py [--suite lan] [--rows raw,qcow2] [--size small] [--runs 1]
"""

import argparse
import fcntl
import itertools
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from arena import Arena
from images import NEEDED, SIZES, Images
from machine import commit, machine
from networks import NETWORKS, Unavailable
from plot import svg
from results import Measured
from rows import Row, chosen
from tables import Outcome, entrant_table, page, promise_table, text

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="all", help=f"all (default), or with commas: {', '.join(NETWORKS)}")
    parser.add_argument("--rows", default="promised", help="promised (default), all, or names with commas: raw,lan/qcow2")
    parser.add_argument(
        "--size", choices=("full", "small"), default="full", help="4 GiB disk with 1.4 GiB of data; 1 GiB, 256 MiB"
    )
    parser.add_argument("--runs", type=int, help="turns of each row; else 3, and 7 where a tie is promised")
    parser.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.md as well")
    parser.add_argument("--no-save", action="store_true", help="only print")
    parser.add_argument("--only-ours", action="store_true", help="no peers: for work on our own speed")
    parser.add_argument("options", nargs="*", help="after --: further options of slipstream import")
    asked = parser.parse_args()
    asked.networks = list(NETWORKS) if asked.suite == "all" else asked.suite.split(",")
    if unknown := [name for name in asked.networks if name not in NETWORKS]:
        parser.error(f"no such network: {', '.join(unknown)}")
    try:
        asked.chosen = chosen(asked.networks, asked.rows)
    except KeyError as error:
        parser.error(f"no such row: {error}")
    return asked


def main() -> int:
    """Run the benchmark; 1 if an import failed or its disk differs from the original, 130 after a signal."""
    asked = arguments()
    if missing := [tool for tool in (*NEEDED, "nginx", "curl") if not shutil.which(tool)]:
        print(f"missing: {', '.join(missing)}", file=sys.stderr)
        return 1
    about: dict[str, object] = {"date": time.strftime("%Y-%m-%d"), "commit": commit(ROOT), "size": asked.size}
    about |= {"options": asked.options} | machine()
    began = time.monotonic()
    WORK.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with alone(), tempfile.TemporaryDirectory(dir=WORK) as folder:
            outcomes = list(measured(asked, Path(folder)))
    except BlockingIOError:
        print("another benchmark is running: both would be wrong", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was started is stopped and removed", file=sys.stderr)
        return 130
    about["minutes"] = round((time.monotonic() - began) / 60, 1)
    show(outcomes)
    if not asked.no_save:
        save(outcomes, about, docs=asked.write_docs)
    ours = [entrant for outcome in outcomes for entrant in outcome.measured.entrants if entrant.kind == "ours"]
    return 1 if any(entrant.error or entrant.identical is False for entrant in ours) else 0


@contextmanager
def alone() -> Iterator[None]:
    """Keep other benchmarks out. Raises BlockingIOError if one is running."""
    with (WORK / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def measured(asked: argparse.Namespace, folder: Path) -> Iterator[Outcome]:
    """Measure row after row; each network is there while its rows run."""
    arena = Arena(folder / "arena", asked.options)
    for name, group in itertools.groupby(asked.chosen, key=lambda row: row.network):
        rows = list(group)
        built = {row: Images(WORK / size, SIZES[size]) for row in rows for size in (_size(row, asked.size),)}
        for row, images in built.items():
            images.path(row.reference), images.path(row.file)  # before the network is: building takes minutes
        try:
            with NETWORKS[name](folder / "nginx", WORK) as server:
                for row, images in built.items():
                    turns = asked.runs or row.turns
                    url = f"{server}/{images.folder.name}"
                    yield Outcome(row=row, measured=arena.compete(row, images, url, turns=turns, peers=not asked.only_ours))
        except Unavailable as reason:
            print(f"{name}: skipped: {reason}", file=sys.stderr, flush=True)
            yield from (Outcome(row=row, measured=Measured(skipped=str(reason))) for row in rows)


def _size(row: Row, asked: str) -> str:
    return "medium" if row.medium and asked == "full" else asked


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def show(outcomes: Sequence[Outcome]) -> None:
    """Print both tables."""
    print("\n" + text(entrant_table(outcomes)))
    print("\nsizes in MiB; * the fastest peer; asides do not count; walls end with fsync on both sides\n")
    print(text(promise_table(outcomes)))


def save(outcomes: Sequence[Outcome], about: dict[str, object], *, docs: bool) -> None:
    """Write the results and their plot beside the method, and the page of the docs if asked."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{about['date']}-{about['commit']}.json"
    found = json.dumps({"about": about, "rows": [outcome.as_json() for outcome in outcomes]}, indent=1)
    path.write_text(found.replace(str(ROOT), ".") + "\n")
    caption = f"{about['date']}, commit {about['commit']}, {about['cores']} cores, {about['processor']}"
    plot = path.with_suffix(".svg")
    plot.write_text(svg(outcomes, caption))
    print(f"\nsaved as {path.relative_to(ROOT)} and .svg")
    if docs:
        (DOCS / "benchmarks.md").write_text(page(outcomes, about, f"../{plot.relative_to(ROOT)}"))


if __name__ == "__main__":
    sys.exit(main())
