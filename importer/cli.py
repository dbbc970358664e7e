"""`slipstream import` and `slipstream inspect`: arguments in, one request to the pipeline, an exit status out."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from importer import options, terminal
from importer.api.failure import Exit, Failure
from importer.api.report import Inspection, Receipt
from importer.api.request import ImportRequest

T = TypeVar("T")
GRACE_SECONDS = 30.0
"""Most time for a cancelled import to stop its tools and remove what it began."""
DEBUG = "SLIPSTREAM_DEBUG"

Out = terminal.Out
Parser = options.Parser
spelled_out = options.spelled_out


def add_commands(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `import` and `inspect`; each parsed namespace carries its `front_door`, to be called with it."""
    one = commands.add_parser("import", help="stream a disk image into a raw disk", add_help=False)
    options.add_import(one)
    one.set_defaults(front_door=import_command)
    two = commands.add_parser("inspect", help="say what an image is and whether it can be imported")
    options.add_inspect(two)
    two.set_defaults(front_door=inspect_command)


def import_command(chosen: argparse.Namespace) -> int:
    """Import one disk and return the exit status."""
    desk = _desk(json_lines=chosen.json, quiet=chosen.quiet or chosen.receipt == "-")
    try:
        request = options.request_of(chosen)
        if chosen.receipt not in (None, "-"):
            check_receipt(chosen.receipt)
        receipt = _drive(_import(request, desk), desk)
        if chosen.receipt is not None:
            write_receipt(receipt, chosen.receipt, desk.out)
        desk.receipt(receipt)
    except BaseException as error:
        return conclude(error, desk)
    return Exit.OK


def inspect_command(chosen: argparse.Namespace) -> int:
    """Inspect one image and return 0, or the exit status an import would end with."""
    desk = _desk(json_lines=chosen.json, quiet=False)
    try:
        inspection = _drive(_inspect(options.request_of(chosen), chosen.target), desk)
        desk.inspection(inspection)
    except BaseException as error:
        return conclude(error, desk)
    return verdict(inspection)


async def _import(request: ImportRequest, desk: terminal.Desk) -> Receipt:
    from importer.pipeline.run import run  # here, not above: it costs 0.2 s that --help and errors need not pay

    return await run(request, desk)


async def _inspect(request: ImportRequest, target: str | None) -> Inspection:
    from importer.pipeline.inspect import inspect

    return await inspect(request, target)


def _desk(*, json_lines: bool, quiet: bool) -> terminal.Desk:
    return terminal.choose(json_lines=json_lines, quiet=quiet, out=terminal.Out(sys.stdout), err=terminal.Out(sys.stderr))


def _drive(work: Coroutine[Any, Any, T], desk: terminal.Desk) -> T:
    """Run `work` on a loop of its own, with signals heard before anything slow is imported."""
    import asyncio  # 60 ms, and with machinery's half all that --help does not need

    from machinery.service.interrupt import Stopped, until_signalled

    async def heard() -> T:
        try:
            return await until_signalled(work, grace=GRACE_SECONDS, told=lambda name: desk.note(f"{name}: cleaning up"))
        except Stopped as stop:
            failure = _interrupted(stop.signal, tidy=stop.tidy)
            if not stop.tidy:  # the loop would wait for ever for what would not be cancelled
                os._exit(conclude(failure, desk))
            raise failure from stop

    return asyncio.run(heard())


def _interrupted(signal_name: str, *, tidy: bool = True) -> Failure:
    if tidy:
        return Failure("interrupted", "stopped by a signal; the target was not made", signal=signal_name)
    cause = "stopped by a signal, and by us before the clean-up was over"
    return Failure("interrupted", cause, signal=signal_name, waited=f"{GRACE_SECONDS:.0f} s")


def refuse(failure: Failure, *, json_lines: bool) -> int:
    """Show a command line that could not be parsed and return the exit status."""
    return conclude(failure, _desk(json_lines=json_lines, quiet=True))


def verdict(inspection: Inspection) -> int:
    """Return the exit status of the first danger, 73 for a disk that does not fit, else 0."""
    for danger in inspection.dangers:
        status = danger.get("exit")
        return status if isinstance(status, int) else Exit.SOFTWARE
    return Exit.CANTCREAT if inspection.fits.startswith("no") and not inspection.fits.startswith("not") else Exit.OK


def conclude(error: BaseException, desk: terminal.Desk) -> int:
    """Show why a command ended and return its exit status."""
    if os.environ.get(DEBUG) == "1":
        traceback.print_exception(error)
    failure = as_failure(error)
    desk.failure(failure)
    return failure.exit


def as_failure(error: BaseException) -> Failure:
    """Return the Failure that an exception means. What is unexpected shows its type and place, no text that may be secret."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, KeyboardInterrupt):
        return _interrupted("SIGINT")
    if isinstance(error, BaseExceptionGroup):
        known = error.subgroup(Failure)
        if known is not None:
            return as_failure(known.exceptions[0])
    return Failure("internal", f"unexpected {type(error).__name__}", at=_place(error), more=f"set {DEBUG}=1 for the traceback")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"


def check_receipt(path: str) -> None:
    """Raise Failure("target-directory" | "permission") where a receipt could not be written: before the import, not after."""
    directory = Path(path).parent
    if not directory.is_dir() or Path(path).is_dir():
        raise Failure(
            "target-directory",
            "the receipt cannot be written there",
            receipt=path,
            hint="choose a file in a directory that exists",
        )
    if not os.access(path if _is_special(path) else directory, os.W_OK):
        raise Failure("permission", "the receipt's directory cannot be written", directory=directory)


def _is_special(path: str) -> bool:
    return Path(path).exists() and not Path(path).is_file()


def write_receipt(receipt: Receipt, path: str, out: terminal.Out) -> None:
    """Write the receipt as JSON: to standard output for "-", into a pipe or device as it is, else by replacing a file whole."""
    text = json.dumps(receipt.as_json(), indent=2)
    if path == "-":
        out.line(text)
        return
    try:
        if _is_special(path):
            Path(path).write_text(text + "\n", encoding="utf-8")
        else:
            _replace(Path(path), text + "\n")
    except OSError as error:
        raise Failure(
            "io", "the disk was imported, but its receipt cannot be written", receipt=path, problem=error.strerror
        ) from None


def _replace(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, and a crash leaves one of them."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False) as file:
        try:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
