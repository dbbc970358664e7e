"""Reporters for a person or a script at a command line. They write to streams and decide nothing.

A reader of ours that goes away (`| head`) must not end an import: its pipe is then left alone.
rich costs 60 ms and is imported only where a terminal is there to draw on.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol, TextIO

from importer.api.failure import Failure
from importer.api.report import Inspection, Progress, Receipt, Reporter
from importer.pages import Pace, failure_lines, inspection_page, moment_line, plain, receipt_page

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_SECONDS = 3.0
JSON_SECONDS = 1.0
_FRAME_SECONDS = 0.1


class Out:
    """A stream that may lose its reader. Only a full disk and the like are errors: Failure("io")."""

    def __init__(self, stream: TextIO | None) -> None:
        """Write to `stream`; None, as Python has it for a descriptor closed at start, takes nothing."""
        self._stream = stream
        self._problem: str | None = None

    @property
    def is_terminal(self) -> bool:
        """True if a person is likely to look at it."""
        return self._stream is not None and self._stream.isatty() and os.environ.get("TERM") != "dumb"

    def line(self, text: str) -> None:
        """Write one or more whole lines and flush them. Once it failed, every further call fails."""
        if self._stream is not None:
            try:
                self._stream.write(text + "\n")
                self._stream.flush()
            except BrokenPipeError:
                self._leave()
            except OSError as error:
                self._problem = error.strerror
                self._leave()
        if self._problem is not None:
            raise Failure("io", "the output cannot be written", problem=self._problem)

    def _leave(self) -> None:
        """Point the descriptor at nothing: the interpreter flushes what is left at exit, and must not fail then."""
        stream, self._stream = self._stream, None
        assert stream is not None
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)


class Desk(Reporter, Protocol):
    """A Reporter that also shows how it ended."""

    out: Out

    def receipt(self, receipt: Receipt) -> None:
        """Show a successful import."""
        ...

    def inspection(self, inspection: Inspection) -> None:
        """Show an inspection."""
        ...

    def failure(self, failure: Failure) -> None:
        """Show why it ended; must not raise."""
        ...


class Quiet:
    """Says nothing but why it failed."""

    def __init__(self, out: Out, err: Out) -> None:
        """Use standard output for results and standard error for everything else."""
        self.out, self.err = out, err

    def progress(self, moment: Progress) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def receipt(self, receipt: Receipt) -> None:
        """Nothing."""

    def inspection(self, inspection: Inspection) -> None:
        """Print the page: who asks for an inspection wants it."""
        self.out.line(inspection_page(inspection))

    def failure(self, failure: Failure) -> None:
        """Print the failure to standard error."""
        _regardless(self.err, failure_lines(failure))


class Lines(Quiet):
    """A plain line every three seconds: for logs and pipes."""

    def __init__(self, out: Out, err: Out) -> None:
        super().__init__(out, err)
        self._pace = Pace()
        self._last = 0.0

    def progress(self, moment: Progress) -> None:
        """Print a line if the last one is three seconds old."""
        self._pace.note(moment)
        if moment.seconds - self._last >= LINE_SECONDS:
            self._last = moment.seconds
            _regardless(self.err, moment_line(moment, self._pace))

    def note(self, text: str) -> None:
        """Print it at once."""
        _regardless(self.err, f"note: {plain(text)}")

    def receipt(self, receipt: Receipt) -> None:
        """Print the page to standard output."""
        self.out.line(receipt_page(receipt))


class JsonLines(Quiet):
    """JSON objects on standard output, one a line, each with its "event"."""

    def __init__(self, out: Out, err: Out, *, quiet: bool = False) -> None:
        """Leave progress and notes out if `quiet`."""
        super().__init__(out, err)
        self._quiet = quiet
        self._last = float("-inf")
        self._phase = ""

    def progress(self, moment: Progress) -> None:
        """Print a moment at every change of phase and once a second."""
        if self._quiet or (moment.phase == self._phase and moment.seconds - self._last < JSON_SECONDS):
            return
        self._phase, self._last = moment.phase, moment.seconds
        _regardless(self.out, _event("progress", asdict(moment)))

    def note(self, text: str) -> None:
        """Print it at once."""
        if not self._quiet:
            _regardless(self.out, _event("note", {"text": text}))

    def receipt(self, receipt: Receipt) -> None:
        """Print every field."""
        self.out.line(_event("receipt", receipt.as_json()))

    def inspection(self, inspection: Inspection) -> None:
        """Print every field."""
        self.out.line(_event("inspection", inspection.as_json()))

    def failure(self, failure: Failure) -> None:
        """Print it as an event, and for people to standard error."""
        _regardless(self.out, _event("failure", failure.as_json()))
        super().failure(failure)


class Bar(Lines):
    """A progress bar, drawn at most ten times a second."""

    def __init__(self, out: Out, err: Out) -> None:
        super().__init__(out, err)
        self._drawn = float("-inf")
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def _open(self) -> "tuple[RichProgress, TaskID]":
        if self._bar is None or self._task is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as RichProgress

            console = Console(stderr=True)
            # No thread of rich's own and no captured streams: this program draws when it is told something.
            columns = (BarColumn(bar_width=24), TextColumn("{task.description}", markup=False))
            self._bar = RichProgress(
                *columns, console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self._bar, self._task

    def progress(self, moment: Progress) -> None:
        """Draw where the import is."""
        self._pace.note(moment)
        if moment.seconds - self._drawn < _FRAME_SECONDS:
            return
        self._drawn = moment.seconds
        try:
            bar, task = self._open()
            here = moment.fetched + moment.resumed
            bar.update(task, total=moment.fetch_total, completed=here, description=moment_line(moment, self._pace))
            bar.refresh()
        except OSError:
            self._drawn = float("inf")  # the terminal is gone; the import is not

    def note(self, text: str) -> None:
        """Print it above the bar."""
        if self._bar is None:
            super().note(text)
            return
        with contextlib.suppress(OSError):
            self._bar.console.print(f"note: {plain(text)}", markup=False, highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self._bar is not None:
            bar, self._bar, self._task = self._bar, None, None
            with contextlib.suppress(OSError):
                bar.stop()

    def receipt(self, receipt: Receipt) -> None:
        """Take the bar away and print the page."""
        self._close()
        super().receipt(receipt)

    def failure(self, failure: Failure) -> None:
        """Take the bar away and print why."""
        self._close()
        super().failure(failure)


def choose(*, json_lines: bool, quiet: bool, out: Out, err: Out) -> Desk:
    """Return the reporter that suits the options and the streams."""
    if json_lines:
        return JsonLines(out, err, quiet=quiet)
    if quiet:
        return Quiet(out, err)
    return Bar(out, err) if err.is_terminal else Lines(out, err)


def _event(event: str, fields: Mapping[str, object]) -> str:
    return json.dumps({"event": event, **fields})


def _regardless(out: Out, text: str) -> None:
    """Write lines that nothing may depend on."""
    with contextlib.suppress(Failure):
        out.line(text)
