"""Runs the `slipstream` command the way a person does, and keeps what it said."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ftp_proxy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one command."""

    exit: int
    out: str
    err: str
    seconds: float
    high_water: int
    """Most resident memory of the process, bytes (VmHWM: ru_maxrss would count the parent that forked it)."""
    receipt: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str | None:
        """The code of the error that was printed, None if there was none."""
        found = re.search(r"error\[([a-z0-9-]+)\]", self.err)
        return found[1] if found else None

    @property
    def said(self) -> str:
        """Everything printed, for assertion messages."""
        return f"exit {self.exit} after {self.seconds:.1f} s\n--- out\n{self.out[-3000:]}\n--- err\n{self.err[-3000:]}"

    def succeeded(self) -> "Outcome":
        """Fail the test unless the command ended with 0."""
        assert self.exit == 0, self.said
        return self

    def failed(self, exit_status: int, *codes: str) -> "Outcome":
        """Fail the test unless the command ended with this status and one of these codes."""
        assert self.exit == exit_status, self.said
        assert self.code in codes, f"expected {codes}\n{self.said}"
        assert "what to do:" in self.err, self.said
        assert "Traceback" not in self.err, self.said
        return self


class Running:
    """A command that was started. `finish` it, or leave the `with` block: then it is killed."""

    def __init__(
        self,
        *words: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
    ) -> None:
        self._began = time.monotonic()
        self._high_water = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "slipstream", *map(str, words)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env or {}),
            cwd=cwd,
            start_new_session=True,  # what it starts can be found and ended with it
        )
        self._watch = threading.Thread(target=self._follow_memory, daemon=True)
        self._watch.start()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self.process.wait(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def kill(self) -> None:
        """End it and everything it started, giving it no chance to tidy up; it may have ended by itself."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def finish(self, timeout: float = 60) -> Outcome:
        """Wait for its end."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = self.process.communicate(timeout=10)
            raise AssertionError(f"no end after {timeout} s\n{out.decode()[-3000:]}\n{err.decode()[-3000:]}") from None
        self._watch.join(5)
        return Outcome(
            exit=self.process.returncode,
            out=out.decode(),
            err=err.decode(),
            seconds=time.monotonic() - self._began,
            high_water=self._high_water,
        )

    def _follow_memory(self) -> None:
        while self.process.returncode is None:
            try:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
            except OSError:
                return
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            if found:
                self._high_water = max(self._high_water, int(found[1]) << 10)
            elif "State:\tZ" in status:
                return
            time.sleep(0.01)  # a sampling rate, not a synchronisation


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the tests without proxies, with the tree importable from anywhere."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
    return {**kept, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", **extra}


def slipstream(*words: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60, cwd: Path | None = None) -> Outcome:
    """Run the command to its end."""
    with Running(*words, env=env, cwd=cwd) as running:
        return running.finish(timeout)


def importing(
    source: str | Path, target: str | Path, *options: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60
) -> Outcome:
    """Import and return the outcome together with its receipt, {} if it made none."""
    with tempfile.TemporaryDirectory(prefix="receipt-") as folder:
        path = Path(folder) / "receipt.json"
        outcome = slipstream("import", source, target, "--receipt", path, *options, env=env, timeout=timeout)
        receipt = json.loads(path.read_text()) if path.exists() else {}
    return Outcome(
        exit=outcome.exit,
        out=outcome.out,
        err=outcome.err,
        seconds=outcome.seconds,
        high_water=outcome.high_water,
        receipt=receipt,
    )
