"""A child process that never outlives its owner: started and ended by one `async with`."""

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

GRACE_SECONDS = 2.0
REAP_SECONDS = 10.0
TAIL_BYTES = 4096
OUTPUT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended. `returncode` is negative for a signal; texts are printable, errors the last 4 KiB of stderr."""

    returncode: int
    output: str
    errors: str

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that ended it, if one did."""
        try:
            return signal.Signals(-self.returncode) if self.returncode < 0 else None
        except ValueError:
            return None

    @property
    def last_line(self) -> str:
        """The last line of stderr, or how it ended."""
        return self.errors.strip().rpartition("\n")[2] or f"exit status {self.returncode}"


class Child:
    """One process in a session of its own, so that ^C of the terminal reaches it only through us.

    stdin is /dev/null, the working directory is /, the environment holds PATH and the C locale and what `env`
    adds. Leaving the context ends it: SIGTERM, two seconds of grace, SIGKILL.
    """

    def __init__(self, argv: Sequence[str], *, pass_fds: Sequence[int] = (), env: Mapping[str, str] | None = None) -> None:
        """Nothing runs yet. `pass_fds` keep their numbers in the child."""
        self.argv = tuple(argv)
        self._pass_fds = tuple(pass_fds)
        self._env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C", "LC_ALL": "C", "HOME": "/", **(env or {})}
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._output = bytearray()
        self._errors = bytearray()

    @property
    def pid(self) -> int:
        """The process id; the tools that confine a child replace themselves by it, so it stays the same."""
        return self._running.pid

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "the child runs only inside its context"
        return self._process

    async def __aenter__(self) -> "Child":
        """Start it. Raises FileNotFoundError or PermissionError if argv[0] cannot be run."""
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=self._pass_fds,
                env=self._env,
                cwd="/",
                start_new_session=True,
            )
        )
        try:
            self._process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(OSError):  # cancelled half-way: the process may be there, so let it come up and end it
                self._process = await starting
                await self._end()
            raise
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            asyncio.create_task(_keep(self._process.stdout, self._output, OUTPUT_BYTES, last=False)),
            asyncio.create_task(_keep(self._process.stderr, self._errors, TAIL_BYTES, last=True)),
        ]
        return self

    async def wait(self) -> Ended:
        """Wait for it to end by itself; unbounded, so bound it where the tool is not trusted to end."""
        returncode = await self._running.wait()
        # A grandchild may hold the pipes open: what it would say is not waited for.
        await asyncio.wait(self._readers, timeout=GRACE_SECONDS)
        return Ended(returncode=returncode, output=_printable(self._output), errors=_printable(self._errors))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it if it still runs."""
        try:
            await self._end()
        finally:
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)

    async def _end(self) -> None:
        """SIGTERM, grace, SIGKILL; a second cancellation skips the grace."""
        if self._running.returncode is not None:
            return
        self._signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._running.wait(), GRACE_SECONDS)
        except TimeoutError:
            pass
        finally:
            if self._running.returncode is None:
                self._signal(signal.SIGKILL)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._running.wait(), REAP_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        """Signal its whole session, which is named after it."""
        with suppress(ProcessLookupError):
            os.killpg(self._running.pid, number)


async def run(argv: Sequence[str], *, seconds: float, pass_fds: Sequence[int] = ()) -> Ended:
    """Run a short tool to its end. Raises TimeoutError after `seconds`, FileNotFoundError if it is not there."""
    async with Child(argv, pass_fds=pass_fds) as child:
        return await asyncio.wait_for(child.wait(), seconds)


def shell_line(argv: Sequence[str]) -> str:
    """Return argv as a line that can be pasted into a shell."""
    return shlex.join(argv)


async def _keep(stream: asyncio.StreamReader, store: bytearray, limit: int, *, last: bool) -> None:
    """Read `stream` to its end, keeping its first or its last `limit` bytes."""
    while chunk := await stream.read(16 << 10):
        if last:
            store += chunk
            del store[: max(0, len(store) - limit)]
        else:
            store += chunk[: max(0, limit - len(store))]


def _printable(data: bytes | bytearray) -> str:
    """Decode what a tool said: no control characters reach a terminal or a log."""
    text = data.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
