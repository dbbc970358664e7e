"""One measured run of a command: wall, CPU, memory. Whatever interrupts it ends the command and all it started."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 300.0
GRACE = 20.0
EVERY = 0.05
KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run cost. Seconds and bytes."""

    wall: float
    cpu: float
    """User and system time of the command and all it started."""
    pss: int
    """Peak of the sum over all its processes, sampled: what they share counts once."""


class Failed(Exception):
    """The command did not succeed."""


def measure(argv: Sequence[str], *, env: Mapping[str, str]) -> Run:
    """Run a command to its end. Raises Failed with the end of its output."""
    before = time.monotonic()
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, start_new_session=True
    )
    watch = _Watch(child.pid)
    killer = threading.Timer(TIMEOUT, _signal, (child.pid, signal.SIGTERM))
    killer.start()
    assert child.stdout is not None
    try:
        output = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - before
    finally:
        killer.cancel()
        watch.stop()
        _end(child)
        child.stdout.close()
    if child.returncode:
        raise Failed(f"exit {child.returncode}: {output.decode(errors='replace')[-2000:]}")
    return Run(wall=wall, cpu=used.ru_utime + used.ru_stime, pss=watch.peak)


def _end(child: subprocess.Popen[bytes]) -> None:
    """See to it that nothing of the command's session is left: asked first, then killed."""
    if child.returncode is None:
        _signal(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE)
    _signal(child.pid, signal.SIGKILL)
    if child.returncode is None:
        child.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


class _Watch:
    """Samples the memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(EVERY):
            self.peak = max(self.peak, sum(_memory(self._pid)))


def _memory(pid: int) -> Iterator[int]:
    """Yield the proportional set size of a process and of each descendant; nothing for what has just ended."""
    with suppress(OSError):
        yield _proportional(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _memory(int(child))


def _proportional(pid: int) -> int:
    """Return bytes; the resident set, which is more, of a process whose maps are not for us to see."""
    try:
        return kibibytes("Pss", Path(f"/proc/{pid}/smaps_rollup").read_text())
    except PermissionError:
        return kibibytes("VmRSS", Path(f"/proc/{pid}/status").read_text())


def kibibytes(key: str, text: str) -> int:
    """Return a value of smaps_rollup or status in bytes; 0 where it is not told (a process that is ending)."""
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * KIB if found else 0
