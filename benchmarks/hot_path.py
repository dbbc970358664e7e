"""Profile one import over loopback and print where its time goes, as markdown for README.md beside this file.

.venv/bin/python benchmarks/hot_path.py disk-zlib.qcow2 [--size small] [--perf] [-- --connections 8]

cProfile sees Python, in the event loop and in every worker thread, and slows it; what a call into C waits for or computes is time
of that call. perf (--perf) sees what cProfile cannot: decoders, checksums, copies, the kernel; its shares are CPU time.
"""

import argparse
import contextlib
import cProfile
import io
import os
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from types import FrameType

from images import SIZES, Images
from networks import loopback
from webserver import warm

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "bench"
TOP = 25


def main() -> int:
    """Profile, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", default="disk-zlib.qcow2", help="a file name of images.py, or disk.raw")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--perf", action="store_true", help="sample with perf instead")
    parser.add_argument("options", nargs="*", help="after --: further options of slipstream import")
    asked = parser.parse_args()
    images = Images(WORK / asked.size, SIZES[asked.size])
    path = images.path(asked.image)
    warm(path)
    with tempfile.TemporaryDirectory(dir=WORK) as folder, loopback(Path(folder) / "nginx", WORK) as server:
        argv = ["import", f"{server}/{asked.size}/{path.name}", f"{folder}/disk.img", "--quiet", *asked.options]
        print(f"`{path.name}`, {asked.size} size, {'perf' if asked.perf else 'cProfile'}\n")
        if asked.perf:
            return sampled(argv, Path(folder))
        return profiled(argv)


def profiled(argv: list[str]) -> int:
    """Run the import in this process under cProfile."""
    from slipstream.__main__ import main as slipstream

    workers: list[cProfile.Profile] = []

    def begin(_frame: FrameType, _event: str, _arg: object) -> None:
        workers.append(cProfile.Profile())
        workers[-1].enable()  # takes this thread over from the hook

    threading.setprofile(begin)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]
    loop = cProfile.Profile()
    status = loop.runcall(slipstream, argv)
    threading.setprofile(None)
    print_top("event loop", [loop])
    print_top(f"{len(workers)} worker threads, together", workers)
    return int(status or 0)


def print_top(title: str, profiles: list[cProfile.Profile]) -> None:
    """Print the calls with the most time of their own."""
    stats: pstats.Stats | None = None
    for profile in profiles:
        with contextlib.suppress(TypeError):  # a thread that did nothing
            stats = pstats.Stats(profile, stream=io.StringIO()) if stats is None else stats.add(profile)
    if stats is None:
        return
    print(f"| {title}: own s | with callees s | calls | what |\n| ---: | ---: | ---: | --- |")
    found = sorted(stats.stats.items(), key=lambda item: -item[1][2])  # type: ignore[attr-defined]
    for (file, line, function), (_, calls, own, whole, _) in found[:TOP]:
        print(f"| {own:.3f} | {whole:.3f} | {calls} | {where(file, line, function)} |")
    print()


def where(file: str, line: int, function: str) -> str:
    """Return a function's place without the machine's paths."""
    if file == "~":
        return f"`{function}`"
    short = re.sub(r"^.*/(?:site-packages|python3\.\d+)/", "", file.removeprefix(f"{ROOT}/"))
    return f"`{short}:{line} {function}`"


def sampled(argv: list[str], folder: Path) -> int:
    """Run the import under perf and print the symbols with the most CPU time."""
    if not shutil.which("perf"):
        print("perf is not installed (Debian: linux-perf)", file=sys.stderr)
        return 1
    data = str(folder / "perf.data")
    command = [
        "perf",
        "record",
        "-q",
        "-e",
        "cpu-clock",
        "-F",
        "997",
        "-o",
        data,
        "--",
        sys.executable,
        "-m",
        "slipstream",
        *argv,
    ]
    status = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    report = ["perf", "report", "-q", "-i", data, "--stdio", "--no-children", "--sort", "dso,symbol", "--field-separator", "\t"]
    found = subprocess.run(report, capture_output=True, text=True, errors="replace").stdout
    print("| share of CPU time % | library | symbol |\n| ---: | --- | --- |")
    for (library, symbol), share in sorted(shares(found).items(), key=lambda item: -item[1])[:TOP]:
        print(f"| {share:.1f} | {library} | `{symbol}` |")
    return status


def shares(report: str) -> dict[tuple[str, str], float]:
    """Return per cent by library and symbol; a library without symbols is one."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for line in report.splitlines():
        share, *names = (cell.strip() for cell in line.split("\t"))
        if len(names) < 2 or not share.endswith("%"):
            continue
        library, symbol = Path(names[0]).name, names[1]
        found[library, "(no symbols)" if "0x0000" in symbol else symbol] += float(share[:-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
