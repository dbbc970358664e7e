"""Measure `slipstream import` against curl and the usual tools, side by side: see README.md beside this file.

make bench      or      .venv/bin/python benchmarks/run.py [--size small] [--rows raw,qcow2] [--runs 1]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from images import NEEDED, SIZES, Images
from measure import Failed, measure
from rows import Row, chosen
from tables import Entrant, Result, machine, markdown, text
from webserver import nginx, warm

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"


class Arena:
    """Where the competitors run: one folder for downloads and disks, emptied before each run."""

    def __init__(self, folder: Path, options: list[str]) -> None:
        self.folder = folder
        self.options = options
        self.out, self.tmp, self.receipt = folder / "disk.img", folder / "download", folder / "receipt.json"
        self.env = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}

    def clear(self) -> None:
        """Remove what the last run left and let the disk come to rest."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        os.sync()

    def argv(self, script: str | None, url: str) -> list[str]:
        """Return a peer's command, or ours for None."""
        if script is not None:
            return ["bash", "-o", "pipefail", "-ec", script.format(url=url, tmp=self.tmp, out=self.out)]
        command = [sys.executable, "-m", "slipstream", "import", url, str(self.out)]
        return [*command, "--quiet", "--receipt", str(self.receipt), *self.options]

    def turn(self, entrant: Entrant, script: str | None, url: str, reference: Path, *, check: bool) -> None:
        """Let one competitor run once, and look at its disk."""
        self.clear()
        try:
            entrant.runs.append(measure(self.argv(script, url), env=self.env))
        except Failed as failure:
            entrant.error = str(failure)
            print(f"    {entrant.label}: {failure}", flush=True)
            return
        entrant.allocated = self.out.stat().st_blocks * 512
        if check and entrant.identical is not False:
            entrant.identical = same(reference, self.out)
        if self.receipt.exists():
            entrant.receipt = json.loads(self.receipt.read_text())
            for private in ("source", "target"):
                entrant.receipt.pop(private, None)
        print(f"    {entrant.runs[-1].wall:6.2f} s  {entrant.label}", flush=True)


def same(reference: Path, disk: Path) -> bool:
    """Return whether qemu-img finds two raw disks identical."""
    return subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", str(reference), str(disk)]).returncode == 0


def compete(row: Row, images: Images, arena: Arena, server: str, runs: int) -> Result:
    """Run every competitor of a row `runs` times, in turns."""
    path, reference = images.path(row.file), images.path("disk.raw")
    warm(path)
    scripts: dict[str, str | None] = {"slipstream": None, **row.peers, **row.asides}
    kinds = ["ours", *["peer"] * len(row.peers), *["aside"] * len(row.asides)]
    entrants = [Entrant(label=label, kind=kind) for label, kind in zip(scripts, kinds, strict=True)]
    if not shutil.which("igzip"):
        entrants = [entrant for entrant in entrants if "igzip" not in entrant.label]
    print(f"{row.name}: {path.stat().st_size >> 20} MiB", flush=True)
    for turn in range(runs):
        for entrant in entrants:
            check = entrant.kind == "ours" or turn == 0
            arena.turn(entrant, scripts[entrant.label], f"{server}/{row.file}", reference, check=check)
    arena.clear()
    return Result(name=row.name, must=row.must, length=path.stat().st_size, entrants=entrants)


def commit() -> str:
    """Return the commit, with a + if the tree holds changes."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout
    return (head or "none") + ("+" if changed else "")


def save(results: list[Result], about: dict[str, object]) -> Path:
    """Write the results beside the method."""
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{about['date']}-{about['commit']}.json"
    found = json.dumps({"about": about, "rows": [result.as_json() for result in results]}, indent=1)
    path.write_text(found.replace(str(ROOT), ".") + "\n")
    return path


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", choices=SIZES, default="full", help="full: 4 GiB disk with 1.4 GiB of data; small: 1 GiB with 256 MiB"
    )
    parser.add_argument("--rows", default="promised", help="promised (default), all, or names with commas")
    parser.add_argument("--runs", type=int, default=3, help="turns of each competitor; the median counts")
    parser.add_argument("--write-docs", action="store_true", help="write docs/benchmarks.md as well")
    parser.add_argument("--no-save", action="store_true", help="only print")
    parser.add_argument("--only-ours", action="store_true", help="no peers: for work on our own speed")
    parser.add_argument("options", nargs="*", help="after --: further options of slipstream import")
    return parser.parse_args()


def main() -> int:
    """Run the benchmark; 1 if any disk of ours differs from the original."""
    asked = arguments()
    missing = [tool for tool in (*NEEDED, "nginx", "curl", "pigz") if not shutil.which(tool)]
    if missing:
        print(f"missing: {', '.join(missing)}", file=sys.stderr)
        return 1
    about: dict[str, object] = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "size": asked.size, "runs": asked.runs}
    about |= {"options": asked.options} | machine()
    images = Images(WORK / asked.size, SIZES[asked.size])
    results = []
    with tempfile.TemporaryDirectory(dir=WORK) as folder, nginx(WORK / "nginx", images.folder) as server:
        arena = Arena(Path(folder) / "arena", asked.options)
        for row in chosen(asked.rows):
            if asked.only_ours:
                row = Row(name=row.name, file=row.file, must=row.must, peers={})
            results.append(compete(row, images, arena, server, asked.runs))
    print("\n" + text(results))
    print("\nsizes in MiB; * the peer that counts; asides do not count; walls end with fsync on both sides")
    if not asked.no_save:
        print(f"saved as {save(results, about).relative_to(ROOT)}")
    if asked.write_docs:
        (ROOT / "docs" / "benchmarks.md").write_text(markdown(results, about))
    return 1 if any(entrant.identical is False for result in results for entrant in result.of("ours")) else 0


if __name__ == "__main__":
    sys.exit(main())
