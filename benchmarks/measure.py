"""One measured run of a command: wall, CPU, memory."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 900.0
EVERY = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run cost. Seconds and bytes."""

    wall: float
    cpu: float
    """User and system time of the command and all it started."""
    rss: int
    """Peak of the largest single process, sampled (ru_maxrss would begin with the memory of this very program)."""
    tree: int
    """Peak of the sum over all processes, sampled; shared pages count once a process."""


class Failed(Exception):
    """The command did not succeed."""


def measure(argv: Sequence[str], *, env: Mapping[str, str]) -> Run:
    """Run a command to its end. Raises Failed with the end of its output."""
    before = time.monotonic()
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    watch = _Watch(child.pid)
    killer = threading.Timer(TIMEOUT, child.kill)
    killer.start()
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    wall = time.monotonic() - before
    killer.cancel()
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stdout.close()
    watch.stop()
    if child.returncode:
        raise Failed(f"exit {child.returncode}: {output.decode(errors='replace')[-2000:]}")
    return Run(wall=wall, cpu=used.ru_utime + used.ru_stime, rss=watch.rss, tree=watch.tree)


class _Watch:
    """Samples the memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.rss = 0
        self.tree = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(EVERY):
            now = list(_memory(self._pid))
            self.tree = max(self.tree, sum(resident for resident, _ in now))
            self.rss = max(self.rss, *(peak for _, peak in now), 0)


def _memory(pid: int) -> Iterator[tuple[int, int]]:
    """Yield the resident bytes and their peak of a process and its descendants; nothing for what has just ended."""
    with suppress(OSError, TypeError):
        status = Path(f"/proc/{pid}/status").read_text()
        resident, peak = (re.search(rf"{key}:\s+(\d+) kB", status) for key in ("VmRSS", "VmHWM"))
        yield int(resident[1]) * 1024, int(peak[1]) * 1024  # type: ignore[index]
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _memory(int(child))
